"""Texts as units, characters of Chinese and words of other scripts, and what is known of each where it stands: rows of hashed features.

Knows nothing of what is learned from them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FEATURES", "ROWS", "Frequencies", "Units", "features_of", "units_of"]

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_ALONE}]|(?:(?![{_ALONE}])\w)+(?:[-./](?:(?![{_ALONE}])\w)+)*|[^\w\s]")
_MARK = re.compile(r"[^\w\s]")
_SENTENCE = frozenset("。！？!?；;.")
UNITS_MAX = 1500
"""Of one text that are read."""
ROWS = 1 << 18
"""Of the table of weights that features point into."""
_PRIME = np.uint64(0x100000001B3)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Units:
    """One text as T units."""

    text: str
    spans: list[tuple[int, int]]
    """Code points of each."""
    words: list[str]
    """Lower case."""
    codes: npt.NDArray[np.uint64]
    """A hash of each."""
    mark: npt.NDArray[np.bool_]
    """Whether it is punctuation."""

    def __len__(self) -> int:
        return len(self.words)


def units_of(text: str) -> Units:
    """The units of a text.

    >>> units_of("用GPT-4写诗。").words
    ['用', 'gpt-4', '写', '诗', '。']
    """
    spans: list[tuple[int, int]] = []
    for match in _UNIT.finditer(text):
        spans.append(match.span())
        if len(spans) == UNITS_MAX:
            break
    words = [text[a:b].lower() for a, b in spans]
    return Units(text, spans, words, np.array([_hash(w) for w in words], np.uint64), np.array([_MARK.fullmatch(w) is not None for w in words], np.bool_))


def _hash(word: str) -> int:
    h = 0xCBF29CE484222325
    for byte in word.encode("utf-8", "surrogatepass"):
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


class Frequencies:
    """In how many of n texts each pair of neighbouring units stands.

    Args:
        counts: by hash of the pair.
        n: texts.
    """

    def __init__(self, counts: dict[int, int], n: int) -> None:
        self.counts = counts
        self.n = n

    @classmethod
    def of(cls, texts: Iterable[Units]) -> Frequencies:
        """Counted; pairs of one text alone are left out."""
        counts: Counter[int] = Counter()
        n = 0
        for units in texts:
            counts.update(set(pairs_of(units).tolist()))
            n += 1
        return cls({pair: c for pair, c in counts.items() if c > 1}, n)

    def __call__(self, pairs: npt.NDArray[np.uint64]) -> Ints:
        """Texts of each pair, at least 1."""
        counts = self.counts
        return np.array([counts.get(p, 1) for p in pairs.tolist()], np.int64)


def pairs_of(units: Units) -> npt.NDArray[np.uint64]:
    """A hash of each unit with the next, shape (T,); the last stands with nothing."""
    return _mixed(units.codes, _ahead(units.codes, 1))


def _ahead(codes: npt.NDArray[np.uint64], by: int) -> npt.NDArray[np.uint64]:
    """Each unit's neighbour ``by`` places on."""
    moved = np.zeros_like(codes)
    if by >= 0:
        moved[: len(codes) - by] = codes[by:]
    else:
        moved[-by:] = codes[:by]
    return moved


def _mixed(*parts: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    h = np.full(len(parts[0]), 0x9E3779B97F4A7C15, np.uint64)
    for part in parts:
        h = (h ^ part) * _PRIME
        h ^= h >> np.uint64(29)
    return h


_GRAMS = ((0,), (-1,), (1,), (-2,), (2,), (-1, 0), (0, 1), (-2, -1), (1, 2), (-2, -1, 0), (-1, 0, 1), (0, 1, 2), (-3, -2, -1), (1, 2, 3))


def _behind(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Of the pair that ends at each unit what is given of the pair that begins there."""
    return np.concatenate([values[:1], values[:-1]])


def _buckets(values: Ints, borders: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.searchsorted(np.array(borders), values, side="right").astype(np.uint64)


def features_of(units: Units, frequencies: Frequencies) -> npt.NDArray[np.int32]:
    """Rows of the table for each unit, shape (T, FEATURES): its neighbours, its place, how often its pairs stand here and elsewhere."""
    codes, T = units.codes, len(units)
    at = np.arange(T)
    pairs = pairs_of(units)
    own, inverse, times = np.unique(pairs, return_inverse=True, return_counts=True)
    here = times[inverse]
    first = np.zeros(len(own), np.int64)
    np.maximum.at(first, inverse, T - at)
    again = (T - first[inverse] < at).astype(np.uint64)
    elsewhere = frequencies(pairs)
    rare = _buckets((1000 * elsewhere) // max(1, frequencies.n), (2, 5, 10, 20, 50, 100, 200))
    often = _buckets(here, (2, 3, 4, 6))
    ends = np.isin(np.array(units.words, object), list(_SENTENCE)) if T else np.zeros(0, np.bool_)
    clause = np.concatenate([[0], np.cumsum(units.mark)[:-1]]).astype(np.int64)[:T]
    sentence = np.concatenate([[0], np.cumsum(ends)[:-1]]).astype(np.int64)[:T]
    starts, stops = _edges(units.mark)
    from_start, to_stop = _buckets(at - starts, (1, 2, 3, 5, 8, 13, 21)), _buckets(stops - at, (1, 2, 3, 5, 8, 13, 21))
    clause_at, sentence_at = _buckets(clause, (1, 2, 3, 4, 6, 9)), _buckets(sentence, (1, 2, 3, 5))
    left = _buckets(int(clause[-1]) - clause if T else clause, (1, 2, 3))
    opening = _mixed(codes[starts], _ahead(codes, 1)[starts]) if T else codes
    place = _buckets(10 * at // max(1, T), range(1, 10))
    columns: list[npt.NDArray[np.uint64]] = [_mixed(*(_ahead(codes, by) if abs(by) < T else np.zeros_like(codes) for by in gram)) for gram in _GRAMS]
    columns += [
        _mixed(place), _mixed(clause_at, from_start), _mixed(clause_at, to_stop), _mixed(sentence_at, left), _mixed(opening), _mixed(opening, from_start), _mixed(opening, clause_at),
        _mixed(often, rare), _mixed(_behind(often), _behind(rare)), _mixed(often, _behind(often), again), _mixed(often, again, clause_at), _mixed(rare, _behind(rare)),
        _mixed(often, sentence_at, rare), _mixed(from_start, to_stop), _mixed(again, _behind(again), clause_at), _mixed(codes, clause_at), _mixed(codes, from_start), _mixed(codes, to_stop),
    ]  # fmt: skip
    salted = [_mixed(column, np.full(T, salt, np.uint64)) % np.uint64(ROWS) for salt, column in enumerate(columns)]
    return np.stack(salted, axis=1).astype(np.int32).reshape(T, FEATURES)


FEATURES = len(_GRAMS) + 18


def _edges(mark: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """First and last unit of the clause around each unit; a mark stands alone."""
    T = len(mark)
    at = np.arange(T)
    starts = np.maximum.accumulate(np.where(np.concatenate([[True], mark[:-1]])[:T] | mark, at, 0)) if T else at
    stops = (T - 1 - np.maximum.accumulate(np.where(np.concatenate([[True], mark[::-1][:-1]])[:T] | mark[::-1], at, 0)))[::-1] if T else at
    return starts, stops
