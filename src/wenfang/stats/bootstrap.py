"""Percentile bootstrap of a score from per-example counts. Knows nothing of texts, labels or models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scores import Counts, Floats, Ints, collapse, score, scores

__all__ = ["RESAMPLES", "Interval", "draw", "interval"]

RESAMPLES = 10_000
CHUNK_CELLS = 1 << 18
"""Weights held at once (2 MiB: they stay in the cache)."""
RARE = 30
"""Rows that occur less often than this are drawn one example at a time: a binomial costs about as much as so many uniform integers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and its percentile interval."""

    score: float
    low: float
    high: float


def draw(times: Ints, *, resamples: int, seed: int) -> Iterator[Floats]:
    """Weights of bootstrap resamples over distinct rows, in chunks of bounded memory.

    Args:
        times: (K,) how often each distinct row occurs, descending; n is their sum.
        resamples: R in all.
        seed: of the draws.

    Yields:
        (R', K) weights, each row summing to n.
    """
    rng = np.random.default_rng(seed)
    n, k = int(times.sum()), len(times)
    common = int(np.searchsorted(-times, -RARE, side="right"))
    rare_of = np.repeat(np.arange(common, k), times[common:])
    shares = np.append(times[:common], len(rare_of)) / n
    chunk = max(1, min(resamples, CHUNK_CELLS // max(k, n if not common else k)))
    for start in range(0, resamples, chunk):
        r = min(chunk, resamples - start)
        head = rng.multinomial(n, shares, size=r)
        weights = np.empty((r, k))
        weights[:, :common] = head[:, :common]
        if len(rare_of):
            cells = np.repeat(np.arange(r) * (k - common), head[:, -1])
            cells += rare_of[rng.integers(0, len(rare_of), len(cells))] - common
            weights[:, common:] = np.bincount(cells, minlength=r * (k - common)).reshape(r, k - common)
        yield weights


def interval(counts: Counts, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The score and its percentile bootstrap interval over examples.

    Where all examples agree, resampling sees no spread; the exact binomial (Clopper-Pearson) bound is given instead, so that 20 right of 20
    is not called certain.

    Args:
        counts: n rows; n = 0 gives the score with [0, 1].
        level: of the two-sided interval.
        resamples: how many.
        seed: of the draws.

    Cost: 10,000 resamples of span F1 in about 0.1 CPU-s for 500 to 10,000 sentences.
    Source: Efron and Tibshirani 1993, section 13.3.
    """
    n = len(counts)
    if n == 0:
        return Interval(0.0, 0.0, 1.0)
    rows, times = collapse(counts.rows)
    value = score(counts)
    tail = (1 - level) / 2
    values = np.concatenate([scores(counts.metric, rows, weights) for weights in draw(times, resamples=resamples, seed=seed)]) if len(times) > 1 else np.array([value])
    if values.min() == values.max() and value in {0.0, 1.0}:
        return Interval(value, *((tail ** (1 / n), 1.0) if value else (0.0, 1 - tail ** (1 / n))))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(value, float(min(low, value)), float(max(high, value)))
