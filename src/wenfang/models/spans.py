"""How well spans were found, for early stopping and curves. Reports measure elsewhere, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from wenfang.core.examples import Span

__all__ = ["span_f1"]


def span_f1(found: Sequence[Sequence[Span]], right: Sequence[Sequence[Span]]) -> float:
    """Micro F1 of exact spans; 1 when there is nothing to find and nothing was found.

    >>> span_f1([[Span(0, 1, "A"), Span(2, 3, "A")]], [[Span(0, 1, "A")]])
    0.6666666666666666
    """
    hits = sum(len(set(f) & set(r)) for f, r in zip(found, right, strict=True))
    total = sum(map(len, found)) + sum(map(len, right))
    return 2 * hits / total if total else 1.0
