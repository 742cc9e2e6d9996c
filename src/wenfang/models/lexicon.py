"""Known terms: what the spans of a training set say, or a list somebody wrote, found in texts by longest match.

A text that taught a term must not read it back, or learning would trust the lexicon more than a new text can; so each training text
sees what the others know. Needs numpy only. Knows nothing of tags or weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .features import U64, GramIndex, mix
from .jit import available
from .places import Places

__all__ = ["Lexicon", "Terms", "listed"]

I64 = npt.NDArray[np.int64]

KindOf = Callable[[I64, I64], I64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_LONGEST = 12
"""Places of the longest term."""


def _onward(key: U64, form: U64) -> U64:
    return mix(key + _STEP * (form + np.uint64(1)))


@dataclass(frozen=True, slots=True)
class Terms:
    """Where terms stand in some texts."""

    at: I64
    """First place of each, shape (n,), among all places."""
    length: I64
    """Places of each."""
    kind: I64
    """Number of the label or list of each, 0..."""


def listed(lists: Sequence[Sequence[str]], unit: str) -> tuple[Places, Terms]:
    """The words of some lists as texts that are one term each."""
    words = [(word, kind) for kind, own in enumerate(lists) for word in own]
    places = Places([w for w, _ in words], "word" if unit == "word" else "character")
    length = np.diff(places.starts)
    kept = length > 0
    return places, Terms(places.starts[:-1][kept], length[kept], np.array([k for _, k in words], np.int64)[kept])


class Lexicon:
    """Terms and the kind of each.

    Args:
        keys: hashes of the n terms, sorted.
        kinds: of each term, shape (n,).
        heads: hashes of all beginnings of terms, sorted, whole terms among them.
    """

    def __init__(self, keys: U64, kinds: I64, heads: U64) -> None:
        self.keys, self.kinds, self.heads = keys, kinds, heads
        self._index, self._heads = GramIndex(keys), GramIndex(heads)

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def harvest(cls, places: Places, terms: Terms) -> tuple[Lexicon, U64]:
        """The lexicon of ``terms``, each of the kind it most often has, and what the texts it comes from read in it.

        Returns:
            The lexicon, and its channel for ``places``, where each text sees only what the others taught.
        """
        form, short = places.channel("form"), terms.length <= _LONGEST
        at, length, kind = terms.at[short], terms.length[short], terms.kind[short]
        keys, heads = np.zeros(len(at), np.uint64), [np.zeros(0, np.uint64)]
        for m in range(int(length.max(initial=0))):
            on = np.flatnonzero(length > m)
            keys[on] = _onward(keys[on], form[at[on] + m])
            heads.append(keys[on])
        known, row = np.unique(keys, return_inverse=True)
        kinds = int(kind.max(initial=-1)) + 1
        counts = np.zeros((len(known), kinds), np.int64)
        np.add.at(counts, (row, kind), 1)
        lexicon = cls(known, counts.argmax(axis=1) if kinds else np.zeros(0, np.int64), np.unique(np.concatenate(heads)))
        text_of = np.repeat(np.arange(len(places.starts) - 1), np.diff(places.starts))
        cells = np.sort((text_of[at] * max(1, len(known)) + row) * max(1, kinds) + kind)

        def others(first: I64, term: I64) -> I64:
            """The kind each term found at ``first`` most often has in other texts; -1: in none."""
            cell = (text_of[first] * len(known) + term) * kinds
            left = np.stack([counts[term, k] - np.searchsorted(cells, cell + k, "right") + np.searchsorted(cells, cell + k, "left") for k in range(kinds)], axis=1)
            return np.where(left.max(axis=1) > 0, left.argmax(axis=1), -1)

        return lexicon, lexicon._mark(places, others)

    def channel(self, places: Places) -> U64:
        """What the longest term over each place says: 0 for none, else its kind and whether the place begins, continues, ends or is it.

        Cost: about 0.1 microseconds per place.
        """
        if not available():
            return self._mark(places, lambda _, term: self.kinds[term])
        from .lookup import mark

        marks, a, b = np.zeros(len(places), np.uint64), self._heads, self._index
        if len(self.keys):
            mark(places.channel("form"), places.starts, _LONGEST, a.keys, a.first, a.shift, b.keys, b.first, b.shift, self.kinds, marks)
        return marks

    def _mark(self, places: Places, kind_of: KindOf) -> U64:
        form, N = places.channel("form"), len(places)
        end = np.repeat(places.starts[1:], np.diff(places.starts))
        marks, at, key = np.zeros(N, np.uint64), np.arange(N), np.zeros(N, np.uint64)
        for m in range(_LONGEST):
            room = at + m < end[at]
            at, key = at[room], key[room]
            key = _onward(key, form[at + m])
            open_ = self._heads.rows(key) >= 0
            at, key = at[open_], key[open_]
            term = self._index.rows(key)
            hit = np.flatnonzero(term >= 0)
            if len(hit):
                first, kind = at[hit], kind_of(at[hit], term[hit].astype(np.int64))
                first, kind = first[kind >= 0], kind[kind >= 0]
                for o in range(m + 1):  # longer terms come later and stay
                    spot = 3 if m == 0 else 0 if o == 0 else 2 if o == m else 1
                    marks[first + o] = (1 + spot + 4 * kind).astype(np.uint64)
            if not len(at):
                break
        return marks
