"""Judging labels: one for each text or pair, or a set of them. Knows nothing of files, budgets or other models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wenfang.core.examples import Examples, Output
from wenfang.select.evaluation import Evaluation, Rights, Shares, confidences, error_rows, figure_of, reliability_of
from wenfang.select.metrics import ClassRow, class_numbers, class_rows, confusion, set_counts, set_rows, summary
from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts, Ints

__all__ = ["one_label", "several_labels"]

HISTOGRAM_BINS = 20


def one_label(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    """Accuracy, with macro-F1, classes and confusion beside it."""
    said = [o.label for o in answers]
    labels, numbers = class_numbers(examples.labels, said)
    right = numbers[:, 0] == numbers[:, 1]
    counts = Counts("accuracy", right.astype(np.int64)[:, None])
    head = interval(counts, resamples=resamples, seed=seed)
    rows = class_rows(labels, numbers)
    figures = {**summary(rows, total=len(examples)), **figure_of(Counts("macro_f1", numbers), resamples=resamples, seed=seed)}
    confidence = confidences(answers)
    ece, bins = reliability_of(confidence, right)
    errors = error_rows(_surest(right, confidence), examples, gold=examples.labels, said=[s or "" for s in said], score=[o.score for o in answers])
    return Evaluation(
        examples.task, "accuracy", len(examples), head.score, head.low, head.high, counts, figures, rows, confusion(labels, numbers), ece, bins, errors, int((~right).sum()),
        len(set(said)) <= 1, right, confidence, picture=_histogram(rows, said, examples, confidence) if examples.task == "matching" else {},
    )  # fmt: skip


def several_labels(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    """Micro-F1 over all label decisions, with macro-F1, the share of sets that are wholly right, and classes beside it."""
    said = [o.labels or () for o in answers]
    rows = set_counts(examples.label_sets, said)
    counts = Counts("micro_f1", rows)
    head = interval(counts, resamples=resamples, seed=seed)
    right = (rows[:, 0] == rows[:, 1]) & (rows[:, 0] == rows[:, 2])
    classes = set_rows(examples.label_sets, said)
    figures = {**summary(classes), **figure_of(Counts("subset_accuracy", right.astype(np.int64)[:, None]), resamples=resamples, seed=seed), "labels_mean": _mean(rows)}
    confidence = confidences(answers)
    ece, bins = reliability_of(confidence, right)
    gold, told = ([", ".join(sorted(labels)) for labels in column] for column in (examples.label_sets, said))
    errors = error_rows(_surest(right, confidence), examples, gold=gold, said=told, score=[o.score for o in answers])
    return Evaluation(
        "multilabel", "micro_f1", len(examples), head.score, head.low, head.high, counts, figures, classes, None, ece, bins, errors, int((~right).sum()), len(set(map(frozenset, said))) <= 1,
        right, confidence,
    )  # fmt: skip


def _mean(rows: Ints) -> float:
    """Labels an answer has on average."""
    return float(rows[:, 1].mean()) if len(rows) else 0.0


def _surest(right: Rights, confidence: Shares | None) -> list[int]:
    """Wrong answers, the most confident first."""
    wrong = np.flatnonzero(~right)
    return wrong.tolist() if confidence is None else wrong[np.argsort(-confidence[wrong], kind="stable")].tolist()


def _histogram(rows: Sequence[ClassRow], said: Sequence[str | None], examples: Examples, confidence: Shares | None) -> dict[str, object]:
    """How sure the model is that a pair belongs to the rarer of two classes, for pairs of each class."""
    if len(rows) != 2 or confidence is None:
        return {}
    positive = rows[1].label  # rows are in order of frequency
    share = np.where(np.array([s == positive for s in said]), confidence, 1 - confidence)
    place = np.minimum((share * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
    by = {r.label: np.bincount(place[np.array([g == r.label for g in examples.labels])], minlength=HISTOGRAM_BINS).tolist() for r in rows}
    return {"kind": "histogram", "positive": positive, "counts": by}
