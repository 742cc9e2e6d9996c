"""Linear on THUCNews titles: chosen on dev, refitted on train + dev, tested once. Run: python bench/linear_thucnews.py [--test]"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from wenfang.core.examples import Examples
from wenfang.models import DataShape, families

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data")) / "thucnews_titles"


def read(name):
    rows = [line.split("\t") for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return Examples("classification", [r[0] for r in rows], [r[1] for r in rows])


def accuracy(outputs, examples):
    return sum(o.label == label for o, label in zip(outputs, examples.labels, strict=True)) / len(examples)


def timed(call):
    start = time.process_time()
    answer = call()
    return answer, time.process_time() - start


def calibration_error(outputs, examples, bins=15):
    total = 0.0
    for b in range(bins):
        inside = [(o.score, o.label == y) for o, y in zip(outputs, examples.labels, strict=True) if b / bins < o.score <= (b + 1) / bins]
        total += abs(sum(s for s, _ in inside) - sum(r for _, r in inside))
    return total / len(examples)


def main():
    train, dev = read("train_part.txt"), read("dev.txt")
    family = families.get("linear")
    family(task="classification").fit(train.take(range(500)))  # compile
    shape = DataShape("classification", len(train), 10, 20, 30)
    best = None
    for hyper in list(family.candidates(shape))[: None if "--all" in sys.argv else 1]:
        model, fit_s = timed(lambda h=hyper: family(h, task="classification").fit(train, dev))
        score = accuracy(model.predict(dev.texts), dev)
        print(f"dev {score:.4f}  fit {fit_s:.1f} CPU-s  {hyper.model_dump(exclude_defaults=True)}", flush=True)
        if best is None or score > best[0]:
            best = score, model
    model, fit_s = timed(lambda: family(best[1].refit_hyper(), task="classification").fit(train + dev))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        model, load_s = timed(lambda: family.load(Path(folder), task="classification", hyper=model.hyper, labels=model.labels_))
    texts = dev.texts * 2
    _, batch_s = timed(lambda: [model.predict(texts[i : i + 64]) for i in range(0, len(texts), 64)])
    _, single_s = timed(lambda: [model.predict([t]) for t in texts[:2000]])
    print(
        f"refit {fit_s:.1f} CPU-s, bundle {size / 1e6:.1f} MB, load {load_s:.2f} CPU-s, batches of 64: {len(texts) / batch_s:,.0f} texts/CPU-s, alone: {2000 / single_s:,.0f} texts/CPU-s"
    )
    if "--test" in sys.argv:
        test = read("test.txt")
        outputs = model.predict(test.texts)
        print(f"test accuracy {accuracy(outputs, test):.4f}, expected calibration error {calibration_error(outputs, test):.4f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
