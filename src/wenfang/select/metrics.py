"""Metrics of answers against labels, in the field's standard definitions. Knows nothing of models, time or files.

Classification: accuracy, macro- and micro-F1, per class precision, recall, F1. Tagging: strict span F1 (a span counts when both
boundaries and the type are exactly right), as seqeval's strict mode gives on BIOES tags made from the same spans.
Multilabel: micro- and macro-F1 over label decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from wenfang.core.examples import Span
from wenfang.stats.scores import Ints

__all__ = ["OTHER", "ClassRow", "Confusion", "class_numbers", "class_rows", "confusion", "set_counts", "set_rows", "span_counts", "span_rows", "summary"]

M = TypeVar("M", bound=Hashable)
OTHER = "…"
"""Stands for all labels below the ones shown in a confusion matrix."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class (or span type) of the per-class table."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """How often it stands in the gold."""
    predicted: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts ``cells[gold][predicted]`` of the most frequent classes; the last row and column gather all others."""

    labels: list[str]
    cells: list[list[int]]


def class_numbers(gold: Sequence[str], predicted: Sequence[str | None]) -> tuple[list[str], Ints]:
    """All labels seen, sorted, and (n, 2) numbers of gold and predicted label; -1: no answer."""
    labels = sorted(set(gold) | {p for p in predicted if p is not None})
    number: dict[str | None, int] = {label: i for i, label in enumerate(labels)}
    rows = [(number[g], number.get(p, -1)) for g, p in zip(gold, predicted, strict=True)]
    return labels, np.array(rows, np.int64).reshape(-1, 2)


def _row(label: str, hit: int, predicted: int, gold: int) -> ClassRow:
    return ClassRow(label, hit / predicted if predicted else 0.0, hit / gold if gold else 0.0, 2 * hit / (predicted + gold) if predicted + gold else 0.0, gold, predicted)


def class_rows(labels: Sequence[str], numbers: Ints) -> list[ClassRow]:
    """Precision, recall and F1 of every class, the most frequent in the gold first.

    Args:
        labels: names, by number.
        numbers: (n, 2) of ``class_numbers``.

    Cost: O(n + classes).
    """
    gold, predicted = numbers.T
    counts = [np.bincount(column[column >= 0], minlength=len(labels)).tolist() for column in (gold[gold == predicted], predicted, gold)]
    rows = [_row(label, *cells) for label, *cells in zip(labels, *counts, strict=True)]
    return sorted(rows, key=lambda r: (-r.support, r.label))


def confusion(labels: Sequence[str], numbers: Ints, *, top: int = 20) -> Confusion:
    """The confusion matrix of the ``top`` classes most frequent in the gold; bounded however many classes there are."""
    support = np.bincount(numbers[:, 0], minlength=len(labels)) if len(numbers) else np.zeros(len(labels), np.int64)
    shown = np.argsort(-support, kind="stable")[:top]
    place = np.full(len(labels) + 1, len(shown), np.int64)  # the last one is for -1, no answer
    place[shown] = np.arange(len(shown))
    size = len(shown) + 1
    cells = np.bincount(place[numbers[:, 0]] * size + place[numbers[:, 1]], minlength=size * size).reshape(size, size)
    names: list[str] = [labels[i] for i in map(int, shown)]
    if not cells[-1].any() and not cells[:, -1].any():
        return Confusion(names, cells[:-1, :-1].tolist())
    return Confusion([*names, OTHER], cells.tolist())


def span_counts(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span] | None]) -> Ints:
    """(n, 3) spans found exactly, spans predicted, spans in the gold, of each text."""
    return set_counts(gold, predicted)


def set_counts(gold: Sequence[Iterable[Hashable]], predicted: Sequence[Iterable[Hashable] | None]) -> Ints:
    """(n, 3) members found rightly, members predicted, members in the gold, of each pair of sets."""
    rows = [(len(g & p), len(p), len(g)) for g, p in ((set(g), set(p or ())) for g, p in zip(gold, predicted, strict=True))]
    return np.array(rows, np.int64).reshape(-1, 3)


def span_rows(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span] | None]) -> list[ClassRow]:
    """Precision, recall and F1 of every span type, the most frequent in the gold first."""
    return _set_rows(((set(g), set(p or ())) for g, p in zip(gold, predicted, strict=True)), lambda span: span.label)


def set_rows(gold: Sequence[Iterable[str]], predicted: Sequence[Iterable[str]]) -> list[ClassRow]:
    """Precision, recall and F1 of every label of label sets, the most frequent in the gold first."""
    return _set_rows(((set(g), set(p)) for g, p in zip(gold, predicted, strict=True)), str)


def _set_rows(pairs: Iterable[tuple[set[M], set[M]]], label_of: Callable[[M], str]) -> list[ClassRow]:
    hit, found, there = Counter[str](), Counter[str](), Counter[str]()
    for own, other in pairs:
        hit.update(map(label_of, own & other))
        found.update(map(label_of, other))
        there.update(map(label_of, own))
    return sorted((_row(label, hit[label], found[label], there[label]) for label in set(found) | set(there)), key=lambda r: (-r.support, r.label))


def summary(rows: Sequence[ClassRow], *, total: int | None = None) -> dict[str, Any]:
    """Macro- and micro-averaged figures of a per-class table.

    Args:
        rows: of ``class_rows`` or ``span_rows``.
        total: examples, for classification: adds nothing to the averages, but 0 rows of them give 0.
    """
    hits = sum(round(r.recall * r.support) for r in rows)
    predicted, gold = sum(r.predicted for r in rows), sum(r.support for r in rows)
    empty = 1.0 if total is None and not gold and not predicted else 0.0  # no spans anywhere, none predicted: perfect
    return {
        "macro_f1": sum(r.f1 for r in rows) / len(rows) if rows else empty,
        "micro_f1": 2 * hits / (predicted + gold) if predicted + gold else empty,
        "precision": hits / predicted if predicted else empty,
        "recall": hits / gold if gold else empty,
        "classes": len(rows),
    }
