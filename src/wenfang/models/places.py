"""Texts as the places a chain tags: each character, or each word and lone sign; and what can be read at a place.

A *channel* gives one number a place: its folded form, its shape, its first or last letters. Everything is vectorised over a batch,
needs numpy only, and gives a text the same numbers alone and among others. Knows nothing of tags.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Span

from .features import U64, code_points, mix

__all__ = ["Channel", "Places", "Unit", "fitting_unit"]

I64 = npt.NDArray[np.int64]

Unit = Literal["character", "word"]
Channel = Literal["form", "shape", "prefix2", "prefix3", "suffix2", "suffix3", "twice", "lexicon", "words", "cluster", "fine", "topic", "topics"]
"""What can be read at a place. Of a character its beginning and ending are the character itself."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_BLANK, _DIGIT, _LATIN, _HAN, _LETTER, _PUNCTUATION, _SYMBOL, _REST, _UPPER = range(9)


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """The class of each code point of the basic plane: blank, digit, Latin, Han, other letter, punctuation, symbol, rest, Latin capital."""
    of = np.full(0x10000, _REST, np.uint8)
    for code in range(0x10000):
        category = unicodedata.category(chr(code))
        if category in {"Zs", "Cc"}:
            of[code] = _BLANK
        elif category[0] == "N":
            of[code] = _DIGIT
        elif code < 0x250 and category[0] == "L":
            of[code] = _UPPER if category == "Lu" else _LATIN
        elif 0x3400 <= code <= 0x9FFF:
            of[code] = _HAN
        elif category[0] in "LM":
            of[code] = _LETTER
        elif category[0] in "PS":
            of[code] = _PUNCTUATION if category[0] == "P" else _SYMBOL
    return of


def _class_of(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    low = codes < 0x10000
    if low.all():
        return _classes()[codes]
    beyond = np.where((codes >= 0x20000) & (codes < 0x32400), np.uint8(_HAN), np.uint8(_SYMBOL))
    return np.where(low, _classes()[np.where(low, codes, 0)], beyond)


class Places:
    """The places of a batch of texts.

    Args:
        texts: B strings.
        unit: what a place is.
    """

    def __init__(self, texts: Sequence[str], unit: Unit) -> None:
        self.unit: Unit = unit
        self.codes, self.text_starts = code_points(texts)
        if unit == "character":
            self.starts = self.text_starts
            self.left = self.right = np.zeros(0, np.int64)
            self.classes = _class_of(self.codes)
            self.classes = np.where(self.classes == _UPPER, np.uint8(_LATIN), self.classes)
            return
        self.classes = _class_of(np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32))
        text_of = np.repeat(np.arange(len(texts)), np.diff(self.text_starts))
        spelled = np.isin(self.classes, (_DIGIT, _LATIN, _LETTER, _UPPER))
        begins = np.ones(len(self.codes), np.bool_)
        begins[1:] = ~(spelled[1:] & spelled[:-1]) | (text_of[1:] != text_of[:-1])
        heads = np.flatnonzero(begins & (self.classes != _BLANK))
        ends = np.append(np.flatnonzero(begins)[1:], len(self.codes))[np.cumsum(begins)[heads] - 1] if len(heads) else heads
        self.left, self.right = heads, ends  # among all code points of the batch
        self.starts = np.searchsorted(heads, self.text_starts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def bounds(self) -> tuple[I64, I64]:
        """Where each place begins and ends in its own text, code points."""
        if self.unit == "character":
            at = np.arange(len(self.codes)) - np.repeat(self.starts[:-1], np.diff(self.starts))
            return at, at + 1
        home = np.repeat(self.text_starts[:-1], np.diff(self.starts))
        return self.left - home, self.right - home

    def covering(self, spans: Sequence[Sequence[Span]]) -> list[list[Span]]:
        """The spans of each text counted in places instead of code points: whole places that touch them, without those that meet one before."""
        left, right = self.bounds()
        covered: list[list[Span]] = []
        for i, own in enumerate(spans):
            a, b = int(self.starts[i]), int(self.starts[i + 1])
            kept: list[Span] = []
            for s in sorted(own, key=lambda s: s.start):
                start, end = int(np.searchsorted(right[a:b], s.start, "right")), int(np.searchsorted(left[a:b], s.end, "left"))
                if start < end and (not kept or kept[-1].end <= start):
                    kept.append(Span(start, end, s.label))
            covered.append(kept)
        return covered

    def channel(self, name: str) -> U64:
        """What ``name`` reads at each place, shape (N,)."""
        if name == "twice":
            return self._twice()
        if self.unit == "character":
            return self.classes.astype(np.uint64) if name == "shape" else self.codes.astype(np.uint64)
        return self._spelling(name)

    def _spelling(self, name: str) -> U64:
        """A hash of some letters of each word: the sum of what each letter at its place is worth."""
        if not len(self.left):
            return np.zeros(0, np.uint64)
        lengths = self.right - self.left
        word = np.repeat(np.arange(len(lengths)), lengths)
        offset = np.arange(len(word)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at = self.left[word] + offset
        kept = np.ones(len(word), np.bool_)
        if name == "shape":
            values = self.classes[at].astype(np.uint64)
            kept[1:] = (offset[1:] == 0) | (values[1:] != values[:-1])
            turns = np.cumsum(kept)
            offset = turns - turns[np.cumsum(lengths) - lengths][word]
        else:
            values = self.codes[at].astype(np.uint64)
            if name.startswith("prefix"):
                kept = offset < int(name[-1])
            elif name.startswith("suffix"):
                offset = lengths[word] - 1 - offset
                kept = offset < int(name[-1])
        worth = np.where(kept, mix(values + _STEP * (offset.astype(np.uint64) + np.uint64(1))), np.uint64(0))
        return np.add.reduceat(worth, np.cumsum(lengths) - lengths)

    def _twice(self) -> U64:
        """How a place repeats within its text: 1 where the pair it begins stands again, 2 where the pair it ends does, 3 both."""
        form, N = self.channel("form"), len(self)
        found = np.zeros(N, np.uint64)
        if N < 2:
            return found
        text_of = np.repeat(np.arange(len(self.starts) - 1, dtype=np.uint64), np.diff(self.starts))
        pair = mix(mix(mix(form[:-1]) + form[1:] * _STEP) + text_of[:-1])
        pair = np.where(text_of[:-1] == text_of[1:], pair, np.arange(N - 1, dtype=np.uint64))
        _, back, times = np.unique(pair, return_inverse=True, return_counts=True)
        again = (times[back] > 1).astype(np.uint64)
        found[:-1] += again
        found[1:] += again * np.uint64(2)
        return found


def fitting_unit(texts: Sequence[str], bounds: Sequence[Sequence[int]]) -> Unit:
    """Words where most places are of several letters and hardly any of ``bounds`` (the ends of the spans of each text) cuts one; else characters."""
    places = Places(texts, "word")
    inked = int((places.classes != _BLANK).sum())
    if not len(places) or inked < 2.5 * len(places):
        return "character"
    edges = np.zeros(len(places.codes) + 1, np.bool_)
    edges[places.left] = edges[places.right] = True
    at = np.array([start + b for start, own in zip(places.text_starts[:-1].tolist(), bounds, strict=True) for b in own], np.int64)
    return "word" if len(at) == 0 or edges[at].mean() >= 0.99 else "character"
