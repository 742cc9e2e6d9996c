"""Train the transformer family on real sets and print dev score, speed and padding: ``python bench/transformer_train.py resume --seconds 180``.

Scores are dev scores; test files are not opened. Speed is real tokens (padding not counted) for each CPU-second of training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Quiet
from wenfang.models import Curve, families

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def titles(name: str, rows: int | None = None) -> Examples:
    """THUCNews titles."""
    lines = [line.rstrip("\n").split("\t") for line in open(DATA / "thucnews_titles" / f"{name}.txt", encoding="utf-8") if line.strip()]
    return Examples("classification", [t for t, _ in lines][:rows], [label for _, label in lines][:rows])


def resume(name: str) -> Examples:
    """Résumé entities from BMES characters."""
    texts: list[str] = []
    spans: list[tuple[Span, ...]] = []
    for block in (DATA / "resume_ner" / f"{name}.char.bmes").read_text(encoding="utf-8").strip().split("\n\n"):
        pairs = [line.split(" ") for line in block.split("\n")]
        found, start = [], 0
        for i, (_, tag) in enumerate(pairs):
            kind, _, label = tag.partition("-")
            if kind in {"B", "S"}:
                start = i
            if kind in {"E", "S"}:
                found.append(Span(start, i + 1, label))
        texts.append("".join(c for c, _ in pairs))
        spans.append(tuple(found))
    return Examples("tagging", texts, spans=spans)


class Told(Quiet):
    """Prints every epoch as it comes."""

    def advance(self, n: int = 1, **figures: object) -> None:
        print({k: round(v, 4) for k, v in figures.items() if isinstance(v, float)}, round(time.process_time(), 1), "CPU s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=["resume", "titles"])
    parser.add_argument("--rows", type=int, default=None, help="titles: this many training rows")
    parser.add_argument("--seconds", type=float, default=None, help="deadline of the fit")
    parser.add_argument("--hyper", type=json.loads, default={}, help="JSON over the first candidate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, valid = (resume("train"), resume("dev")) if options.set == "resume" else (titles("train_part", options.rows), titles("dev"))
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
    line = {"set": options.set, "rows": len(train), "hyper": options.hyper, "dev": best, "curve": [round(s.valid_score or 0, 4) for s in curve.steps], "cpu_s": round(cpu, 1)}
    line |= {"wall_s": round(wall, 1), **model.found_, "int8": model.int8_, "onnx_bytes": len(model.onnx_), "texts_per_cpu_s_single": round(len(texts) / single)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
