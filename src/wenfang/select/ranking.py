"""Metrics of ranked answers: reciprocal rank, nDCG and recall at k. Knows nothing of what is ranked or by whom."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from wenfang.stats.scores import Counts, in_millionths

__all__ = ["ndcg_counts", "recall_counts", "reciprocal_rank_counts"]

Ranked = Sequence[Sequence[Hashable]]


def reciprocal_rank_counts(ranked: Ranked, relevant: Sequence[Collection[Hashable]]) -> Counts:
    """1 / rank of the first relevant answer, 0 where there is none; its mean is the MRR.

    Args:
        ranked: n lists of answers, best first.
        relevant: n sets of right ones.
    """
    values = [next((1 / rank for rank, item in enumerate(row, 1) if item in right), 0.0) for row, right in zip(ranked, relevant, strict=True)]
    return Counts("mrr", in_millionths(values).reshape(-1, 1))


def recall_counts(ranked: Ranked, relevant: Sequence[Collection[Hashable]], *, k: int) -> Counts:
    """Share of the relevant answers among the first k; nothing relevant counts 0."""
    values = [len(set(row[:k]) & set(right)) / len(set(right)) if right else 0.0 for row, right in zip(ranked, relevant, strict=True)]
    return Counts("recall_at_k", in_millionths(values).reshape(-1, 1))


def ndcg_counts(ranked: Ranked, gains: Sequence[Mapping[Hashable, float]], *, k: int) -> Counts:
    """Discounted gain of the first k answers as a share of the best order's.

    Args:
        ranked: n lists of answers, best first.
        gains: n gains of the answers that have one.
        k: answers looked at.

    Source: Järvelin and Kekäläinen 2002; logarithm to base 2, linear gains.
    """
    discounts = [1 / math.log2(place + 2) for place in range(k)]
    values: list[float] = []
    for row, gain in zip(ranked, gains, strict=True):
        best = sum(g * d for g, d in zip(sorted(gain.values(), reverse=True), discounts, strict=False))
        got = sum(gain.get(item, 0.0) * d for item, d in zip(row, discounts, strict=False))
        values.append(got / best if best > 0 else 0.0)
    return Counts("ndcg", in_millionths(np.array(values)).reshape(-1, 1))
