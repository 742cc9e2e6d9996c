"""Characters as numbers: folded code points of many texts in one array, hashes of their n-grams, and an index from hash to row.

Everything is vectorised over whole batches and needs numpy only. Nothing here depends on which texts share a batch, so that one
text gets the same features alone and among others. Knows nothing of labels or models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from wenfang.core.text import fold

__all__ = ["MARK", "U64", "GramIndex", "Grams", "code_points", "mix", "ngrams", "text_blocks"]

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

MARK = 0x110000
"""Stands before and after each text; no code point has this value."""
_STEP = np.uint64(0x9E3779B97F4A7C15)


@cache
def _fold_table() -> npt.NDArray[np.uint32]:
    """What ``fold`` makes of each code point of the basic plane; beyond it nothing folds."""
    plane = "".join(map(chr, range(0x10000)))
    return np.frombuffer(fold(plane).encode("utf-32-le", "surrogatepass"), np.uint32)


def code_points(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], I64]:
    """The folded code points of all texts, shape (N,), and where each text starts, shape (B + 1,).

    Cost: about 10 ns per character.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    table = _fold_table()
    low = codes < 0x10000
    folded = table[codes] if low.all() else np.where(low, table[np.where(low, codes, 0)], codes)
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=starts[1:])
    return folded, starts


def mix(keys: U64) -> U64:
    """Spread 64-bit keys evenly and reversibly (the finaliser of SplitMix64)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Grams:
    """All n-grams of a batch: hash and text of each, in no particular order."""

    keys: U64
    text_of: npt.NDArray[np.int32]


def ngrams(texts: Sequence[str], *, shortest: int, longest: int) -> Grams:
    """Character n-grams of the folded texts with a mark at both ends (single marks are left out).

    Args:
        texts: B strings.
        shortest: smallest n.
        longest: largest n.
    """
    codes, starts = code_points(texts)
    B = len(texts)
    marked = np.full(len(codes) + B + 1, MARK, np.uint64)
    lengths = np.diff(starts)
    owner = np.repeat(np.arange(B, dtype=np.int32), lengths)
    marked[np.arange(len(codes)) + owner + 1] = codes
    text_of = np.repeat(np.arange(B, dtype=np.int32), lengths + 1)  # a mark belongs to the text after it
    last = np.append(starts[1:] + np.arange(1, B + 1), 0)[text_of]  # where the mark after this text stands
    room = last - np.arange(len(text_of))  # how far the mark is; a gram may end on it, not pass it
    inside = marked[:-1] != MARK
    keys: list[U64] = []
    owners: list[npt.NDArray[np.int32]] = []
    rolling = np.zeros(len(text_of), np.uint64)
    for n in range(1, longest + 1):
        count = len(marked) - n  # the last position cannot start a gram of two or more
        if count < 0:
            break
        m = min(count + 1, len(text_of))
        rolling[:m] = mix(rolling[:m] + _STEP * (marked[n - 1 : n - 1 + m] + np.uint64(1)))
        if n >= shortest:
            fits = inside[:m] if n == 1 else (room[:m] >= n - 1) & ((room[:m] > 1) | inside[:m])
            keys.append(rolling[:m][fits])
            owners.append(text_of[:m][fits])
    if not keys:
        return Grams(np.zeros(0, np.uint64), np.zeros(0, np.int32))
    return Grams(np.concatenate(keys), np.concatenate(owners))


def text_blocks(texts: Sequence[str], characters: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole texts with about ``characters`` code points each, so that memory stays bounded."""
    start = size = 0
    for i, text in enumerate(texts):
        if size and size + len(text) > characters:
            yield start, i
            start, size = i, 0
        size += len(text) + 1
    if start < len(texts):
        yield start, len(texts)


class GramIndex:
    """A set of gram hashes, each with its row. Sorted hashes are their own hash table: the top bits say where to look.

    Args:
        keys: V distinct hashes, sorted; the row of a hash is its place.
    """

    def __init__(self, keys: U64) -> None:
        self.keys = keys
        bits = max(1, len(keys)).bit_length()
        self.shift = np.uint64(64 - bits)
        edges = np.arange(1 << bits, dtype=np.uint64) << self.shift
        self.first = np.append(np.searchsorted(keys, edges), len(keys)).astype(np.int32)

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: U64) -> npt.NDArray[np.int32]:
        """The row of each key, -1 where it is unknown.

        Cost: about 30 ns per key.
        """
        found = np.full(len(keys), -1, np.int32)
        if not len(self.keys):
            return found
        bucket = (keys >> self.shift).astype(np.int64)
        place, end = self.first[bucket], self.first[bucket + 1]
        left = np.flatnonzero(place < end)
        place, end, wanted = place[left], end[left], keys[left]
        while len(left):  # buckets hold half a key on average, so a handful of rounds
            here = self.keys[place]
            hit = here == wanted
            found[left[hit]] = place[hit]
            on = np.flatnonzero((here < wanted) & (place + 1 < end))
            left, place, end, wanted = left[on], place[on] + 1, end[on], wanted[on]
        return found
