"""Can a confidence be trusted? Expected calibration error over equal bins, and the temperature that would mend it. Knows nothing of models.

The temperature is judged from the confidence of each answer alone, so that it is the same figure for every family, upstream models included.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Bin", "Temperature", "calibration", "fit_temperature", "softened"]

Shares = npt.NDArray[np.float64]
FEWEST = 50
"""Answers that a temperature is fitted on at least."""
EDGE = 1e-6
"""Confidences nearer to 0 or 1 count as this far away: one sure error must not decide alone."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose confidence lies in ``[low, high)``."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Temperature:
    """Fitted on valid, judged on test."""

    temperature: float
    """Above 1: the model is too sure of itself; below 1: too modest."""
    fitted_on: int
    ece: float
    """On test, as the model answers."""
    ece_after: float
    """On test, with the temperature applied."""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def calibration(confidence: Shares, correct: npt.NDArray[np.bool_], *, bins: int = 10) -> tuple[float, list[Bin]]:
    """Expected calibration error and its bins (empty ones left out).

    Args:
        confidence: (n,) probability the model gave its answer.
        correct: (n,) whether the answer was right.
        bins: of equal width.

    Source: Guo et al. 2017, section 2.
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    n = np.bincount(place, minlength=bins)
    sure, right = np.bincount(place, confidence, bins), np.bincount(place, correct.astype(np.float64), bins)
    rows = [Bin(i / bins, (i + 1) / bins, int(n[i]), float(sure[i] / n[i]), float(right[i] / n[i])) for i in range(bins) if n[i]]
    return float(np.abs(sure - right).sum() / max(1, len(confidence))), rows


def softened(confidence: Shares, temperature: float) -> Shares:
    """Confidences with their log-odds divided by ``temperature``.

    >>> softened(np.array([0.5, 0.9]), 2.0).round(3).tolist()
    [0.5, 0.75]
    """
    return 1 / (1 + np.exp(-_log_odds(confidence) / temperature))


def _log_odds(confidence: Shares) -> Shares:
    p = np.clip(confidence, EDGE, 1 - EDGE)
    return np.log(p / (1 - p))


def fit_temperature(confidence: Shares, correct: npt.NDArray[np.bool_]) -> float | None:
    """The temperature that makes right and wrong answers most likely; None with too few answers, or when all are right or all wrong.

    Args:
        confidence: (n,) of the answers on valid.
        correct: (n,) whether they were right.

    Source: Guo et al. 2017, section 4.2, on the confidence of the answer (two outcomes: right, wrong).
    """
    if len(confidence) < FEWEST or correct.all() or not correct.any():
        return None

    for_truth = np.where(correct, 1.0, -1.0) * _log_odds(confidence)

    def loss(temperature: float) -> float:
        return float(np.logaddexp(0, -for_truth / temperature).mean())

    grid = [0.05 * 400 ** (i / 60) for i in range(61)]  # 0.05 to 20
    best = min(range(len(grid)), key=lambda i: loss(grid[i]))
    low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    return min((low + (high - low) * i / 40 for i in range(41)), key=loss)
