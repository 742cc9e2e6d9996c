"""One classifier behind torch and ONNX in every width, batch 1 and 32, in one run: texts for each CPU-second, and what a narrower width costs in score.

4 layers, 256 hidden, trained for a few steps on THUCNews titles (so that the answers mean something), judged on dev titles.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wenfang.models import Curve, families
from wenfang.models.neural.batches import Batch, Stacker, pieces_of
from wenfang.models.neural.export import to_onnx, torch_run
from wenfang.models.neural.session import BUDGETS, Session
from wenfang.models.neural.widths import serve_in

from ._transformer_sets import titles

SIZES = {"layers": 4, "hidden": 256, "heads": 4, "ff": 1024, "ngram_buckets": 0, "max_length": 64}
ROUNDS = 3


def rate(run: Callable[[Batch], Any], batches: list[Batch], texts: int) -> float:
    """The best of some rounds, in texts for each CPU-second."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for batch in batches:
            run(batch)
        best = min(best, time.process_time() - start)
    return round(texts / best, 1)


def main() -> None:
    torch.set_num_threads(1)
    train, dev = titles("train_part", 6000), titles("dev", 2000)
    family = families.get("transformer")
    model = family(family.Hyper(**SIZES, epochs=2, threads=1, width="fp32", precision="fp32"), task="classification")
    seen: list[Any] = []
    original = to_onnx

    def keep(network: Any, example: Batch) -> bytes:
        seen.append(network)
        return original(network, example)

    from wenfang.models.neural import fitting

    fitting.to_onnx = keep  # the trained torch network, for the torch rows
    model.fit(train, None, Curve())
    fitting.to_onnx = original
    learned = model.tokens_.encode(train.texts[:64])
    shown = Stacker(learned, pieces_of(learned, 64), model.tokens_)
    calibration = [shown.stack(np.arange(i, i + 8)) for i in range(0, 64, 8)]
    models = {width: serve_in(width, model.onnx_, calibration, judge=None).onnx for width in BUDGETS}
    runs = {"torch fp32": torch_run(seen[0]), **{f"onnx {width}": Session(data) for width, data in models.items()}}
    encoded = model.tokens_.encode(dev.texts)
    stacker = Stacker(encoded, pieces_of(encoded, 64), model.tokens_)
    order = np.argsort(stacker.lengths, kind="stable")
    spread = order[:: len(order) // 320][:320]
    singles = [stacker.stack(spread[i : i + 1]) for i in range(len(spread))]
    grouped = [stacker.stack(spread[i : i + 32]) for i in range(0, len(spread), 32)]
    rows: dict[str, Any] = {}
    right: dict[str, np.ndarray[Any, Any]] = {}
    for name, run in runs.items():
        rows[name] = {"batch 1": rate(run, singles, len(spread)), "batch 32": rate(run, grouped, len(spread))}
        answers = np.concatenate([run(stacker.stack(np.array([i]))).argmax(axis=1) for i in range(len(encoded))])
        right[name] = np.array(model.labels_)[answers] == np.array(dev.labels)
        rows[name]["dev accuracy"] = round(float(right[name].mean()), 4)
    rng = np.random.default_rng(0)
    for width in models:
        apart = right[f"onnx {width}"].astype(float) - right["onnx fp32"]
        means = apart[rng.integers(0, len(apart), (2000, len(apart)))].mean(axis=1)
        rows[f"{width} minus fp32"] = {"mean": round(float(apart.mean()), 4), "interval 95 %": np.quantile(means, [0.025, 0.975]).round(4).tolist()}
    rows["tokens of a text"] = round(float(stacker.lengths[spread].mean()), 1)
    rows["bytes"] = {width: len(data) for width, data in models.items()}
    print(json.dumps(rows, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
