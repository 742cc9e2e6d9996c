"""Poems held out: perplexity per character of the small decoder and of a modified Kneser-Ney 5-gram. Run: python -m bench poems"""

import json
import os
import time
from pathlib import Path

import numpy as np

from wenfang.core.conversation import Generation
from wenfang.core.examples import Examples
from wenfang.core.ports import Quiet
from wenfang.models import Curve, families
from wenfang.models.generation.ngrams import NGrams

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data")) / "chinese_poetry_sample"
LONGEST = 400
ORDER = 5
HYPER = {"layers": 2, "hidden": 192, "heads": 6, "ff": 576, "dropout": 0.2, "epochs": 10, "batch_tokens": 2048, "min_count": 2}


def poems():
    """Different poems of at most LONGEST characters, a line for each couplet."""
    found = {}
    for path in sorted(DATA.glob("全唐诗_poet*.json")):
        for poem in json.loads(path.read_text(encoding="utf-8")):
            text = "\n".join(poem["paragraphs"])
            if text and len(text) <= LONGEST:
                found[text] = None
    return list(found)


def examples(texts):
    return Examples("generation", [""] * len(texts), targets=texts)


class Told(Quiet):
    def advance(self, n=1, **figures):
        print(f"  epoch {figures['step']:.0f}: train {np.exp(figures['loss']):.1f}, valid {np.exp(-figures['valid']):.1f} ({time.process_time():.0f} CPU-s)", flush=True)


def main():
    """Learn from eight tenths, stop by half a tenth, judge once on a tenth; the unknown character and the end of a poem count in both models."""
    texts = poems()
    test, valid = texts[::10], texts[5::20]
    train = [t for i, t in enumerate(texts) if i % 10 not in {0, 5}]
    print(f"{len(train)} poems to learn from ({sum(map(len, train)):,} characters), {len(valid)} to stop by, {len(test)} held out")
    Generator = families.get("generator")
    start = time.process_time()
    model = Generator(Generator.Hyper.model_validate(HYPER), task="generation").fit(examples(train), examples(valid), Curve(progress=Told()))
    print(f"decoder: {time.process_time() - start:.0f} CPU-s, {sum(w.size for w in model.writer_.weights.values()):,} weights, {model.found_}")
    own, counts = model.losses(examples(test))
    alphabet = model.writer_.alphabet
    known = set(alphabet.chars)

    def symbols(text):
        return [c if c in known else "\0" for c in text]

    start = time.process_time()
    grams = NGrams.learn(map(symbols, train), order=ORDER, vocabulary=len(known) + 2)
    other = np.array([-grams.log_chances(symbols(t)).sum() for t in test])
    print(f"Kneser-Ney {ORDER}-gram: {time.process_time() - start:.0f} CPU-s")
    rows = np.random.default_rng(0).integers(0, len(test), (10_000, len(test)))
    tokens = counts[rows].sum(axis=1)
    for name, losses in (("decoder", own), ("Kneser-Ney", other)):
        low, high = np.exp(np.quantile(losses[rows].sum(axis=1) / tokens, [0.025, 0.975]))
        print(f"{name}: perplexity {np.exp(losses.sum() / counts.sum()):.1f} [{low:.1f}, {high:.1f}] on {counts.sum():,} characters and ends")
    low, high = np.exp(np.quantile((own - other)[rows].sum(axis=1) / tokens, [0.025, 0.975]))
    print(f"ratio {np.exp((own - other).sum() / counts.sum()):.3f} [{low:.3f}, {high:.3f}], poems drawn anew in pairs")
    for answer in model.generate([""] * 4, [Generation(temperature=0.8, top_p=0.9, seed=s, max_tokens=80) for s in range(4)]):
        print("  " + answer.text.replace("\n", " / "))


if __name__ == "__main__":
    main()
