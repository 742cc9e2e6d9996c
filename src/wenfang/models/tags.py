"""BIOES tags: how spans of a text become one tag for each code point and back, and the order a chain computes them in. Knows nothing of how they are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Invalid
from wenfang.core.examples import Span

__all__ = ["Layout", "TagSet"]

OUTSIDE, BEGIN, INSIDE, END, SINGLE = range(5)
PREFIX = "OBIES"


@dataclass(frozen=True)
class TagSet:
    """The tags of some labels: ``0`` is O, then B, I, E, S of each label in order.

    Args:
        labels: n names of span labels.
    """

    labels: tuple[str, ...]

    def __len__(self) -> int:
        return 1 + 4 * len(self.labels)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """``O B-x I-x E-x S-x …``."""
        return ("O", *(f"{PREFIX[kind]}-{label}" for label in self.labels for kind in (BEGIN, INSIDE, END, SINGLE)))

    def encode(self, spans: Sequence[Span], length: int) -> npt.NDArray[np.int32]:
        """The tags of a text of ``length`` code points, shape (T,).

        Raises:
            Invalid: `model.bad-span` (outside the text, empty, overlapping), `model.unknown-label`.

        >>> TagSet(("LOC",)).encode([Span(1, 3, "LOC")], 4).tolist()
        [0, 1, 3, 0]
        """
        self.check(spans, length)
        tags = np.zeros(length, np.int32)
        for span in spans:
            base = self._base[span.label]
            if span.end - span.start == 1:
                tags[span.start] = base + SINGLE
            else:
                tags[span.start : span.end] = base + INSIDE
                tags[span.start] = base + BEGIN
                tags[span.end - 1] = base + END
        return tags

    def check(self, spans: Sequence[Span], length: int) -> None:
        """Whether ``spans`` fit a text of ``length`` code points.

        Raises:
            Invalid: `model.bad-span` (outside the text, empty, overlapping), `model.unknown-label`.
        """
        free = 0
        for span in sorted(spans, key=lambda s: s.start):
            if not free <= span.start < span.end <= length:
                raise Invalid("model.bad-span", start=span.start, end=span.end, length=length)
            if span.label not in self._base:
                raise Invalid("model.unknown-label", label=span.label)
            free = span.end

    def decode(self, tags: Sequence[int] | npt.NDArray[np.integer]) -> tuple[Span, ...]:
        """The spans of a tag sequence, illegal sequences read leniently: an I or E without a beginning opens a span, a broken one ends where it breaks.

        >>> TagSet(("LOC",)).decode([0, 1, 3, 4])
        (Span(start=1, end=3, label='LOC'), Span(start=3, end=4, label='LOC'))
        """
        spans: list[Span] = []
        row = np.asarray(tags, np.int64)
        open_label, open_at, last = -1, 0, -2
        for i in np.flatnonzero(row).tolist():  # most of a text is outside: only tagged positions are visited
            label, kind = divmod(int(row[i]) - 1, 4)
            kind += 1
            if open_label >= 0 and (i != last + 1 or kind in {BEGIN, SINGLE} or label != open_label):
                spans.append(Span(open_at, last + 1, self.labels[open_label]))
                open_label = -1
            if open_label < 0:
                open_label, open_at = label, i
            last = i
            if kind in {END, SINGLE}:
                spans.append(Span(open_at, i + 1, self.labels[label]))
                open_label = -1
        if open_label >= 0:
            spans.append(Span(open_at, last + 1, self.labels[open_label]))
        return tuple(spans)

    @cached_property
    def legal(self) -> npt.NDArray[np.bool_]:
        """Which tag may follow which, shape (L, L): row = before, column = after."""
        kind, label = self._kinds, self._label_of
        opens = (kind == BEGIN) | (kind == INSIDE)
        continues = (kind == INSIDE) | (kind == END)
        same = label[:, None] == label[None, :]
        return (opens[:, None] & continues[None, :] & same) | (~opens[:, None] & ~continues[None, :])

    @cached_property
    def legal_start(self) -> npt.NDArray[np.bool_]:
        """Which tags may stand first, shape (L,)."""
        return (self._kinds != INSIDE) & (self._kinds != END)

    @cached_property
    def legal_end(self) -> npt.NDArray[np.bool_]:
        """Which tags may stand last, shape (L,)."""
        return (self._kinds != INSIDE) & (self._kinds != BEGIN)

    @cached_property
    def _base(self) -> dict[str, int]:
        return {label: 4 * i for i, label in enumerate(self.labels)}

    @cached_property
    def _kinds(self) -> npt.NDArray[np.int64]:
        return np.array([OUTSIDE] + [BEGIN, INSIDE, END, SINGLE] * len(self.labels))

    @cached_property
    def _label_of(self) -> npt.NDArray[np.int64]:
        return np.array([-1] + [i for i in range(len(self.labels)) for _ in range(4)])


@dataclass(frozen=True)
class Layout:
    """Tags in the order a chain computes in: those that begin a span, the outside, singles, those that end one, those inside one.

    What may stand first are then the tags below the first edge, what may stand last those from the second edge to the third, and
    between spans any of these follows any of those.

    Args:
        tags: their numbers in the tag set, shape (L,).
        edges: the three edges.
        before: the two tags that may stand before each inside a span, shape (L, 2); itself where there is none.
        legal: which may follow which, shape (L, L).
    """

    tags: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    legal: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tag_set: TagSet, used: npt.NDArray[np.integer]) -> Layout:
        """The layout of the tags in use; outside is always one of them.

        >>> Layout.of(TagSet(("LOC",)), np.arange(5)).tags.tolist()
        [1, 0, 4, 3, 2]
        """
        kept = np.union1d(np.asarray(used, np.int64), [OUTSIDE])
        kind = np.where(kept == OUTSIDE, OUTSIDE, (kept - 1) % 4 + 1)
        groups = [kept[np.isin(kind, kinds)] for kinds in ((BEGIN,), (OUTSIDE, SINGLE), (END,), (INSIDE,))]
        tags = np.concatenate(groups)
        closes, opens = len(groups[0]), len(groups[0]) + len(groups[1])
        inner, place = opens + len(groups[2]), {int(tag): i for i, tag in enumerate(tags)}
        before = np.repeat(np.arange(len(tags))[:, None], 2, axis=1)
        for j in range(opens, len(tags)):
            base = (int(tags[j]) - 1) // 4 * 4
            found = [place[base + kind] for kind in (BEGIN, INSIDE) if base + kind in place]
            before[j, : len(found)] = found
        return cls(tags, np.array([opens, closes, inner]), before, np.ascontiguousarray(tag_set.legal[np.ix_(tags, tags)]))

    def place_of(self, size: int) -> npt.NDArray[np.int32]:
        """The place in this layout of each of ``size`` tags; -1 where it is not in use."""
        place = np.full(size, -1, np.int32)
        place[self.tags] = np.arange(len(self.tags))
        return place

    @cached_property
    def after(self) -> npt.NDArray[np.int64]:
        """The inside and the end of the label of each tag that begins a span, shape (L, 2); -1 where that is not in use.

        >>> Layout.of(TagSet(("LOC",)), np.arange(5)).after.tolist()[0]
        [4, 3]
        """
        found = np.full((len(self.tags), 2), -1, np.int64)
        place = {int(tag): i for i, tag in enumerate(self.tags)}
        for j, tag in enumerate(self.tags[: self.edges[1]].tolist()):
            found[j] = [place.get(tag + step, -1) for step in (INSIDE - BEGIN, END - BEGIN)]
        return found

    @property
    def first(self) -> npt.NDArray[np.float64]:
        """1 where a tag may stand first, shape (L,)."""
        return (np.arange(len(self.tags)) < self.edges[0]).astype(np.float64)

    @property
    def last(self) -> npt.NDArray[np.float64]:
        """1 where a tag may stand last, shape (L,)."""
        at = np.arange(len(self.tags))
        return ((at >= self.edges[1]) & (at < self.edges[2])).astype(np.float64)
