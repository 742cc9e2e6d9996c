"""Smart reply on LCCC (toy), ChatterBot (Chinese) and KdConv: the right reply's rank in the library, against BM25 and TF-IDF. Run: python -m bench smart_reply"""

import json
import math
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from wenfang.core.conversation import Message, conversation, written
from wenfang.core.examples import Examples
from wenfang.core.text import fold
from wenfang.models import families

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
SETS = [w for w in sys.argv[1:] if w in {"lccc", "chatterbot", "kdconv"}] or ["chatterbot", "kdconv", "lccc"]
KS = (1, 5, 10)


def lccc(name):
    rows = [[t.replace(" ", "") for t in line.split("\t")] for line in (DATA / "lccc_toy" / f"toy_{name}.txt").read_text(encoding="utf-8").splitlines()]
    return [(r[0], r[-1]) for r in rows if len(r) > 1]


def chatterbot():
    """Question and answer lines, by hand: the files are a fixed subset of YAML."""
    pairs = []
    for path in sorted((DATA / "chatterbot_corpus" / "chinese").glob("*.yml")):
        turns = []
        for line in path.read_text(encoding="utf-8").splitlines():
            new, more = re.match(r"^- - (.*)", line), re.match(r"^  - (.*)", line)
            if new:
                turns = [new[1]]
            elif more and turns:
                pairs.append((turns[-1], more[1]))
                turns.append(more[1])
    return pairs


def kdconv(name):
    pairs = []
    for talk in json.loads((DATA / "kdconv_part" / "travel" / f"{name}.json").read_text(encoding="utf-8")):
        said = [m["message"] for m in talk["messages"]]
        for i in range(1, len(said)):
            turns = [Message("user" if (i - j) % 2 else "assistant", said[j]) for j in range(max(0, i - 4), i)]
            pairs.append((written(turns), said[i]))
    return pairs


def outline(text):
    return re.sub(r"\s+", "", fold(text)).rstrip(" .。!！?？~～,，…")


def parts(name):
    """(train, questions whose reply the library holds): unseen conversations, replies that were given elsewhere."""
    if name == "lccc":
        train, fresh = lccc("train"), lccc("valid")
    elif name == "kdconv":
        train, fresh = kdconv("dev"), kdconv("test")
    else:
        pairs = chatterbot()
        order = np.random.default_rng(0).permutation(len(pairs))
        train, fresh = [pairs[i] for i in order[len(pairs) // 5 :]], [pairs[i] for i in order[: len(pairs) // 5]]
    library = {outline(t) for _, t in train}
    return train, [(q, t) for q, t in fresh if outline(t) in library], len(fresh)


class Bm25:
    """Character uni- and bigrams of the last message against those of the learned questions; a reply counts by its best question."""

    def __init__(self, pairs, k1=1.2, b=0.75):
        self.pairs, self.k1, self.b = pairs, k1, b
        self.bags = [Counter(self.grams(q)) for q, _ in pairs]
        self.lengths = np.array([max(1, sum(c.values())) for c in self.bags])
        self.posts = {}
        for i, bag in enumerate(self.bags):
            for g, n in bag.items():
                self.posts.setdefault(g, []).append((i, n))

    def grams(self, text):
        t = fold(conversation(text)[-1].content)
        return [*t, *(t[i : i + 2] for i in range(len(t) - 1))]

    def weights(self, hits, i, n):
        rarity = math.log(1 + (len(self.pairs) - hits + 0.5) / (hits + 0.5))
        return rarity * n * (self.k1 + 1) / (n + self.k1 * (1 - self.b + self.b * self.lengths[i] / self.lengths.mean()))

    def rank(self, text):
        scores = np.zeros(len(self.pairs))
        for g in set(self.grams(text)):
            post = self.posts.get(g, ())
            for i, n in post:
                scores[i] += self.weights(len(post), i, n)
        found = {}
        for i in np.argsort(-scores, kind="stable")[:200]:
            found.setdefault(outline(self.pairs[i][1]), None)
        return list(found)


class TfIdf(Bm25):
    """Cosine of the same grams."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.norms = np.zeros(len(pairs))
        for post in self.posts.values():
            for i, n in post:
                self.norms[i] += ((1 + math.log(n)) * math.log(len(pairs) / len(post))) ** 2
        self.norms = np.sqrt(np.maximum(self.norms, 1e-9))

    def weights(self, hits, i, n):
        return (1 + math.log(n)) * math.log(len(self.pairs) / hits) ** 2 / self.norms[i]


def ranks(ranked, wanted):
    at = [r.index(w) + 1 if w in r else None for r, w in zip(ranked, wanted, strict=True)]
    row = {f"recall@{k}": np.mean([a is not None and a <= k for a in at]) for k in KS}
    return {**row, "mrr": np.mean([0.0 if a is None else 1 / a for a in at])}


def main():
    for name in SETS:
        train, fresh, whole = parts(name)
        wanted = [outline(t) for _, t in fresh]
        print(
            f"{name}: {len(train)} learned, {len({outline(t) for _, t in train})} replies; {len(fresh)} of {whole} fresh conversations have their reply in the library", flush=True
        )
        shown = {}
        for label, ranker in (("bm25", Bm25(train)), ("tf-idf", TfIdf(train))):
            shown[label] = ranks([ranker.rank(q) for q, _ in fresh], wanted)
        family = families.get("retriever")
        examples = Examples("chat", [q for q, _ in train], targets=[t for _, t in train])
        grid = [{}, {"itself": 0.0}, {"neighbours": 32}, {"turns": 1}, {"prior": 0.0}, {"prior": 1.0}, {"long_weight": 0.5}] if "--all" in sys.argv else [{}]
        for hyper in grid:
            start = time.process_time()
            model = family(family.Hyper.model_validate({"floor": 0.0, **hyper}), task="chat").fit(examples)
            fit_s, start = time.process_time() - start, time.process_time()
            answers = model.predict([q for q, _ in fresh], top_k=100)
            took = time.process_time() - start
            shown[f"retriever {hyper}"] = {**ranks([[outline(r.text) for r in a.replies] for a in answers], wanted), "fit CPU-s": fit_s, "per CPU-s": len(fresh) / max(1e-9, took)}
        for label, row in shown.items():
            print(f"  {label:32}" + "  ".join(f"{k} {v:.4f}" if v < 1.01 else f"{k} {v:.1f}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
