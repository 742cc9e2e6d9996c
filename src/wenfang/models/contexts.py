"""What a tagger sees at each place: templates over channels, and the row of the weight table that each reading has.

A *template* is a few channels at offsets from the tagged place. Templates that differ only by where they stand share one *kind*, which is
looked up once for each place. Each template owns a block of rows; row 0 is the row of everything unknown and stays zero. Needs numpy
only and gives a text the same rows alone and in a batch. Knows nothing of tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .features import MARK, U64, GramIndex, mix
from .jit import available
from .places import Channel, Places

__all__ = ["CHARACTERS", "CLUSTERS", "LEXICON", "LISTS", "TOPICS", "WORDS", "Contexts", "Kind", "Template", "Windows"]

I64 = npt.NDArray[np.int64]
Template = tuple[tuple[Channel, int], ...]
"""What is read together: a channel and how far from the tagged place."""
Kind = tuple[tuple[str, int], ...]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def _at(channel: Channel, *offsets: int) -> Template:
    return tuple((channel, o) for o in offsets)


CHARACTERS: tuple[Template, ...] = (
    *(_at("form", o) for o in (-4, -3, -2, -1, 0, 1, 2, 3, 4)),
    *(_at("form", o, o + 1) for o in (-4, -3, -2, -1, 0, 1, 2, 3)),
    _at("form", -1, 1),
    *(_at("form", o, o + 1, o + 2) for o in (-2, -1, 0)),
    _at("shape", -1, 0, 1),
    _at("shape", -2, -1, 0, 1, 2),
)
"""Single characters and pairs of a window of nine, triples and classes of a window of five."""

WORDS: tuple[Template, ...] = (
    *(_at("form", o) for o in (-2, -1, 0, 1, 2)),
    *(_at("form", o, o + 1) for o in (-2, -1, 0, 1)),
    _at("form", -1, 1),
    _at("form", -1, 0, 1),
    _at("form", -2, -1, 0),
    *(_at(c, o) for c in ("prefix2", "prefix3", "suffix2", "suffix3") for o in (-1, 0, 1)),
    *(_at("shape", o) for o in (-1, 0, 1)),
    _at("shape", -1, 0, 1),
)
"""Single words, pairs and triples of a window of five, beginnings, endings and shapes of a window of three."""

LEXICON: tuple[Template, ...] = (*(_at("lexicon", o) for o in (-1, 0, 1)), *(_at("lexicon", o, o + 1) for o in (-1, 0)), (("lexicon", 0), ("form", 0)))
"""Terms that the spans of other texts taught."""

LISTS: tuple[Template, ...] = tuple(_at("words", o) for o in (-1, 0, 1))
"""Terms of the given word lists."""

CLUSTERS: tuple[Template, ...] = (
    *(_at("cluster", o, o + 1) for o in (-2, -1, 0, 1)),
    *(_at("cluster", o, o + 1, o + 2) for o in (-2, -1, 0)),
    *(_at("fine", o) for o in (-2, -1, 0, 1, 2)),
)
"""Groups of forms: coarse ones in pairs and triples, fine ones alone."""

TOPICS: tuple[Template, ...] = (
    _at("topic", 0),
    _at("topics", 0),
    *((("topic", 0), ("form", o)) for o in (-1, 0, 1)),
    (("topic", 0), ("lexicon", 0)),
    (("topic", 0), ("shape", -1), ("shape", 0), ("shape", 1)),
)
"""What the text is about, beside what stands there."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows of the weight table that speak at each position of a batch."""

    rows: npt.NDArray[np.int32]
    """Shape (N, K), one column for each template."""
    starts: I64
    """Where each text begins, shape (B + 1,)."""


def _split(template: Template) -> tuple[Kind, int]:
    """The template seen from its first offset, and that offset."""
    first = min(o for _, o in template)
    return tuple((c, o - first) for c, o in template), first


