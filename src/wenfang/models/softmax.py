"""Softmax regression that learns on bags with most grams hidden: AdaGrad, one example at a time, each gram dropped at random.

It makes errors other than a support vector machine's, which is why the two are averaged. Compiled by numba: training only.
Source: Duchi et al., Adaptive Subgradient Methods, 2011; Wager et al., Dropout Training as Adaptive Regularization, 2013.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bags import Bags
from .gold import Gold
from .jit import jit

__all__ = ["DropoutSoftmax"]

F32 = npt.NDArray[np.float32]


@jit
def _epoch(  # pragma: no cover compiled
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: F32,
    targets: npt.NDArray[np.int64],
    counts: F32,
    order: npt.NDArray[np.int64],
    weights: F32,
    squares: F32,
    bias: F32,
    rate: np.float32,
    drop: np.float32,
    label_weights: F32,
    state: np.uint64,
) -> float:
    """One visit of every example in ``order``; returns the sum of losses met on the way."""
    L = weights.shape[1]
    p = np.empty(L, np.float32)
    longest = 0
    for i in order:
        longest = max(longest, starts[i + 1] - starts[i])
    kept = np.empty(longest, np.int64)
    scale = np.float32(1.0) / (np.float32(1.0) - drop)
    limit = np.uint64(drop * np.float32(1 << 24))
    total = 0.0
    for i in order:
        m = 0
        for k in range(starts[i], starts[i + 1]):
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            if (state >> np.uint64(40)) >= limit:
                kept[m] = k
                m += 1
        for c in range(L):
            p[c] = bias[c]
        for q in range(m):
            value, row = values[kept[q]] * scale, rows[kept[q]]
            for c in range(L):
                p[c] += value * weights[row, c]
        top = p[0]
        for c in range(1, L):
            top = max(top, p[c])
        mass = np.float32(0.0)
        for c in range(L):
            p[c] = math.exp(p[c] - top)
            mass += p[c]
        for c in range(L):
            p[c] /= mass
        total -= math.log(max(p[targets[i]], np.float32(1e-9)))
        p[targets[i]] -= np.float32(1.0)
        for c in range(L):
            p[c] *= label_weights[targets[i]] * counts[i]
            bias[c] -= np.float32(0.01) * rate * p[c]
        for q in range(m):
            value, row = values[kept[q]] * scale, rows[kept[q]]
            for c in range(L):
                g = value * p[c]
                squares[row, c] += g * g
                weights[row, c] -= rate * g / math.sqrt(squares[row, c])
    return total


@dataclass(slots=True)
class DropoutSoftmax:
    """Softmax regression over V grams while it learns.

    Args:
        bags: n training bags of unit length.
        gold: the one label of each bag, and how much it counts.
        drop: share of grams hidden at each visit.
        label_weights: factor of the loss of each label's own examples, shape (L,).
    """

    bags: Bags
    gold: Gold
    drop: float
    label_weights: F32
    weights: F32
    squares: F32
    bias: F32

    @classmethod
    def new(cls, bags: Bags, gold: Gold, *, V: int, drop: float, label_weights: npt.NDArray[np.float64]) -> DropoutSoftmax:
        """A model that knows nothing yet."""
        L = len(label_weights)
        return cls(bags, gold, drop, label_weights.astype(np.float32), np.zeros((V, L), np.float32), np.full((V, L), 1e-3, np.float32), np.zeros(L, np.float32))

    def epoch(self, order: npt.NDArray[np.int64], *, rate: float, seed: int) -> float:
        """Visit the examples in ``order`` once with step ``rate``; returns their mean loss."""
        b = self.bags
        state = np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(seed + 1)
        loss = _epoch(
            b.starts,
            b.rows,
            b.values,
            self.gold.labels,
            self.gold.weights,
            order,
            self.weights,
            self.squares,
            self.bias,
            np.float32(rate),
            np.float32(self.drop),
            self.label_weights,
            state,
        )
        return float(loss) / max(1, len(order))
