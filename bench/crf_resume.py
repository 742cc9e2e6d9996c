"""CRF on Resume NER: chosen on dev, refitted on train + dev, tested once. Run: python bench/crf_resume.py [--all] [--peer] [--test]"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from wenfang.core.examples import Examples, Span
from wenfang.models import Curve, DataShape, families
from wenfang.models.contexts import TEMPLATES
from wenfang.models.spans import span_f1
from wenfang.models.tags import TagSet

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data")) / "resume_ner"


def read(name):
    texts, spans = [], []
    for block in (DATA / name).read_text(encoding="utf-8").strip().split("\n\n"):
        rows = [line.split(" ") for line in block.splitlines()]
        found, start = [], 0
        for i, (_, tag) in enumerate(rows):
            if tag[0] in "BS":
                start = i
            if tag[0] in "ES":
                found.append(Span(start, i + 1, tag[2:]))
        texts.append("".join(r[0] for r in rows))
        spans.append(tuple(found))
    return Examples("tagging", texts, spans=spans)


def f1(model, examples):
    return span_f1([o.spans for o in model.predict(examples.texts)], examples.spans)


def timed(call):
    start = time.process_time()
    answer = call()
    return answer, time.process_time() - start


def peer(train, dev, test):
    """CRFsuite on the same contexts and tags; features are strings made from our row numbers, whose making is not timed."""
    import pycrfsuite

    from wenfang.models.contexts import Contexts

    tag_set = TagSet(tuple(train.label_names()))
    contexts = Contexts.count(train.texts, min_count=1, size_max=10**9)

    def strings(examples):
        w = contexts.windows(examples.texts)
        return [[[str(r) for r in row if r] for row in w.rows[a:b].tolist()] for a, b in zip(w.starts[:-1], w.starts[1:], strict=True)]

    trainer = pycrfsuite.Trainer(verbose=False)
    features = strings(train)

    def learn():
        for xs, text, spans in zip(features, train.texts, train.spans, strict=True):
            trainer.append(xs, [tag_set.names[t] for t in tag_set.encode(spans, len(text))])
        trainer.set_params({"c1": 0.1, "c2": 0.01, "max_iterations": 100, "feature.possible_transitions": True})
        with tempfile.TemporaryDirectory() as folder:
            trainer.train(f"{folder}/m")
            tagger = pycrfsuite.Tagger()
            tagger.open(f"{folder}/m")
            return tagger

    tagger, fit_s = timed(learn)
    number = {n: i for i, n in enumerate(tag_set.names)}
    for name, examples in [("dev", dev), ("test", test)]:
        found = [tag_set.decode([number[t] for t in tagger.tag(xs)]) for xs in strings(examples)]
        print(f"CRFsuite, {len(TEMPLATES)} templates, c1 0.1 c2 0.01, 100 iterations: {name} {span_f1(found, examples.spans):.4f}, fit {fit_s:.1f} CPU-s")


def main():
    train, dev = read("train.char.bmes"), read("dev.char.bmes")
    family = families.get("crf")
    small = train.take(range(50))
    family(family.Hyper(iterations=2), task="tagging").fit(small, small).predict(small.texts)  # compile
    best = None
    for hyper in list(family.candidates(DataShape("tagging", len(train), 8, 32, 200)))[: None if "--all" in sys.argv else 1]:
        curve = Curve()
        model, fit_s = timed(lambda h=hyper, c=curve: family(h, task="tagging").fit(train, dev, c))
        score = f1(model, dev)
        print(
            f"dev {score:.4f}  fit {fit_s:.1f} CPU-s  {hyper.model_dump(exclude_defaults=True)}  {[(s.step, round(s.valid_score, 4)) for s in curve.steps if s.valid_score is not None]}",
            flush=True,
        )
        if best is None or score > best[0]:
            best = score, model
    model, fit_s = timed(lambda: family(best[1].refit_hyper(), task="tagging").fit(train + dev))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        model, load_s = timed(lambda: family.load(Path(folder), task="tagging", hyper=model.hyper, labels=model.labels_))
    chars = sum(map(len, train.texts))
    _, tag_s = timed(lambda: model.predict(train.texts))
    _, single_s = timed(lambda: [model.predict([t]) for t in dev.texts])
    alone = sum(map(len, dev.texts)) / single_s
    print(f"refit {fit_s:.1f} CPU-s, bundle {size / 1e6:.1f} MB, load {load_s:.2f} CPU-s, tagging {chars / tag_s:,.0f} chars/CPU-s in one batch, {alone:,.0f} one text at a time")
    if "--test" in sys.argv:
        print(f"test span F1 {f1(model, read('test.char.bmes')):.4f}")
    if "--peer" in sys.argv:
        peer(train, dev, read("test.char.bmes"))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
