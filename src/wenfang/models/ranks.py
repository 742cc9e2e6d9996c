"""How well two orders agree, for early stopping and curves. Reports measure elsewhere, with intervals. Knows nothing of what is ordered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["rank_correlation"]

Floats = npt.NDArray[np.floating]


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's; 0 when either is constant.

    Args:
        one: shape (n,).
        other: shape (n,).

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def _ranks(values: Floats) -> npt.NDArray[np.float64]:
    """Ranks, equal values sharing their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2.0)[place].astype(np.float64)
