"""L-BFGS, and OWL-QN when there is an L1 penalty: minimise a smooth function plus ``c1 * |x|``.

Knows nothing of what is minimised. Source: Nocedal & Wright, Numerical Optimization, 2006, algorithm 7.4; Andrew & Gao, Scalable
Training of L1-Regularized Log-Linear Models, 2007.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Minimum", "minimise"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the search ended."""

    x: Floats
    loss: float
    iterations: int
    converged: bool


def _pseudo_gradient(x: Floats, g: Floats, c1: float) -> Floats:
    """The steepest one-sided slope of ``f + c1 |x|``."""
    if not c1:
        return g
    right, left = g + g.dtype.type(c1), g - g.dtype.type(c1)
    at_zero = np.where(right < 0, right, np.where(left > 0, left, 0))
    return np.where(x > 0, right, np.where(x < 0, left, at_zero)).astype(g.dtype)


def _direction(slope: Floats, steps: list[Floats], changes: list[Floats]) -> Floats:
    """Minus the inverse Hessian's estimate times ``slope`` (two loops)."""
    d = -slope
    factors: list[float] = []
    for s, y in zip(reversed(steps), reversed(changes), strict=True):
        a = float(s @ d) / float(s @ y)
        factors.append(a)
        d -= slope.dtype.type(a) * y
    if steps:
        d *= slope.dtype.type(float(steps[-1] @ changes[-1]) / float(changes[-1] @ changes[-1]))
    for s, y, a in zip(steps, changes, reversed(factors), strict=True):
        d += slope.dtype.type(a - float(y @ d) / float(s @ y)) * s
    return d


def minimise(
    function: Callable[[Floats], tuple[float, Floats]],
    x: Floats,
    *,
    c1: float = 0.0,
    iterations: int = 100,
    memory: int = 5,
    watch: Callable[[int, float, Floats], bool] | None = None,
) -> Minimum:
    """Walk downhill from ``x``.

    Args:
        function: loss and gradient of the smooth part at a point.
        x: where to start, shape (n,).
        c1: weight of the L1 norm.
        iterations: at most so many.
        memory: pairs kept for the Hessian's estimate; each costs two vectors.
        watch: told the iteration, loss and point after each step; true stops.

    Cost: one to two calls of ``function`` an iteration, ``4 * memory`` passes over n numbers.
    """

    def total(loss: float, at: Floats) -> float:
        return loss + (c1 * float(np.abs(at).sum(dtype=np.float64)) if c1 else 0.0)

    smooth, g = function(x)
    loss = total(smooth, x)
    steps: list[Floats] = []
    changes: list[Floats] = []
    for iteration in range(1, iterations + 1):
        slope = _pseudo_gradient(x, g, c1)
        d = _direction(slope, steps, changes)
        if c1:
            d = np.where(d * slope < 0, d, 0).astype(x.dtype)
        downhill = float(slope @ d)
        if downhill >= 0:
            return Minimum(x, loss, iteration - 1, converged=True)
        pace = 1.0 if steps else 1.0 / max(1.0, float(np.sqrt(slope @ slope)))
        orthant = np.where(x != 0, np.sign(x), -np.sign(slope)) if c1 else None
        for _ in range(20):
            there = x + x.dtype.type(pace) * d
            if orthant is not None:
                there = np.where(there * orthant > 0, there, 0).astype(x.dtype)
            smooth, g_there = function(there)
            loss_there = total(smooth, there)
            if loss_there <= loss + 1e-4 * float(slope @ (there - x)):
                break
            pace *= 0.5
        else:
            return Minimum(x, loss, iteration - 1, converged=True)
        s, y = there - x, g_there - g
        if float(s @ y) > 1e-10 * float(y @ y):
            steps.append(s)
            changes.append(y)
            if len(steps) > memory:
                del steps[0], changes[0]
        flat = (loss - loss_there) < 1e-6 * max(1.0, abs(loss_there))
        x, g, loss = there, g_there, loss_there
        if watch is not None and watch(iteration, loss, x):
            return Minimum(x, loss, iteration, converged=False)
        if flat:
            return Minimum(x, loss, iteration, converged=True)
    return Minimum(x, loss, iterations, converged=False)
