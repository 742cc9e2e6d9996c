"""From scores to honest probabilities and decisions, fitted on examples the model has not learned from.

Classes share one temperature, and may move towards the shares they will have where the model works; labels that do not exclude each
other share a slope, an offset and the threshold that finds the best micro-F1.
Sources: Guo et al., On Calibration of Modern Neural Networks, 2017; Platt, Probabilistic Outputs for Support Vector Machines, 1999;
Menon et al., Long-tail Learning via Logit Adjustment, 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["best_threshold", "fit_sharpness", "fit_slope", "fit_tau", "sigmoid", "softmax"]

FloatArray = npt.NDArray[np.floating]
F64 = npt.NDArray[np.float64]

_LEAST_ROWS = 20
_TAUS = np.linspace(0.0, 1.5, 31)


def softmax(scores: FloatArray, sharpness: float, shift: F64 | None = None) -> F64:
    """Probabilities of ``sharpness * scores + shift``, row by row, shape (B, L)."""
    z = scores.astype(np.float64) * sharpness
    if shift is not None:
        z += shift
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    p /= np.add.reduce(p, axis=1, keepdims=True)
    return p


def sigmoid(scores: FloatArray, sharpness: float, offset: float) -> F64:
    """Probabilities of ``sharpness * scores + offset``, each for itself."""
    return 0.5 + 0.5 * np.tanh(0.5 * (scores.astype(np.float64) * sharpness + offset))


def _golden(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where ``loss`` is least in an interval, by golden section."""
    golden = (5**0.5 - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    while high - low > 1e-3:
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - golden * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + golden * (high - low)
            loss_b = loss(b)
    return (low + high) / 2


def fit_sharpness(scores: FloatArray, targets: npt.NDArray[np.int64], *, default: float) -> float:
    """The inverse temperature that makes ``targets`` most likely.

    Args:
        scores: shape (n, L).
        targets: label of each row, shape (n,).
        default: the answer when there are fewer than 20 rows.
    """
    if len(targets) < _LEAST_ROWS:
        return default

    def loss(log_sharpness: float) -> float:
        p = softmax(scores, float(np.exp(log_sharpness)))
        return -float(np.mean(np.log(np.maximum(np.take_along_axis(p, targets[:, None], axis=1), 1e-12))))

    return round(float(np.exp(_golden(loss, np.log(default) - 4.0, np.log(default) + 4.0))), 6)


def fit_tau(scores: FloatArray, sharpness: float, targets: npt.NDArray[np.int64], *, learned: F64, meant: F64) -> float:
    """How far to move from the shares of the training examples towards those meant, so that most is right under these.

    Args:
        scores: shape (n, L).
        sharpness: of the scores.
        targets: label of each row, shape (n,).
        learned: share of each label in training, shape (L,).
        meant: share of each label where the model will work, shape (L,).
    """
    if len(targets) < _LEAST_ROWS:
        return 1.0
    seen = np.bincount(targets, minlength=len(meant))
    importance = (meant / np.maximum(seen, 1))[targets]
    move = np.log(meant) - np.log(learned)
    won = [importance[(scores * sharpness + tau * move).argmax(axis=1) == targets].sum() for tau in _TAUS]
    best = np.flatnonzero(np.array(won) >= max(won) - 1e-12)
    return round(float(_TAUS[best[len(best) // 2]]), 6)


def fit_slope(scores: FloatArray, gold: npt.NDArray[np.bool_], *, default: float) -> tuple[float, float]:
    """Slope and offset that make ``gold`` most likely, label by label.

    Args:
        scores: shape (n, L).
        gold: which labels each row has, shape (n, L).
        default: the slope, with offset 0, when there are fewer than 20 rows.
    """
    if len(scores) < _LEAST_ROWS or not gold.any():
        return default, 0.0
    sign = np.where(gold, 1.0, -1.0)
    wide = scores.astype(np.float64)

    def loss(slope: float, offset: float) -> float:
        return float(np.logaddexp(0.0, -sign * (wide * slope + offset)).mean())

    def best_offset(slope: float) -> float:
        return _golden(lambda offset: loss(slope, offset), -8.0, 8.0)

    centre = np.log(default)
    slope = float(np.exp(_golden(lambda log_slope: loss(float(np.exp(log_slope)), best_offset(float(np.exp(log_slope)))), centre - 3.0, centre + 3.0)))
    return round(slope, 6), round(best_offset(slope), 6)


def best_threshold(probabilities: F64, gold: npt.NDArray[np.bool_]) -> float:
    """The probability above which labels are given so that micro-F1 is best; 0.5 when there is nothing to learn from.

    Args:
        probabilities: shape (n, L).
        gold: which labels each row has, shape (n, L).
    """
    if len(probabilities) < _LEAST_ROWS or not gold.any():
        return 0.5
    flat = probabilities.ravel()
    order = np.argsort(-flat, kind="stable")
    ranked = flat[order]
    f1 = 2 * np.cumsum(gold.ravel()[order]) / (np.arange(1, len(flat) + 1) + int(gold.sum()))
    f1[:-1][ranked[:-1] == ranked[1:]] = 0.0  # equal probabilities stay together
    k = int(f1.argmax())
    below = float(ranked[k + 1]) if k + 1 < len(ranked) else 0.0
    return round(float(np.clip((float(ranked[k]) + below) / 2, 0.05, 0.95)), 6)
