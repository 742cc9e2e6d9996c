"""Examples in columns: what data gives, models learn from, and selection measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from .records import Task

__all__ = ["Examples", "Output", "Span"]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A labelled piece of a text: code points ``[start, end)``."""

    start: int
    end: int
    label: str


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answers for one text. Classification fills ``label`` and ``score``; tagging fills ``spans``."""

    label: str | None = None
    score: float | None = None
    """Probability of ``label``, or of the whole path for tagging, 0..1."""
    spans: tuple[Span, ...] | None = None
    scores: dict[str, float] | None = None
    """Best labels with their probabilities, when more than one was asked for."""


@dataclass(frozen=True, slots=True)
class Examples:
    """n labelled texts of one task, in columns of equal length."""

    task: Task
    texts: list[str]
    labels: list[str] = field(default_factory=list[str])
    """Classification: one label each; empty for tagging."""
    spans: list[tuple[Span, ...]] = field(default_factory=list[tuple[Span, ...]])
    """Tagging: sorted, not overlapping; empty for classification."""
    ids: list[str] = field(default_factory=list[str])
    groups: list[str] = field(default_factory=list[str])
    """Examples of one group (a customer, a document) never stand on both sides of a split; may be empty."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Examples:
        """The examples at ``rows``, in that order."""

        def pick(column: list[str]) -> list[str]:
            return [column[i] for i in rows] if column else []

        return Examples(self.task, pick(self.texts), pick(self.labels), [self.spans[i] for i in rows] if self.spans else [], pick(self.ids), pick(self.groups))

    def __add__(self, other: Examples) -> Examples:
        return Examples(self.task, self.texts + other.texts, self.labels + other.labels, self.spans + other.spans, self.ids + other.ids, self.groups + other.groups)

    def label_names(self) -> list[str]:
        """Every label that occurs, sorted."""
        return sorted(set(self.labels) if self.task == "classification" else {s.label for spans in self.spans for s in spans})

    def batches(self, size: int) -> Iterator[Examples]:
        """Consecutive slices of at most ``size``."""
        for start in range(0, len(self), size):
            yield self.take(range(start, min(start + size, len(self))))
