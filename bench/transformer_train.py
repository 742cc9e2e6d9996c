"""Train the transformer family on real sets and print dev score, speed and padding: ``python -m bench.transformer_train resume --seconds 180``.

Scores are dev scores; test files are not opened. Speed is real tokens (padding not counted) for each CPU-second of training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from wenfang.core.examples import Output, Span
from wenfang.core.ports import Quiet
from wenfang.models import Curve, families

from ._transformer_sets import cluener, resume, titles


class Told(Quiet):
    """Prints every epoch as it comes."""

    def advance(self, n: int = 1, **figures: object) -> None:
        print({k: round(v, 4) for k, v in figures.items() if isinstance(v, float)}, round(time.process_time(), 1), "CPU s", file=sys.stderr, flush=True)


def span_f1(outputs: list[Output], gold: list[tuple[Span, ...]]) -> float:
    """Micro F1 of exact spans."""
    right = sum(len(set(o.spans or ()) & set(g)) for o, g in zip(outputs, gold, strict=True))
    return 2 * right / max(1, sum(len(o.spans or ()) for o in outputs) + sum(map(len, gold)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=["resume", "cluener", "titles"])
    parser.add_argument("--rows", type=int, default=None, help="titles: this many training rows")
    parser.add_argument("--seconds", type=float, default=None, help="deadline of the fit")
    parser.add_argument("--hyper", type=json.loads, default={}, help="JSON over the first candidate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.set == "cluener":  # chosen on the end of train, for dev is what is reported
        whole = cluener("train")
        train, valid, report = whole.take(range(len(whole) - 1000)), whole.take(range(len(whole) - 1000, len(whole))), cluener("dev")
    else:
        train, valid = (resume("train"), resume("dev")) if options.set == "resume" else (titles("train_part", options.rows), titles("dev"))
        report = None
    family = families.get("transformer")
    curve = Curve(Told(), deadline=None if options.seconds is None else time.monotonic() + options.seconds)
    model = family(family.Hyper(**options.hyper), task=train.task, seed=options.seed)
    cpu, wall = time.process_time(), time.perf_counter()
    model.fit(train, valid, curve)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    best = max((s.valid_score for s in curve.steps if s.valid_score is not None), default=None)
    texts = valid.texts[:500]
    model.predict(texts[:8])
    start = time.process_time()
    for text in texts:
        model.predict([text])
    single = time.process_time() - start
    line = {"set": options.set, "rows": len(train), "hyper": options.hyper, "chosen_on": best, "curve": [round(s.valid_score or 0, 4) for s in curve.steps], "cpu_s": round(cpu, 1)}
    if report is not None:
        line["dev_of_the_set"] = round(span_f1(model.predict(report.texts), report.spans), 4)
    line |= {"wall_s": round(wall, 1), **model.found_, "width": model.width_, "onnx_bytes": len(model.onnx_), "texts_per_cpu_s_single": round(len(texts) / single)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
