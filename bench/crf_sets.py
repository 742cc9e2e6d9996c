"""The crf family beside CRFsuite on five span sets: scores with paired tests, CPU seconds, characters a second.

Run: python -m bench crf_sets, or python bench/crf_sets.py [resume cluener snips people titles] [--test] [--no-peer] [--quick-peer] [--all]
CRFsuite sees plain templates and has 50 and 100 iterations, with --quick-peer 50 only. Both learn from train alone and are judged on valid, with --test on the set's test part. --all tries every candidate on valid.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench._span_sets import SETS
from wenfang.models import Curve, DataShape, families
from wenfang.models.places import Places, fitting_unit
from wenfang.models.spans import span_f1
from wenfang.models.tags import TagSet
from wenfang.select.metrics import span_counts
from wenfang.stats.paired import compare
from wenfang.stats.scores import Counts

PEER = {"c1": 0.1, "c2": 0.01, "feature.possible_transitions": True}
WINDOW = [(-2,), (-1,), (0,), (1,), (2,), (-2, -1), (-1, 0), (0, 1), (1, 2), (-1, 1)]


def timed(call, *arguments, **named):
    start = time.process_time()
    answer = call(*arguments, **named)
    return answer, time.process_time() - start


def plain(tokens):
    """The plain templates of a window of five, as CRFsuite takes them."""
    padded = ["<", "<", *tokens, ">", ">"]
    return [[f"{k}:" + "|".join(padded[t + 2 + o] for o in offsets) for k, offsets in enumerate(WINDOW)] for t in range(len(tokens))]


class Peer:
    """CRFsuite with plain templates over the same places and tags."""

    def __init__(self, train, iterations):
        import pycrfsuite

        self.unit = fitting_unit(train.texts, [[b for s in spans for b in (s.start, s.end)] for spans in train.spans])
        self.tags = TagSet(tuple(train.label_names()))
        trainer = pycrfsuite.Trainer(verbose=False)
        places = Places(train.texts, self.unit)
        for tokens, spans in zip(self.tokens(train.texts, places), places.covering(train.spans), strict=True):
            trainer.append(plain(tokens), [self.tags.names[t] for t in self.tags.encode(spans, len(tokens))])
        trainer.set_params({**PEER, "max_iterations": iterations})
        self.folder = tempfile.TemporaryDirectory()
        trainer.train(f"{self.folder.name}/m")
        self.tagger = pycrfsuite.Tagger()
        self.tagger.open(f"{self.folder.name}/m")

    @staticmethod
    def tokens(texts, places):
        left, right = places.bounds()
        return [
            [text[a:b].lower() for a, b in zip(left[x:y].tolist(), right[x:y].tolist(), strict=True)]
            for text, x, y in zip(texts, places.starts[:-1], places.starts[1:], strict=True)
        ]

    def predict(self, texts):
        places, number = Places(texts, self.unit), {n: i for i, n in enumerate(self.tags.names)}
        left, right = places.bounds()
        found = []
        for tokens, x in zip(self.tokens(texts, places), places.starts[:-1].tolist(), strict=True):
            spans = self.tags.decode([number[t] for t in self.tagger.tag(plain(tokens))])
            found.append(tuple(type(s)(int(left[x + s.start]), int(right[x + s.end - 1]), s.label) for s in spans))
        return found


def report(name, judged, ours, peer):
    both = [Counts("span_f1", span_counts(judged.spans, found)) for found in (ours, peer)]
    d = compare(*both)
    print(f"  {name}: difference {d.difference:+.4f} [{d.low:+.4f}, {d.high:+.4f}], p {d.p:.4f} ({d.method})", flush=True)


def learn(family, hyper, train):
    return family(hyper, task="tagging").fit(train, None, Curve())


def hurry(family, train, dev, goal, peer_s):
    """CPU seconds until valid reaches what CRFsuite reaches in 50 iterations."""
    for passes in range(1, 13):
        model, fit_s = timed(learn, family, family.Hyper(passes=passes), train)
        found = span_f1([o.spans for o in model.predict(dev.texts)], dev.spans)
        if found >= goal:
            break
    print(f"  CRFsuite 50 iterations: valid {goal:.4f} in {peer_s:.1f} CPU-s; crf: valid {found:.4f} after {passes} passes in {fit_s:.1f} CPU-s, all told", flush=True)


def against(train, valid, judged, ours, iterations):
    """CRFsuite's figures on the judged part beside ours; its score on valid and CPU seconds."""
    peer, peer_s = timed(Peer, train, iterations)
    found, tag_s = timed(peer.predict, judged.texts)
    size = sum(map(len, judged.texts))
    print(f"  CRFsuite, {iterations} iterations: {span_f1(found, judged.spans):.4f}, fit {peer_s:.1f} CPU-s, tagging {size / tag_s:,.0f} characters/CPU-s", flush=True)
    report(f"crf - CRFsuite {iterations}", judged, ours, found)
    return span_f1(peer.predict(valid.texts), valid.spans), peer_s


def one(family, name, flags):
    train, valid, test = SETS[name]()
    part, judged = ("test", test) if "--test" in flags else ("valid", valid)
    shape = DataShape("tagging", len(train), len(train.label_names()), sum(map(len, train.texts)) / len(train), max(map(len, train.texts)))
    best = 0.0, None
    for hyper in list(family.candidates(shape))[: None if "--all" in flags else 1]:
        model, fit_s = timed(learn, family, hyper, train)
        score = span_f1([o.spans for o in model.predict(valid.texts)], valid.spans)
        print(f"{name}: valid {score:.4f}, fit {fit_s:.1f} CPU-s  {hyper.model_dump(exclude_defaults=True)}", flush=True)
        best = max(best, (score, model), key=lambda pair: pair[0])
    size = sum(map(len, judged.texts))
    outputs, tag_s = timed(best[1].predict, judged.texts * 3)
    ours = [o.spans for o in outputs[: len(judged)]]
    print(f"  {part} {span_f1(ours, judged.spans):.4f}, tagging {3 * size / tag_s:,.0f} characters/CPU-s", flush=True)
    if "--no-peer" in flags:
        return
    goal, peer_s = against(train, valid, judged, ours, 50)
    hurry(family, train, valid, goal, peer_s)
    if "--quick-peer" not in flags:
        against(train, valid, judged, ours, 100)


def main(names=None):
    flags = {a for a in sys.argv[1:] if a.startswith("--")}
    family = families.get("crf")
    small = SETS["resume"]()[0].take(range(50))
    compile_s = sum(timed(learn, family, family.Hyper(algorithm=a, iterations=2), small)[1] for a in ("sgd", "lbfgs", "perceptron"))
    print(f"compiling or reading compiled loops: {compile_s:.1f} CPU-s, not counted below")
    for name in names or [a for a in sys.argv[1:] if a in SETS] or list(SETS):
        one(family, name, flags)


if __name__ == "__main__":
    main()
