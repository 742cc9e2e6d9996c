"""Nearest rows by cosine, exactly. Needs numpy only; knows nothing of what the rows mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["top_rows"]


def top_rows(query: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The ``k`` rows most like ``query``, best first, equal ones in their order; and their cosines.

    Args:
        query: of length one, shape (H,).
        rows: n vectors of length one, shape (n, H).
        k: at most n.

    >>> top_rows(np.array([1.0, 0.0], np.float32), np.array([[0, 1], [1, 0]], np.float32), 1)[0].tolist()
    [1]

    Cost: about 0.2 ns for each number of ``rows``.
    """
    similar = rows @ query
    if k < len(similar):
        worst = np.partition(similar, len(similar) - k)[len(similar) - k]
        at = np.flatnonzero(similar >= worst)
    else:
        at = np.arange(len(similar))
    at = at[np.lexsort((at, -similar[at]))][:k]
    return at.astype(np.int64), similar[at].astype(np.float64)
