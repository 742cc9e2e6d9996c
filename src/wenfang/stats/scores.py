"""Scores as functions of counts: one row of whole numbers for each example is enough to compute a metric on any resample.

Knows nothing of texts, labels or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMNS", "Counts", "Floats", "Ints", "Metric", "collapse", "score", "scores"]

Metric = Literal["accuracy", "macro_f1", "span_f1"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

COLUMNS: dict[str, tuple[str, ...]] = {"accuracy": ("correct",), "macro_f1": ("gold", "predicted"), "span_f1": ("hit", "predicted", "gold")}
"""What the columns of the counts mean: 0/1; class numbers (-1: no answer); spans found exactly, spans predicted, spans in the gold."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The sufficient counts of one evaluation.

    Args:
        metric: which score they are for.
        rows: (n, columns of the metric), whole numbers.
    """

    metric: Metric
    rows: Ints

    def __post_init__(self) -> None:
        assert self.rows.shape == (len(self.rows), len(COLUMNS[self.metric])), (self.metric, self.rows.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, keep: npt.NDArray[np.bool_] | Ints) -> Counts:
        """The counts of some of the examples."""
        return Counts(self.metric, self.rows[keep])


def collapse(rows: Ints) -> tuple[Ints, Ints]:
    """The distinct rows (K, columns) and how often each stands there (K), the most frequent first.

    Resampling n examples is the same as drawing a multinomial over the distinct rows; that is what makes it cheap.
    """
    key = np.zeros(len(rows), np.int64)
    for column in rows.T:
        values, inverse = np.unique(column, return_inverse=True)
        _, key = np.unique(key * len(values) + inverse, return_inverse=True)
    _, first, times = np.unique(key, return_index=True, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return rows[first[order]], times[order].astype(np.int64)


def scores(metric: Metric, rows: Ints, weights: Floats) -> Floats:
    """The metric of each of R resamples.

    Args:
        metric: its name.
        rows: (K, columns) distinct rows.
        weights: (R, K) how often each row was drawn.

    Returns:
        (R,) scores in 0..1.
    """
    if metric == "accuracy":
        return (weights @ rows[:, 0].astype(np.float64)) / np.maximum(weights.sum(axis=1), 1)
    if metric == "span_f1":
        hit, predicted, gold = (weights @ rows.astype(np.float64)).T
        return np.where(predicted + gold > 0, 2 * hit / np.maximum(predicted + gold, 1), 1.0)  # nothing to find and nothing found is perfect
    hits, predicted, gold = (_by_class(weights, classes) for classes in (np.where(rows[:, 0] == rows[:, 1], rows[:, 0], -1), rows[:, 1], rows[:, 0]))
    present = [s for s in (hits, predicted, gold) if s[1].size]
    n_classes = 1 + max((int(s[0][-1]) for s in present), default=-1)
    f1_sum, seen = np.zeros(len(weights)), np.zeros(len(weights))
    step = max(1, (1 << 20) // max(1, len(weights)))
    for start in range(0, n_classes, step):
        h, p, g = (_slice(s, start, min(start + step, n_classes), len(weights)) for s in (hits, predicted, gold))
        f1_sum += (2 * h / np.maximum(p + g, 1)).sum(axis=1)
        seen += (p + g > 0).sum(axis=1)
    return f1_sum / np.maximum(seen, 1)


Sums = tuple[Ints, Floats]
"""Class numbers (C), ascending, and (R, C) weight of each."""


def _by_class(weights: Floats, classes: Ints) -> Sums:
    order = np.argsort(classes, kind="stable")
    order = order[classes[order] >= 0]
    if not len(order):
        return np.zeros(0, np.int64), np.zeros((len(weights), 0))
    names, starts = np.unique(classes[order], return_index=True)
    return names, np.add.reduceat(weights[:, order], starts, axis=1)


def _slice(sums: Sums, start: int, end: int, n: int) -> Floats:
    names, values = sums
    dense = np.zeros((n, end - start))
    low, high = np.searchsorted(names, [start, end])
    dense[:, names[low:high] - start] = values[:, low:high]
    return dense


def score(counts: Counts) -> float:
    """The metric of all examples.

    >>> score(Counts("span_f1", np.array([[1, 2, 1], [0, 0, 1]])))
    0.5
    """
    rows, times = collapse(counts.rows)
    return float(scores(counts.metric, rows, times[None, :].astype(np.float64))[0])
