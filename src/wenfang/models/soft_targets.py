"""Regression onto distributions: a softmax over dense figures and sparse features whose targets may be shares, so that classes and grades are one.

Training only: needs scipy. Walks from strong regularisation to weak and keeps the strength that held-out examples like best, which
also makes the probabilities honest. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Unsupported

from .bags import Bags
from .quasi_newton import minimise

__all__ = ["STRENGTHS", "Design", "Regression", "learn"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Watch = Callable[[float, float], bool]
"""Told the strength and the held-out loss (or the training loss); true stops."""

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHARPNESSES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5)
"""The evidence of features that were learned from is too loud for fresh examples; the prior in the bias is not."""
ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Design:
    """n examples.

    Args:
        dense: shape (n, D).
        sparse: n bags over V features.
        V: how many features there are.
        targets: distribution over L for each, shape (n, L).
        weights: of each, shape (n,).
    """

    dense: F64
    sparse: Bags
    V: int
    targets: F64
    weights: F64


@dataclass(frozen=True, slots=True)
class Regression:
    """What was learned.

    Args:
        dense: shape (D, L).
        sparse: shape (V, L).
        bias: shape (L,).
        c: the strength that was kept.
        sharpness: what the evidence (all but the bias) was multiplied by afterwards, already contained in the weights.
        loss: mean cross entropy of the held-out examples, of the training ones where none were held out.
    """

    dense: F64
    sparse: F64
    bias: F64
    c: float
    sharpness: float
    loss: float


def _matrix(design: Design) -> Any:
    try:
        from scipy import sparse
    except ModuleNotFoundError as e:
        raise Unsupported("model.needs-package", package=e.name or "scipy") from e
    s = design.sparse
    wide = cast("Any", sparse).csr_matrix((s.values, s.rows, s.starts), shape=(len(s), design.V))
    n = len(s)
    return cast("Any", sparse).hstack([cast("Any", sparse).csr_matrix(design.dense.astype(np.float32)), wide, np.ones((n, 1), np.float32)]).tocsr()


def _log_shares(z: F64) -> F64:
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def learn(train: Design, held: Design | None, *, c: float | None, sharpness: float | None, watch: Watch) -> Regression:
    """Fit along the path of strengths, or at one.

    Args:
        train: to learn from.
        held: to choose the strength by; None with ``c`` None takes the middle one.
        c: the strength, if it is already known: loss against squared weights.
        sharpness: of the evidence, if it is already known.
        watch: told each step of the path.

    Raises:
        Unsupported: `model.needs-package` without scipy.

    Cost: about 60 passes over the features for each strength.
    """
    X, L = _matrix(train), train.targets.shape[1]
    turned = X.T.tocsr()
    apart = None if held is None else _matrix(held)
    width = X.shape[1]
    prior: F64 = (train.weights[:, None] * train.targets).sum(axis=0) / train.weights.sum()
    at: F64 = np.zeros((width, L))
    at[-1] = np.log(np.maximum(prior, 1e-9))
    at[-1] -= at[-1].mean()
    best = Regression(at[:-1], at[:-1], at[-1], 0.0, 1.0, np.inf)
    for strength in [c] if c is not None else STRENGTHS if held is not None else [STRENGTHS[3]]:
        found = minimise(_loss(X, turned, train, strength), at.ravel(), iterations=ITERATIONS)
        at = found.x.reshape(width, L)
        sharp, loss = sharpness or 1.0, float(found.loss) / float(train.weights.sum() * strength)
        if held is not None and apart is not None:
            sharp, loss = _judge(np.asarray(apart[:, :-1] @ at[:-1]), at[-1], held, [sharpness] if sharpness else SHARPNESSES)
        late = watch(strength, loss)
        if held is None or loss < best.loss:
            D = train.dense.shape[1]
            best = Regression(sharp * at[:D], sharp * at[D:-1], at[-1], strength, sharp, loss)
        elif loss > 1.02 * best.loss:
            break
        if late:
            break
    return best


def _judge(evidence: F64, bias: F64, held: Design, choices: Sequence[float]) -> tuple[float, float]:
    """The best sharpness and the cross entropy it leaves."""
    short, total = held.weights[:, None] * held.targets, held.weights.sum()
    losses = [-float((short * _log_shares(s * evidence + bias)).sum() / total) for s in choices]
    at = int(np.argmin(losses))
    return choices[at], losses[at]


def _loss(X: Any, turned: Any, train: Design, c: float) -> Callable[[npt.NDArray[Any]], tuple[float, npt.NDArray[Any]]]:
    """``c`` times cross entropy plus half the squared weights; the bias is free."""

    def loss(flat: npt.NDArray[Any]) -> tuple[float, npt.NDArray[Any]]:
        w: F64 = flat.reshape(X.shape[1], -1)
        logs = _log_shares(X @ w)
        short: F64 = train.weights[:, None] * train.targets
        residual = np.exp(logs) * short.sum(axis=1, keepdims=True) - short
        gradient: F64 = c * np.asarray(turned @ residual)
        gradient[:-1] += w[:-1]
        return -c * float((short * logs).sum()) + 0.5 * float((w[:-1] ** 2).sum()), gradient.ravel()

    return loss
