"""Texts that stand on both sides of a split. Knows examples only."""

from __future__ import annotations

from wenfang.core.examples import Examples

__all__ = ["leaked_rows"]


def leaked_rows(train: Examples, test: Examples) -> list[int]:
    """Rows of ``test`` whose exact text (or pair) stands in ``train``, ascending.

    >>> leaked_rows(Examples("classification", ["a", "b"]), Examples("classification", ["b", "c", "b"]))
    [0, 2]
    """
    seen = set(train.questions())
    return [row for row, text in enumerate(test.questions()) if text in seen]
