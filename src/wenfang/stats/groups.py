"""Does a part of the examples score differently from the rest? A permutation test of membership, for every metric that has counts.

Knows nothing of texts, labels or models.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .bootstrap import CHUNK_CELLS, interval
from .paired import Difference
from .scores import Counts, Floats, Ints, collapse, scores

__all__ = ["against_the_rest"]

FEW_ROWS = 1000
"""Up to so many distinct rows their numbers are drawn; beyond, examples are."""


def against_the_rest(counts: Counts, inside: npt.NDArray[np.bool_], *, resamples: int = 2000, seed: int = 0) -> Difference:
    """Score of a part minus score of the rest.

    Args:
        counts: n rows.
        inside: (n,) who belongs to the part; neither nobody nor everybody.
        resamples: permutations; the smallest p is about one over them.
        seed: of the permutations.

    Returns:
        The difference with a two-sided permutation p; low and high come from the two bootstrap intervals, taken as independent.

    Cost: 2,000 permutations of accuracy or span F1 in a few milliseconds, of a metric whose rows all differ in 0.3 CPU-s for 2,000 examples.
    Source: Fisher 1935; Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005, chapter 3.
    """
    n, part = len(inside), int(inside.sum())
    assert 0 < part < n == len(counts), "a part and a rest"
    rows, times = collapse(counts.rows)
    own, other = (interval(counts.take(mask), resamples=500, seed=seed) for mask in (inside, ~inside))
    observed = own.score - other.score
    extreme = drawn = 0
    for members in _members(times, part, resamples, seed):
        differences = scores(counts.metric, rows, members) - scores(counts.metric, rows, times - members)
        extreme += int((np.abs(differences) >= abs(observed) - 1e-9).sum())
        drawn += len(members)
    below = np.hypot(own.score - own.low, other.high - other.score)
    above = np.hypot(own.high - own.score, other.score - other.low)
    return Difference(observed, observed - float(below), observed + float(above), (extreme + 1) / (drawn + 1), "permutation")


def _members(times: Ints, part: int, resamples: int, seed: int) -> Iterator[Floats]:
    """(R', K) how often each distinct row falls into a part drawn by chance."""
    rng = np.random.default_rng(seed)
    k, n = len(times), int(times.sum())
    chunk = max(1, min(resamples, CHUNK_CELLS // max(k, 1)))
    row_of = np.repeat(np.arange(k), times)
    for start in range(0, resamples, chunk):
        r = min(chunk, resamples - start)
        if k <= FEW_ROWS:
            yield rng.multivariate_hypergeometric(times, part, size=r, method="marginals").astype(np.float64)
            continue
        chosen = np.argpartition(rng.random((r, n), dtype=np.float32), part - 1, axis=1)[:, :part]
        cells = row_of[chosen] + np.arange(r)[:, None] * k
        yield np.bincount(cells.ravel(), minlength=r * k).reshape(r, k).astype(np.float64)
