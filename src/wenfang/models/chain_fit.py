"""How a linear chain learns: stochastic passes, then quasi-Newton iterations, both until they are done or the time is over.

Imports the compiled loops, so only training comes here. Knows nothing of texts or labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import chain
from .base import Curve
from .contexts import Windows
from .quasi_newton import minimise

__all__ = ["Chain"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[Any]
Score = Callable[[], float | None]

_SLICE = 2000
"""Sentences between two looks at the clock."""
_LARGE = 8_000_000
"""Weights from which on the Hessian's estimate remembers less: a pair of vectors costs eight bytes for each weight."""


class _TimeOver(Exception):
    """The deadline passed in the middle of an iteration."""


class Chain:
    """A chain of L tags over F rows while it learns.

    Args:
        windows: rows that speak at each of N places.
        tags: right tag of each place, shape (N,).
        rows: F.
        legal: which tag may follow which, shape (L, L).
        first: 1 where a tag may stand first, shape (L,).
        last: 1 where a tag may stand last, shape (L,).
    """

    def __init__(self, windows: Windows, tags: npt.NDArray[np.int32], *, rows: int, legal: npt.NDArray[np.bool_], first: F64, last: F64) -> None:
        self.windows, self.tags, self.legal, self.first, self.last = windows, tags, legal, first, last
        self.weights: F32 = np.zeros((rows, len(first)), np.float32)
        self.transitions: F32 = np.zeros((len(first), len(first)), np.float32)

    def stochastic(self, passes: int, *, rate: float, c1: float, c2: float, seed: int, curve: Curve, score: Score) -> None:
        """AdaGrad, one step a sentence, ``passes`` times over all sentences in shuffled order."""
        rng = np.random.default_rng(seed)
        n = len(self.windows.starts) - 1
        share = (1.0 / np.maximum(1, np.bincount(self.windows.rows.ravel(), minlength=len(self.weights)))).astype(np.float32)
        squares, transition_squares = np.full_like(self.weights, 1e-2), np.full_like(self.transitions, 1e-2)
        for done in range(passes):
            order, loss = rng.permutation(n), 0.0
            for at in range(0, n, _SLICE):
                loss += chain.adagrad(
                    self.windows.rows, self.windows.starts, self.tags, order[at : at + _SLICE], self.weights, self.transitions, self.legal, self.first, self.last,
                    squares, transition_squares, share, rate, c1, c2,
                )  # fmt: skip
                if curve.late():
                    return
            curve.point(done + 1, loss=float(loss) / n, valid_score=score())

    def quasi_newton(self, iterations: int, *, c1: float, c2: float, curve: Curve, score: Score, done: int) -> None:
        """L-BFGS (OWL-QN if ``c1``) on the penalised likelihood of all sentences."""
        n, shape = len(self.windows.starts) - 1, self.weights.shape

        def put(x: F32) -> None:
            self.weights, self.transitions = x[: self.weights.size].reshape(shape), x[self.weights.size :].reshape(self.transitions.shape)

        def watch(iteration: int, loss: float, x: F32) -> bool:
            put(x)
            curve.point(done + iteration, loss=loss / n, valid_score=score() if iteration % 5 == 0 else None)
            return curve.late()

        start = np.concatenate([self.weights.ravel(), self.transitions.ravel()])
        memory = 5 if start.size < _LARGE else 3
        try:
            put(minimise(lambda x: self.objective(x, c2=c2, late=curve.late), start, c1=c1, iterations=iterations, memory=memory, watch=watch).x)
        except _TimeOver:  # the weights are those of the last whole iteration
            return

    def objective(self, x: Floats, *, c2: float, late: Callable[[], bool] = bool) -> tuple[float, Floats]:
        """Negative log-likelihood plus ``c2 |x|²`` at ``x`` (weights, then transitions), and its gradient; ``late`` is asked now and then."""
        L, cut, n = len(self.first), self.weights.size, len(self.windows.starts) - 1
        weights, transitions = x[:cut].reshape(-1, L), x[cut:].reshape(L, L)
        gradient, pairs, loss = np.zeros_like(x), np.zeros((L, L)), 0.0
        rows = gradient[:cut].reshape(-1, L)
        for at in range(0, n, _SLICE):
            starts = self.windows.starts[at : at + _SLICE + 1]
            loss += float(chain.objective(self.windows.rows, starts, self.tags, weights, transitions, self.legal, self.first, self.last, rows, pairs))
            if late():
                raise _TimeOver
        gradient[cut:] = pairs.ravel()
        gradient += x.dtype.type(2.0 * c2) * x
        return loss + c2 * float(x @ x), gradient
