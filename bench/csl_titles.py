"""CSL titles from abstracts, 1,000 pairs to learn from: the extractive generator against lead and TextRank. Run: python -m bench csl_titles [--test]"""

import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.select.overlap import rouge_counts
from wenfang.select.overlap import tokens as units

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data")) / "csl" / "ts"
VALID = 200


def read(name):
    rows = [line.split("\t") for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return Examples("generation", [r[1] for r in rows], targets=[r[2] for r in rows])


def cut(text, marks):
    return [piece.strip() for piece in re.split(f"[{marks}]", text) if piece.strip()] or [text]


def text_rank(pieces):
    """The piece that most others resemble. Source: Mihalcea and Tarau 2004, section 4."""
    bags = [set(units(p)) for p in pieces]
    n = len(pieces)
    alike = np.array([[len(a & b) / (np.log(len(a) + 1) + np.log(len(b) + 1)) if i != j else 0.0 for j, b in enumerate(bags)] for i, a in enumerate(bags)])
    steps = alike / np.maximum(alike.sum(axis=1, keepdims=True), 1e-12)
    rank = np.full(n, 1 / n)
    for _ in range(50):
        rank = 0.15 / n + 0.85 * rank @ steps
    return pieces[int(rank.argmax())]


SENTENCE, CLAUSE = "。！？.!?;；", "。！？.!?;；,，:：、"
BASELINES = {
    "lead sentence": lambda t: cut(t, SENTENCE)[0],
    "lead clause": lambda t: cut(t, CLAUSE)[0],
    "TextRank sentence": lambda t: text_rank(cut(t, SENTENCE)),
    "TextRank clause": lambda t: text_rank(cut(t, CLAUSE)),
}


def main():
    """Without --test the last 200 of the 1,000 pairs judge what the first 800 taught; with it all 1,000 teach and the test file judges, once."""
    pairs = read("dev.tsv")
    final = "--test" in sys.argv
    train, fresh = (pairs, read("test.tsv")) if final else (pairs.take(range(len(pairs) - VALID)), pairs.take(range(len(pairs) - VALID, len(pairs))))
    Generator = families.get("generator")
    start = time.process_time()
    model = Generator(Generator.Hyper(kind="extractive", epochs=3), task="generation").fit(train)
    fit_s, start = time.process_time() - start, time.process_time()
    answers = [o.text for o in model.predict(fresh.texts)]
    print(f"{len(train)} pairs in {fit_s:.1f} CPU-s; {1000 * (time.process_time() - start) / len(fresh):.1f} CPU-ms an answer")
    draws = np.random.default_rng(0).integers(0, len(fresh), (10_000, len(fresh)))
    own = {name: counts.rows[:, 0] / 1e6 for name, counts in rouge_counts(fresh.targets, answers).items()}

    def shown(values):
        low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
        return f"{values.mean():.4f} [{low:.4f}, {high:.4f}]"

    print(f"{'extractive':18} " + "  ".join(f"{name} {shown(values)}" for name, values in own.items()))
    for name, baseline in BASELINES.items():
        other = rouge_counts(fresh.targets, [baseline(t) for t in fresh.texts])["rouge_l"].rows[:, 0] / 1e6
        print(f"{name:18} rouge_l {shown(other)}, extractive is ahead by {shown(own['rouge_l'] - other)} (paired)")
    for target, answer in list(zip(fresh.targets, answers, strict=True))[:15]:
        print(f"  {target}  ←  {answer}")


if __name__ == "__main__":
    main()
