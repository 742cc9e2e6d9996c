"""Prototypes learn to tell their label from its strongest rival: a passive-aggressive pass over sparse weights, compiled.

Training only. Source: Crammer et al., Online Passive-Aggressive Algorithms, 2006, variant I.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bags import Bags
from .gold import Gold
from .heads import Prototypes
from .jit import jit

__all__ = ["sharpen"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@jit
def _find(labels: I32, start: int, end: int, wanted: int) -> int:  # pragma: no cover compiled
    """Where ``wanted`` stands among ascending labels, -1 if it does not."""
    low, high = start, end
    while low < high:
        middle = (low + high) // 2
        if labels[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < end and labels[low] == wanted else -1


@jit
def _pass(
    bag_starts: I64, rows: I32, values: F32, targets: I64, counts: F32, order: I64, starts: I64, labels: I32, weights: F32, L: int, c: float
) -> float:  # pragma: no cover compiled
    scores = np.zeros(L, np.float32)
    loss = 0.0
    for q in range(len(order)):
        i = int(order[q])
        a, b, right = int(bag_starts[i]), int(bag_starts[i + 1]), int(targets[i])
        scores[:] = 0.0
        for k in range(a, b):
            value = values[k]
            for p in range(starts[rows[k]], starts[rows[k] + 1]):
                scores[labels[p]] += value * weights[p]
        rival, best = -1, np.float32(-np.inf)
        for j in range(L):
            if j != right and scores[j] > best:
                rival, best = j, scores[j]
        short = np.float32(0.5) - (scores[right] - best)
        if short <= 0:
            continue
        loss += short
        step = min(c * float(counts[i]), float(short) * 0.5)
        for k in range(a, b):
            start, end = int(starts[rows[k]]), int(starts[rows[k] + 1])
            up, down = _find(labels, start, end, right), _find(labels, start, end, rival)
            if up >= 0:
                weights[up] += step * values[k]
            if down >= 0:
                weights[down] -= step * values[k]
    return loss


def sharpen(prototypes: Prototypes, bags: Bags, gold: Gold, order: I64, *, c: float) -> float:
    """Visit the bags (of length one) in ``order`` once and move the weights in place; returns the mean loss."""
    b, p = bags, prototypes
    return float(_pass(b.starts, b.rows, b.values, gold.labels, gold.weights, order, p.starts, p.labels, p.values, gold.L, c)) / max(1, len(order))
