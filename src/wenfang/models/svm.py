"""Support vector machines, one against the rest for all labels in one pass: dual coordinate descent on the squared hinge.

Compiled by numba, so only training imports it. The weights of one gram stand side by side for all labels; one visit of an example
updates every label's machine, which costs one walk through memory instead of one for each label.
Source: Hsieh et al., A Dual Coordinate Descent Method for Large-scale Linear SVM, 2008, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bags import Bags
from .gold import Gold
from .jit import jit

__all__ = ["Machines"]

F32 = npt.NDArray[np.float32]


@jit
def _epoch(  # pragma: no cover compiled
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: F32,
    gold_starts: npt.NDArray[np.int64],
    gold_labels: npt.NDArray[np.int64],
    counts: F32,
    order: npt.NDArray[np.int64],
    weights: F32,
    bias: F32,
    duals: F32,
    norms: F32,
    softness: F32,
) -> float:
    """One visit of every example in ``order``; returns the sum of squared hinges met on the way."""
    L = weights.shape[1]
    margin = np.empty(L, np.float32)
    own = np.zeros(L, np.bool_)
    loss = 0.0
    for i in order:
        for k in range(gold_starts[i], gold_starts[i + 1]):
            own[gold_labels[k]] = True
        start, end = starts[i], starts[i + 1]
        for c in range(L):
            margin[c] = bias[c]
        for k in range(start, end):
            value, row = values[k], rows[k]
            for c in range(L):
                margin[c] += value * weights[row, c]
        moved = False
        for c in range(L):
            sign = np.float32(1.0) if own[c] else np.float32(-1.0)
            slack = (softness[c] if own[c] else softness[L]) / counts[i]
            old = duals[i, c]
            short = np.float32(1.0) - sign * margin[c]
            if short > 0:
                loss += short * short
            new = max(old + (short - slack * old) / (norms[i] + slack), np.float32(0.0))
            change = new - old
            duals[i, c] = new
            margin[c] = change * sign
            moved = moved or abs(change) > 1e-7
        if moved:
            for c in range(L):
                bias[c] += margin[c]
            for k in range(start, end):
                value, row = values[k], rows[k]
                for c in range(L):
                    weights[row, c] += value * margin[c]
        for k in range(gold_starts[i], gold_starts[i + 1]):
            own[gold_labels[k]] = False
    return loss


@dataclass(slots=True)
class Machines:
    """L machines over V grams while they learn.

    Args:
        bags: n training bags; the values are the final ones (scaled, unit length).
        gold: labels of each bag (one, several or none) and how much it counts.
        c: weight of the loss against the margin.
        label_weights: factor of the loss of each label's own examples, shape (L,).
    """

    bags: Bags
    gold: Gold
    c: float
    label_weights: npt.NDArray[np.float64]
    weights: F32
    bias: F32
    duals: F32
    norms: F32

    @classmethod
    def new(cls, bags: Bags, gold: Gold, *, V: int, c: float, label_weights: npt.NDArray[np.float64]) -> Machines:
        """Machines that know nothing yet."""
        L, n = len(label_weights), len(bags)
        owner = np.repeat(np.arange(n), np.diff(bags.starts))
        norms = (np.bincount(owner, bags.values.astype(np.float64) ** 2, n) + 1.0).astype(np.float32)
        return cls(bags, gold, c, label_weights, np.zeros((V, L), np.float32), np.zeros(L, np.float32), np.zeros((n, L), np.float32), norms)

    def epoch(self, order: npt.NDArray[np.int64]) -> float:
        """Visit the examples in ``order`` once; returns their mean squared hinge (summed over labels)."""
        softness = np.append(0.5 / (self.c * self.label_weights), 0.5 / self.c).astype(np.float32)
        b, g = self.bags, self.gold
        return float(_epoch(b.starts, b.rows, b.values, g.starts, g.labels, g.weights, order, self.weights, self.bias, self.duals, self.norms, softness)) / max(1, len(order))
