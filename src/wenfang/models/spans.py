"""How well spans were found, for early stopping and curves (reports measure elsewhere, with intervals), and which to take where they overlap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from wenfang.core.examples import Span

__all__ = ["disjoint", "span_f1"]


def span_f1(found: Sequence[Sequence[Span]], right: Sequence[Sequence[Span]]) -> float:
    """Micro F1 of exact spans; 1 when there is nothing to find and nothing was found.

    >>> span_f1([[Span(0, 1, "A"), Span(2, 3, "A")]], [[Span(0, 1, "A")]])
    0.6666666666666666
    """
    hits = sum(len(set(f) & set(r)) for f, r in zip(found, right, strict=True))
    total = sum(map(len, found)) + sum(map(len, right))
    return 2 * hits / total if total else 1.0


def disjoint(bounds: Sequence[tuple[int, int]], gains: Sequence[float]) -> list[int]:
    """Which of n intervals to take so that none overlap and their gains sum to the most: weighted interval scheduling.

    Args:
        bounds: start and end of each, end excluded.
        gains: of each, above 0.

    Returns:
        Their numbers, in order.

    >>> disjoint([(0, 2), (1, 4), (3, 6)], [0.2, 0.3, 0.2])
    [0, 2]
    """
    order = sorted(range(len(bounds)), key=lambda i: (bounds[i][1], bounds[i][0]))
    ends = [bounds[i][1] for i in order]
    sums, back = [0.0], list[int]()
    for k, i in enumerate(order):
        before = bisect_right(ends, bounds[i][0], 0, k)
        taken = sums[before] + gains[i]
        back.append(before if taken > sums[k] else -1)
        sums.append(max(sums[k], taken))
    chosen: list[int] = []
    k = len(order)
    while k:
        if back[k - 1] >= 0:
            chosen.append(order[k - 1])
            k = back[k - 1]
        else:
            k -= 1
    return sorted(chosen)