class Contexts:
    """The known readings of each kind, and the block of rows of each template.

    Args:
        templates: K of them.
        known: for each kind in the order of ``kinds`` its sorted hashes.
    """

    def __init__(self, templates: Sequence[Template], known: Sequence[U64] | None = None) -> None:
        self.templates = tuple(templates)
        where = [_split(t) for t in self.templates]
        self.kinds: tuple[Kind, ...] = tuple(dict.fromkeys(kind for kind, _ in where))
        self._where = [(self.kinds.index(kind), first) for kind, first in where]
        self._reach = max((abs(o) for t in self.templates for _, o in t), default=0)
        self.known = [GramIndex(keys) for keys in (known if known is not None else [np.zeros(0, np.uint64)] * len(self.kinds))]
        self.first = np.concatenate([[1], 1 + np.cumsum([len(self.known[k]) for k, _ in self._where])]).astype(np.int64)

    def __len__(self) -> int:
        """Rows of the weight table, row 0 included."""
        return int(self.first[-1])

    def channels(self) -> frozenset[str]:
        """Names of the channels that are read."""
        return frozenset(c for kind in self.kinds for c, _ in kind)

    def _pad(self, places: Places, learned: Mapping[str, U64]) -> tuple[dict[str, U64], I64]:
        """Each channel with marks between the texts, and where each place then stands."""
        reach, B = self._reach, len(places.starts) - 1
        at = np.arange(len(places)) + np.repeat(np.arange(B) * reach, np.diff(places.starts)) + reach
        padded: dict[str, U64] = {}
        for name in sorted(self.channels()):
            padded[name] = np.full(len(places) + (B + 1) * reach, MARK, np.uint64)
            padded[name][at] = learned[name] if name in learned else places.channel(name)
        return padded, at

    @staticmethod
    def _hash(kind: Kind, padded: Mapping[str, U64]) -> U64:
        """What ``kind`` reads at every padded place it fits in."""
        length = max(0, len(padded[kind[0][0]]) - max(o for _, o in kind))
        key = np.zeros(length, np.uint64)
        for name, o in kind:
            key = mix(key + _STEP * (padded[name][o : o + length] + np.uint64(1)))
        return key

    def count(self, places: Places, learned: Mapping[str, U64], *, min_count: int, size_max: int) -> Contexts:
        """The same templates with the readings that stand at ``min_count`` places at least (three forms together: one more); more are asked for until ``size_max`` rows suffice."""
        padded, _ = self._pad(places, learned)
        counts = [np.unique(self._hash(kind, padded), return_counts=True) for kind in self.kinds]
        least = min_count
        while True:
            known = [keys[times >= least + (len(kind) == 3 and kind[0][0] == "form")] for kind, (keys, times) in zip(self.kinds, counts, strict=True)]
            kept = Contexts(self.templates, known)
            if len(kept) <= size_max:
                return kept
            least += 1

    def heard(self, weights: npt.NDArray[np.float16]) -> tuple[Contexts, npt.NDArray[np.float16]]:
        """The same templates with only the readings that some template gives a weight, and their weights: what answers alike and holds less.

        Args:
            weights: shape (len(self), L).
        """
        kept = [np.zeros(len(index), np.bool_) for index in self.known]
        for (kind, _), a, b in zip(self._where, self.first[:-1].tolist(), self.first[1:].tolist(), strict=True):
            kept[kind] |= weights[a:b].any(axis=1)
        rows = np.concatenate([[True], *(kept[kind] for kind, _ in self._where)])
        return Contexts(self.templates, [index.keys[on] for index, on in zip(self.known, kept, strict=True)]), weights[rows]

    def windows(self, places: Places, learned: Mapping[str, U64]) -> Windows:
        """The rows that speak at each place.

        Args:
            places: of the texts.
            learned: channels that are not read from the text alone.

        Cost: about 0.5 microseconds per place.
        """
        padded, at = self._pad(places, learned)
        rows = np.zeros((len(places), len(self.templates)), np.int32)
        if available():
            self._look(padded, at, rows)
            return Windows(rows, places.starts)
        found = [index.rows(self._hash(kind, padded)) for kind, index in zip(self.kinds, self.known, strict=True)]
        for t, (kind, first) in enumerate(self._where):
            row = found[kind][at + first]
            rows[:, t] = np.where(row >= 0, row + np.int32(self.first[t]), np.int32(0))
        return Windows(rows, places.starts)

    def _look(self, padded: Mapping[str, U64], at: I64, rows: npt.NDArray[np.int32]) -> None:
        """Fill ``rows`` by the compiled loops."""
        from .lookup import find, spread

        names = sorted(padded)
        channels, found = np.stack([padded[name] for name in names]), np.zeros(0, np.int32)
        done = -1
        for k, first, t in sorted((k, first, t) for t, (k, first) in enumerate(self._where)):
            kind, index = self.kinds[k], self.known[k]
            if k != done:
                found, done = np.empty(max(0, channels.shape[1] - max(o for _, o in kind)), np.int32), k
                which, offsets = np.array([names.index(name) for name, _ in kind]), np.array([o for _, o in kind])
                find(channels, which, offsets, index.keys, index.first, index.shift, found)
            spread(found, at, first, int(self.first[t]), rows, t)
