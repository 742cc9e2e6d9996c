"""What a tagger sees at each character: single characters, pairs, triples and character classes of a window of five.

A *kind* is a way of reading neighbouring code points as one hash; each kind is looked up once per position. A *template* is a kind
at an offset, and owns a block of rows in the weight table. Row 0 is the row of everything unknown and stays zero. Needs numpy only
and gives a text the same rows alone and in a batch. Knows nothing of tags.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from .features import MARK, U64, GramIndex, code_points, mix, text_blocks

__all__ = ["KINDS", "TEMPLATES", "Contexts", "Windows"]

I64 = npt.NDArray[np.int64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_REACH = 2
_BLOCK_CHARS = 1 << 20

KINDS: dict[str, tuple[bool, tuple[int, ...]]] = {
    "one": (False, (0,)),
    "two": (False, (0, 1)),
    "around": (False, (0, 2)),
    "three": (False, (0, 1, 2)),
    "class3": (True, (0, 1, 2)),
    "class5": (True, (0, 1, 2, 3, 4)),
}
"""Name: whether character classes are read instead of characters, and the places read."""

TEMPLATES: tuple[tuple[str, int], ...] = (
    *(("one", o) for o in (-2, -1, 0, 1, 2)),
    *(("two", o) for o in (-2, -1, 0, 1)),
    ("around", -1),
    *(("three", o) for o in (-2, -1, 0)),
    ("class3", -1),
    ("class5", -2),
)
"""Kind and where its first place lies, seen from the tagged character."""


@cache
def _classes() -> npt.NDArray[np.uint64]:
    """The class of each code point of the basic plane: blank, digit, Latin, Han, other letter, punctuation, symbol, rest."""
    of = np.full(0x10000, 7, np.uint64)
    for code in range(0x10000):
        category = unicodedata.category(chr(code))
        if category in {"Zs", "Cc"}:
            of[code] = 0
        elif category[0] == "N":
            of[code] = 1
        elif code < 0x250 and category[0] == "L":
            of[code] = 2
        elif 0x3400 <= code <= 0x9FFF:
            of[code] = 3
        elif category[0] in "LM":
            of[code] = 4
        elif category[0] in "PS":
            of[code] = 5 if category[0] == "P" else 6
    return of


def _class_of(codes: npt.NDArray[np.uint32]) -> U64:
    low = codes < 0x10000
    beyond = np.where((codes >= 0x20000) & (codes < 0x32400), np.uint64(3), np.uint64(6))
    return np.where(low, _classes()[np.where(low, codes, 0)], beyond)


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows of the weight table that speak at each position of a batch."""

    rows: npt.NDArray[np.int32]
    """Shape (N, K), one column for each template."""
    starts: I64
    """Where each text begins, shape (B + 1,)."""


def _read(texts: Sequence[str]) -> tuple[dict[str, U64], I64, I64]:
    """The hash of every kind at every padded place, the padded place of each character, and where the texts start."""
    codes, starts = code_points(texts)
    places = np.arange(len(codes)) + np.repeat(np.arange(len(texts)) * _REACH, np.diff(starts)) + _REACH
    size = len(codes) + (len(texts) + 1) * _REACH
    padded = {False: np.full(size, MARK, np.uint64), True: np.full(size, 15, np.uint64)}
    padded[False][places] = codes
    padded[True][places] = _class_of(codes)
    read: dict[str, U64] = {}
    for kind, (by_class, spots) in KINDS.items():
        source = padded[by_class]
        n = size - spots[-1]
        key = np.zeros(max(0, n), np.uint64)
        if n > 0:
            for spot in spots:
                key = mix(key + _STEP * (source[spot : spot + n] + np.uint64(1)))
        read[kind] = key
    return read, places, starts


class Contexts:
    """The known values of each kind, and the block of rows of each template.

    Args:
        known: for each kind its sorted hashes.
    """

    def __init__(self, known: dict[str, U64]) -> None:
        self.index = {kind: GramIndex(known.get(kind, np.zeros(0, np.uint64))) for kind in KINDS}
        sizes = [len(self.index[kind]) for kind, _ in TEMPLATES]
        self.first = np.concatenate([[1], 1 + np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        """Rows of the weight table, row 0 included."""
        return int(self.first[-1])

    @classmethod
    def count(cls, texts: Sequence[str], *, min_count: int, size_max: int) -> Contexts:
        """The values that stand at ``min_count`` places at least (triples: one more); more are asked for until ``size_max`` rows suffice."""
        counts: dict[str, tuple[U64, I64]] = {kind: (np.zeros(0, np.uint64), np.zeros(0, np.int64)) for kind in KINDS}
        for start, end in text_blocks(texts, _BLOCK_CHARS):
            read, _, _ = _read(texts[start:end])
            for kind, keys in read.items():
                new, times = np.unique(keys, return_counts=True)
                old, old_times = counts[kind]
                if len(old):
                    merged, place = np.unique(np.concatenate([old, new]), return_inverse=True)
                    counts[kind] = merged, np.bincount(place, np.concatenate([old_times, times]), len(merged)).astype(np.int64)
                else:
                    counts[kind] = new, times.astype(np.int64)
        least = min_count
        while True:
            kept = cls({kind: keys[times >= least + (kind == "three")] for kind, (keys, times) in counts.items()})
            if len(kept) <= size_max:
                return kept
            least += 1

    def windows(self, texts: Sequence[str]) -> Windows:
        """The rows that speak at each character.

        Cost: about 0.5 microseconds per character.
        """
        read, places, starts = _read(texts)
        found = {kind: self.index[kind].rows(keys) for kind, keys in read.items()}
        rows = np.zeros((len(places), len(TEMPLATES)), np.int32)
        for t, (kind, offset) in enumerate(TEMPLATES):
            row = found[kind][places + offset] if len(places) else np.zeros(0, np.int32)
            rows[:, t] = np.where(row >= 0, row + np.int32(self.first[t]), np.int32(0))
        return Windows(rows, starts)
