"""Are two models different, judged on the same examples? Bootstrap, randomisation, McNemar; Holm's correction.

Knows nothing of texts, labels or models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import CHUNK_CELLS, RESAMPLES, draw
from .scores import Counts, Floats, Ints, Metric, collapse, scores

__all__ = ["Difference", "compare", "holm", "mcnemar", "paired_bootstrap", "randomisation"]

RANK_RESAMPLES = 2_000
"""Of correlations of ranks, which are ranked anew in every resample: five to nine times the cost of other metrics."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Score of A minus score of B on the same examples."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided."""
    method: str
    """Of ``p``: ``bootstrap``, ``mcnemar`` or ``randomisation``."""


def _joined(a: Counts, b: Counts) -> tuple[Ints, Ints, int]:
    """Distinct pairs of rows side by side, how often each occurs, and where B's columns begin."""
    assert a.metric == b.metric, "one metric for both"
    assert len(a) == len(b) > 0, "both judged on the same examples"
    rows, times = collapse(np.concatenate([a.rows, b.rows], axis=1))
    return rows, times, a.rows.shape[1]


def _difference(metric: Metric, rows: Ints, k: int, weights: Floats) -> Floats:
    return scores(metric, rows[:, :k], weights) - scores(metric, rows[:, k:], weights)


def paired_bootstrap(a: Counts, b: Counts, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Difference of two scores with percentile interval and two-sided p.

    Args:
        a: counts of the first model, n rows.
        b: counts of the second on the same examples in the same order.
        level: of the interval.
        resamples: how many.
        seed: of the draws.

    Cost: 10,000 resamples of span F1 in about 0.2 CPU-s for 500 to 10,000 sentences.
    Source: Efron and Tibshirani 1993, chapters 13 and 16.
    """
    rows, times, k = _joined(a, b)
    point = _difference(a.metric, rows, k, times[None, :].astype(np.float64))[0]
    values = np.concatenate([_difference(a.metric, rows, k, weights) for weights in draw(times, resamples=resamples, seed=seed)])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    tail = min((values <= 0).sum(), (values >= 0).sum())  # ties with 0 count on both sides: identical models give p = 1
    p = min(1.0, 2 * (int(tail) + 1) / (resamples + 1))
    return Difference(float(point), float(low), float(high), p, "bootstrap")


def randomisation(a: Counts, b: Counts, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of the approximate randomisation test: under no difference the two answers to an example may change places.

    Holds its level on small samples too, where the bootstrap is a little eager.

    Cost: below that of ``paired_bootstrap``.
    Source: Noreen 1989; Yeh 2000 (More accurate tests for the statistical significance of result differences).
    """
    rows, times, k = _joined(a, b)
    own, other = rows[:, :k], rows[:, k:]
    differs = (own != other).any(axis=1)
    fixed = times[None, :].astype(np.float64)
    observed = abs(_difference(a.metric, rows, k, fixed)[0])
    if not differs.any():
        return 1.0
    both = np.concatenate([own, other])
    halves = times[differs]
    rng = np.random.default_rng(seed)
    chunk = max(1, min(resamples, CHUNK_CELLS // (2 * len(rows))))
    extreme = 0
    for start in range(0, resamples, chunk):
        r = min(chunk, resamples - start)
        moved = np.zeros((r, len(rows)))
        moved[:, differs] = rng.binomial(halves, 0.5, size=(r, len(halves)))
        stay = fixed - moved
        values = scores(a.metric, both, np.concatenate([stay, moved], axis=1)) - scores(a.metric, both, np.concatenate([moved, stay], axis=1))
        extreme += int((np.abs(values) >= observed - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test.

    Args:
        only_a: examples that only A got right.
        only_b: examples that only B got right.

    >>> round(mcnemar(1, 9), 4), mcnemar(4, 4)
    (0.0215, 1.0)
    """
    n, k = only_a + only_b, min(only_a, only_b)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    return min(1.0, 2 * math.fsum(math.exp(x) for x in logs))


def compare(a: Counts, b: Counts, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """The test that selection judges by: interval from the bootstrap, p exact (McNemar for accuracy) or by randomisation (all others)."""
    if a.metric == "spearman":
        resamples = min(resamples, RANK_RESAMPLES)
    boot = paired_bootstrap(a, b, level=level, resamples=resamples, seed=seed)
    if a.metric == "accuracy":
        right_a, right_b = a.rows[:, 0] > 0, b.rows[:, 0] > 0
        p, method = mcnemar(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())), "mcnemar"
    else:
        p, method = randomisation(a, b, resamples=resamples, seed=seed), "randomisation"
    return Difference(boot.difference, boot.low, boot.high, p, method)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
