"""Texts as one array of code points, for counting and folding without a Python loop. Knows numpy and ``core.text``, nothing of files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wenfang.core.text import fold, script_of

__all__ = ["SCRIPTS", "folded", "lengths_of", "points_of", "script_counts", "scripts_of_rows"]

SCRIPTS = ("none", "han", "kana", "hangul", "latin", "cyrillic", "arabic")
_BMP = 0x10000


def points_of(texts: Sequence[str]) -> NDArray[np.uint32]:
    """The code points of all texts, one after another. A lone surrogate is kept as its number."""
    return np.frombuffer("".join(texts).encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)


def lengths_of(texts: Sequence[str]) -> NDArray[np.int64]:
    """(n) lengths in code points."""
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


@cache
def _fold_table() -> NDArray[np.uint32]:
    return points_of([fold("".join(map(chr, range(_BMP))))])


def folded(points: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """``core.text.fold`` of every code point."""
    table = _fold_table()
    return np.where(points < _BMP, table[np.minimum(points, _BMP - 1)], points)


@cache
def _script_table() -> NDArray[np.uint8]:
    """Index into ``SCRIPTS`` by code point; above the BMP by blocks of 16, which no script boundary cuts."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for block, size in ((range(0x41, 0xD800), 1), (range(0xF900, 0x10000), 1), (range(0x10000, 0x34000, 16), 16)):
        for code in block:
            table[code : code + size] = SCRIPTS.index(script_of(chr(code)))
    return table


def script_counts(points: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 7) how many letters of each script every text holds.

    Args:
        points: code points of n texts.
        lengths: (n) of each text.
    """
    n, width = len(lengths), len(SCRIPTS)
    kinds = _script_table()[points]
    rows = np.repeat(np.arange(n, dtype=np.int64) * width, lengths)
    rows += kinds
    counts = np.bincount(rows, minlength=n * width).reshape(n, width)
    counts[:, 0] = 0
    return counts


def scripts_of_rows(texts: Sequence[str], points: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n) index into ``SCRIPTS`` of what ``core.text.script_of`` says of each text."""
    counts = script_counts(points, lengths)
    best = counts.argmax(axis=1)
    top = counts.max(axis=1)
    best[top == 0] = 0
    kana = counts[:, SCRIPTS.index("kana")] > 0
    best[kana] = SCRIPTS.index("kana")
    for row in np.flatnonzero(((counts == top[:, None]).sum(axis=1) > 1) & (top > 0) & ~kana).tolist():
        best[row] = SCRIPTS.index(script_of(texts[row]))  # a tie goes to the script that comes first in the text
    return best
