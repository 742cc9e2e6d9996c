"""From scores to honest probabilities: one temperature, fitted on examples the model has not learned from.

Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["fit_sharpness", "softmax"]

FloatArray = npt.NDArray[np.floating]


def softmax(scores: FloatArray, sharpness: float) -> npt.NDArray[np.float64]:
    """Probabilities of ``sharpness * scores``, row by row, shape (B, L)."""
    z = scores.astype(np.float64) * sharpness
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    p /= np.add.reduce(p, axis=1, keepdims=True)
    return p


def fit_sharpness(scores: FloatArray, targets: npt.NDArray[np.int64], *, default: float) -> float:
    """The inverse temperature that makes ``targets`` most likely, by golden section on its logarithm.

    Args:
        scores: shape (n, L).
        targets: label of each row, shape (n,).
        default: the answer when there are fewer than 20 rows.
    """
    if len(targets) < 20:
        return default

    def loss(log_sharpness: float) -> float:
        p = softmax(scores, float(np.exp(log_sharpness)))
        return -float(np.mean(np.log(np.maximum(np.take_along_axis(p, targets[:, None], axis=1), 1e-12))))

    low, high, golden = np.log(default) - 4.0, np.log(default) + 4.0, (5**0.5 - 1) / 2
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
    return round(float(np.exp((low + high) / 2)), 6)
