"""Examples in columns: what data gives, models learn from, and selection measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import msgspec

from .conversation import spoken
from .records import Task

__all__ = ["Alternative", "Answering", "Examples", "Output", "Reply", "Span", "ask"]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A labelled piece of a text: code points ``[start, end)``."""

    start: int
    end: int
    label: str


class Alternative(msgspec.Struct, frozen=True, array_like=True):
    """One way to read a text: its spans, and the probability that these are all."""

    spans: tuple[Span, ...]
    score: float


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """A reply that was considered, with its probability or similarity."""

    text: str
    score: float


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answers for one text or pair. Each task fills its own fields; the others stay None.

    * classification: ``label``, ``score``
    * multilabel: ``labels`` (perhaps none), most probable first; ``score`` of the least sure decision
    * tagging: ``spans``, ``score`` of the whole path; perhaps ``alternatives``
    * matching: ``label`` and ``score``, or ``score`` alone when pairs are graded
    * embedding: ``vector`` for a text, ``score`` (cosine, -1..1) for a pair
    * generation, chat: ``text``, ``finish``, ``tokens_in``, ``tokens_out``; a reply library also ``replies``
    """

    label: str | None = None
    score: float | None = None
    """Probability of ``label``, of the whole path for tagging, or the grade of a pair, 0..1; cosine for embedding."""
    spans: tuple[Span, ...] | None = None
    scores: dict[str, float] | None = None
    """Best labels with their probabilities, when more than one was asked for."""
    labels: tuple[str, ...] | None = None
    span_scores: tuple[float, ...] | None = None
    """Probability of each span."""
    alternatives: tuple[Alternative, ...] | None = None
    """Ways to read the text, when more than one was asked for: ``spans``, then the likeliest others, best first."""
    vector: bytes | None = None
    """H little-endian float32, length one."""
    text: str | None = None
    replies: tuple[Reply, ...] | None = None
    """Best first."""
    finish: str | None = None
    """Why generation ended: ``stop`` or ``length``; ``none`` when no reply is good enough."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural logarithm of the probability of each generated token."""


@dataclass(frozen=True, slots=True)
class Examples:
    """n labelled texts of one task, in columns of equal length; a column that the task does not need is empty."""

    task: Task
    texts: list[str]
    """For chat the conversation so far, see ``core/conversation.py``."""
    labels: list[str] = field(default_factory=list[str])
    """Classification and matching in classes: one label each."""
    spans: list[tuple[Span, ...]] = field(default_factory=list[tuple[Span, ...]])
    """Tagging: sorted, not overlapping."""
    ids: list[str] = field(default_factory=list[str])
    groups: list[str] = field(default_factory=list[str])
    """Examples of one group (a customer, a document) never stand on both sides of a split; may be empty."""
    texts_b: list[str] = field(default_factory=list[str])
    """Matching, and embedding learned from pairs: the second text."""
    label_sets: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """Multilabel: sorted, without repetition, perhaps empty."""
    grades: list[float] = field(default_factory=list[float])
    """Graded pairs: how alike, 0..1; empty when pairs have labels."""
    targets: list[str] = field(default_factory=list[str])
    """Generation and chat: the text that should come."""
    weights: list[float] = field(default_factory=list[float])
    """How much each counts in learning, above 0; empty: all 1."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Examples:
        """The examples at ``rows``, in that order."""
        return Examples(self.task, **{name: [column[i] for i in rows] if column else [] for name, column in self.columns().items()})

    def __add__(self, other: Examples) -> Examples:
        mine, theirs = self.columns(), other.columns()
        if bool(self.weights) != bool(other.weights):
            mine["weights"], theirs["weights"] = self.weights or [1.0] * len(self), other.weights or [1.0] * len(other)
        return Examples(self.task, **{name: mine[name] + theirs[name] for name in mine})

    def columns(self) -> dict[str, list[Any]]:
        """Every column by name, empty ones too."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "task"}

    def questions(self) -> list[str]:
        """What is asked of each example as one text: two examples with the same one are duplicates."""
        if self.task == "chat":
            return list(map(spoken, self.texts))
        return [f"{a}\x1f{b}" for a, b in zip(self.texts, self.texts_b, strict=True)] if self.texts_b else self.texts

    def label_names(self) -> list[str]:
        """Every label that occurs, sorted."""
        if self.task == "tagging":
            return sorted({s.label for spans in self.spans for s in spans})
        if self.task == "multilabel":
            return sorted({label for labels in self.label_sets for label in labels})
        return sorted(set(self.labels))

    def batches(self, size: int) -> Iterator[Examples]:
        """Consecutive slices of at most ``size``."""
        for start in range(0, len(self), size):
            yield self.take(range(start, min(start + size, len(self))))


class Answering(Protocol):
    """What answers texts and pairs: a model, or a replica of one."""

    def predict(self, texts: Sequence[str], /) -> list[Output]:
        """One answer for each text, in order."""
        ...

    def match(self, texts: Sequence[str], texts_b: Sequence[str], /) -> list[Output]:
        """One answer for each pair, in order."""
        ...


def ask(model: Answering, examples: Examples) -> list[Output]:
    """What ``model`` answers to the questions of ``examples``: pairs where there are pairs."""
    return model.match(examples.texts, examples.texts_b) if examples.texts_b else model.predict(examples.texts)
