"""Students of the best Transformer: which share of its score they keep at which share of its latency. Teachers and students are chosen by nothing but valid.

Usage: python bench/students.py [NAME[=ROWS[:EPOCHS]] …]   (thucnews, cluener; fewer rows or epochs where time is short; WENFANG_TEST_DATA names the data folder)

Two teachers are fitted, the small guess of the family and the wide one; the better on valid teaches. Students learn from its opinion as ``wenfang model
distil`` has it, and once from the labels alone, so that what teaching brings can be seen. Latency is that of real replicas, one text at a time.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from bench._transformer_sets import cluener, titles
from wenfang.core.home import Home
from wenfang.core.settings import Settings
from wenfang.models import families
from wenfang.models.base import Curve
from wenfang.models.bundle import write_bundle
from wenfang.models.distilling import taught
from wenfang.select.evaluate import evaluate, predict_all
from wenfang.select.latency import measure
from wenfang.select.selection import shape_of
from wenfang.studio.wiring import open_in_place

LIGHT = {"thucnews": "linear", "cluener": "crf"}
SMALLER = {"layers": 2, "hidden": 128, "heads": 4, "ff": 512, "learning_rate": 1e-3}
"""The student of two layers, where the teacher is wider."""
SHARE = 0.5
"""Of the teacher in the targets, as ``model distil`` has it unless told otherwise."""


def parts(name, rows):
    """Train, valid and test; valid of CLUENER is a tenth of its train."""
    if name == "thucnews":
        return titles("train_part", rows), titles("dev", None if rows is None else max(1000, rows // 10)), titles("test")
    whole = cluener("train")
    valid = whole.take(range(0, len(whole), 10))
    train = whole.take([i for i in range(len(whole)) if i % 10])
    return train.take(range(min(rows or len(train), len(train)))), valid, cluener("dev")


class Bench:
    """Fits, judges and measures inside a studio of its own."""

    def __init__(self, studio, folder, train, valid, test):
        self.studio, self.folder, self.train, self.valid, self.test, self.count = studio, folder, train, valid, test, 0

    def made(self, what, family, hyper, train):
        """A fitted model and its row of the table."""
        begun = time.process_time()
        model = families.get(family)(hyper, task=train.task).fit(train, self.valid, Curve())
        fit_s = time.process_time() - begun
        self.count += 1
        bundle = self.folder / f"model-{self.count}"
        write_bundle(bundle, model, signer=self.studio.signer, card={"what": what}, lineage={})
        scores = [evaluate(predict_all(model, examples), examples, resamples=2).score for examples in (self.valid, self.test)]
        latency = measure(self.studio.host, bundle, self.valid)
        row = {"what": what, "valid": scores[0], "test": scores[1], "p50": latency.p50_ms, "p99": latency.p99_ms, "cpu_s": fit_s, "load": latency.load}
        print(
            f"  fitted {what}: valid {row['valid']:.4f} test {row['test']:.4f} p50 {row['p50']:.2f} p99 {row['p99']:.2f} ms, {fit_s:.0f} CPU-s, load {latency.load:.1f} a core",
            flush=True,
        )
        return model, row


def table(name, teacher, rows):
    print(f"{name} beside {teacher['what']}: {'':22} {'valid':>7} {'test':>7} {'share':>7} {'p50 ms':>8} {'p99 ms':>8} {'of p50':>8} {'CPU-s':>7}")
    for row in rows:
        print(
            f"  {row['what']:44} {row['valid']:7.4f} {row['test']:7.4f} {row['test'] / max(teacher['test'], 1e-9):7.3f} {row['p50']:8.2f} {row['p99']:8.2f} {row['p50'] / teacher['p50']:8.3f} {row['cpu_s']:7.0f}"
        )


def one(name, rows=None, epochs=None):
    """The table of one set."""
    train, valid, test = parts(name, rows)
    Transformer, Light = families.get("transformer"), families.get(LIGHT[name])
    shape = shape_of(train)
    guesses = list(Transformer.candidates(shape))
    wide = max(guesses, key=lambda g: g.hidden * g.layers)
    if epochs is not None:
        guesses, wide = [g.model_copy(update={"epochs": epochs}) for g in guesses], wide.model_copy(update={"epochs": epochs})
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        studio, lock = open_in_place(Home(Path(folder) / "home"), Settings())
        try:
            bench = Bench(studio, Path(folder), train, valid, test)
            teachers = [bench.made(f"teacher {h.layers} x {h.hidden}", "transformer", h, train) for h in (guesses[0], wide)]
            model, best = max(teachers, key=lambda made: made[1]["valid"])
            told = taught(train, model, share=SHARE)
            found = [row for _, row in teachers]
            small, light = guesses[0].model_copy(update=SMALLER), next(iter(Light.candidates(shape)))
            for what, family, hyper in (("2 x 128", "transformer", small), (LIGHT[name], LIGHT[name], light)):
                found.append(bench.made(f"student {what}, taught", family, hyper, told)[1])
                found.append(bench.made(f"student {what}, labels alone", family, hyper, train)[1])
        finally:
            studio.tables.close()
            lock.release()
    print(
        f"{len(train)} to learn from ({len(told)} as taught), {len(valid)} valid, {len(test)} test; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {best['what']} is better on valid and taught"
    )
    for _, teacher in teachers:
        table(name, teacher, found)


def main(asked=tuple(LIGHT)):
    """``name``, ``name=rows`` or ``name=rows:epochs``."""
    for word in asked:
        name, _, rest = word.partition("=")
        rows, _, epochs = rest.partition(":")
        one(name, int(rows) if rows else None, float(epochs) if epochs else None)


if __name__ == "__main__":
    main(sys.argv[1:] or tuple(LIGHT))
