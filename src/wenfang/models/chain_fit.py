"""How a linear chain learns: stochastic passes, quasi-Newton iterations or perceptron passes, until they are done or the time is over.

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
from .tags import Layout

__all__ = ["Chain"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[Any]
Score = Callable[[F32, F32], float | None]

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
        tags: right tag of each place, as its place in ``layout``, shape (N,).
        rows: F.
        layout: of the tags.
        worth: how much each of n sentences counts, shape (n,); None: all 1.
    """

    def __init__(self, windows: Windows, tags: npt.NDArray[np.int32], *, rows: int, layout: Layout, worth: F64 | None = None) -> None:
        self.windows, self.tags, self.layout = windows, tags, layout
        self.worth = np.ones(len(windows.starts) - 1) if worth is None else worth
        self.weights: F32 = np.zeros((rows, len(layout.tags)), np.float32)
        self.transitions: F32 = np.zeros((len(layout.tags), len(layout.tags)), np.float32)

    def stochastic(self, passes: int, *, runs: int = 1, rate: float, c1: float, c2: float, dropout: float, seed: int, curve: Curve, score: Score) -> None:
        """AdaGrad, one step a sentence, ``passes`` times over all sentences in shuffled order; the weights of the later half are averaged.

        With ``dropout`` each place hears only some of its rows while it learns, so that no few of them carry everything. Several ``runs``
        begin anew in other orders; the average goes over all of them.
        Source: Duchi, Hazan & Singer, 2011; Wang, Wang, Wager, Liang & Manning, Feature Noising for Log-linear Structured Prediction, 2013.
        """
        rng, w = np.random.default_rng(seed), self.windows
        n, lay, silent = len(w.starts) - 1, self.layout, np.float32(1 - dropout)
        share = (1.0 / np.maximum(1, np.bincount(w.rows.ravel(), minlength=len(self.weights)))).astype(np.float32)
        averaged = 0
        for run in range(runs):
            squares, transition_squares = np.full_like(self.weights, 1e-2), np.full_like(self.transitions, 1e-2)
            weights, transitions = np.zeros_like(self.weights), np.zeros_like(self.transitions)
            for done in range(passes):
                order, loss = rng.permutation(n), 0.0
                for at in range(0, n, _SLICE):
                    loss += chain.adagrad(
                        w.rows, w.starts, self.tags, order[at : at + _SLICE], self.worth, weights, transitions, lay.legal, lay.edges, lay.before,
                        squares, transition_squares, share, rate, c1, c2, dropout, int(rng.integers(1, 1 << 62)),
                    )  # fmt: skip
                    if curve.late():
                        if run == done == 0:
                            self.weights, self.transitions = weights * silent, transitions
                        return
                settled = done >= passes // 2
                averaged += settled
                if settled or run == 0:
                    newest = np.float32(1.0 / max(1, averaged))  # its share of the average
                    self.weights += (weights * silent - self.weights) * newest
                    self.transitions += (transitions - self.transitions) * newest
                curve.point(run * passes + done + 1, loss=float(loss) / n, valid_score=score(self.weights, self.transitions) if settled or run == 0 else None)

    def perceptron(self, passes: int, *, seed: int, curve: Curve, score: Score) -> None:
        """Averaged perceptron: only wrong paths teach."""
        rng, w = np.random.default_rng(seed), self.windows
        n, lay, moment = len(w.starts) - 1, self.layout, 1
        weights, transitions = self.weights.copy(), np.where(lay.legal, self.transitions, 0).astype(np.float32)
        totals, transition_totals = np.zeros_like(weights), np.zeros_like(transitions)
        for done in range(passes):
            order, wrong = rng.permutation(n), 0.0
            for at in range(0, n, _SLICE):
                part = order[at : at + _SLICE]
                wrong += chain.perceptron(w.rows, w.starts, self.tags, part, self.worth, weights, transitions, lay.edges, lay.before, totals, transition_totals, moment)
                moment += len(part)
                if curve.late():
                    break
            np.subtract(weights, totals * np.float32(1.0 / moment), out=self.weights)
            np.subtract(transitions, transition_totals * np.float32(1.0 / moment), out=self.transitions)
            if curve.late():
                return
            curve.point(done + 1, loss=wrong / n, valid_score=score(self.weights, self.transitions))

    def quasi_newton(self, iterations: int, *, c1: float, c2: float, curve: Curve, score: Score, done: int) -> None:
        """L-BFGS (OWL-QN if ``c1``) on the penalised likelihood of all sentences."""
        n, shape = len(self.windows.starts) - 1, self.weights.shape

        def put(x: F32) -> None:
            self.weights, self.transitions = x[: self.weights.size].reshape(shape), x[self.weights.size :].reshape(self.transitions.shape)

        def watch(iteration: int, loss: float, x: F32) -> bool:
            put(x)
            curve.point(done + iteration, loss=loss / n, valid_score=score(self.weights, self.transitions) if iteration % 5 == 0 else None)
            return curve.late()

        start = np.concatenate([self.weights.ravel(), self.transitions.ravel()])
        memory = 5 if start.size < _LARGE else 3
        try:
            put(minimise(lambda x: self.objective(x, c2=c2, late=curve.late), start, c1=c1, iterations=iterations, memory=memory, watch=watch).x)
        except _TimeOver:  # the weights are those of the last whole iteration
            return

    def objective(self, x: Floats, *, c2: float, late: Callable[[], bool] = bool) -> tuple[float, Floats]:
        """Negative log-likelihood plus ``c2 |x|²`` at ``x`` (weights, then transitions), and its gradient; ``late`` is asked now and then."""
        w, lay, cut, n = self.windows, self.layout, self.weights.size, len(self.windows.starts) - 1
        L = len(lay.tags)
        weights, transitions = x[:cut].reshape(-1, L), x[cut:].reshape(L, L)
        gradient, pairs, loss = np.zeros_like(x), np.zeros((L, L)), 0.0
        rows, order = gradient[:cut].reshape(-1, L), np.arange(n)
        for at in range(0, n, _SLICE):
            loss += float(chain.objective(w.rows, w.starts, self.tags, order[at : at + _SLICE], self.worth, weights, transitions, lay.legal, lay.edges, lay.before, rows, pairs))
            if late():
                raise _TimeOver
        gradient[cut:] = pairs.ravel()
        gradient += x.dtype.type(2.0 * c2) * x
        return loss + c2 * float(x @ x), gradient
