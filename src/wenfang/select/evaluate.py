"""Evaluation of one model on labelled examples: score with interval, tables, and the counts that paired tests need.

Knows nothing of files, budgets or other models. Texts never enter an evaluation: rows of errors name the example, not its words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from wenfang.core.errors import Broken
from wenfang.core.examples import Answering, Examples, Output, ask
from wenfang.core.ports import Progress, Quiet
from wenfang.core.records import Task
from wenfang.stats.bootstrap import RESAMPLES, interval
from wenfang.stats.scores import Counts, Metric

from .metrics import HEADLINE, Bin, ClassRow, Confusion, calibration, class_numbers, class_rows, confusion, span_counts, span_rows, summary

__all__ = ["ErrorRow", "Evaluation", "evaluate", "predict_all"]

BATCH = 256
MACRO_RESAMPLES = 2000
"""Macro-F1 costs more per resample and is shown beside the headline only."""
ERRORS_KEPT = 200


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A wrong answer: which example, what stands there, what was said."""

    row: int
    id: str
    gold: str
    predicted: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one model did on n examples."""

    task: Task
    metric: Metric
    n: int
    score: float
    low: float
    high: float
    counts: Counts
    """Of the headline metric, one row per example: what paired tests work on."""
    figures: dict[str, Any]
    """Macro- and micro-averages with ``macro_f1_low``, ``macro_f1_high`` for classification."""
    classes: list[ClassRow]
    confusion: Confusion | None
    ece: float | None
    bins: list[Bin]
    errors: list[ErrorRow] = field(default_factory=list[ErrorRow])
    """The most confident first, at most 200."""
    errors_n: int = 0
    constant: bool = False
    """Every answer was the same: nothing was learned from the texts."""

    def headline(self) -> dict[str, float]:
        """Score and interval."""
        return {"score": self.score, "low": self.low, "high": self.high}

    def document(self, *, classes_max: int = 10_000) -> dict[str, Any]:
        """Everything but the counts, as plain values."""
        return {
            "metric": self.metric, "n": self.n, **self.headline(), **self.figures, "ece": self.ece, "bins": [asdict(b) for b in self.bins],
            "per_class": [asdict(c) for c in self.classes[:classes_max]], "confusion": asdict(self.confusion) if self.confusion else None,
            "errors": [asdict(e) for e in self.errors], "errors_n": self.errors_n,
        }  # fmt: skip


def predict_all(model: Answering, examples: Examples, *, progress: Progress | None = None, batch: int = BATCH) -> list[Output]:
    """Answers to all examples, in batches, so that progress can be told and work cancelled.

    Raises:
        Broken: `select.answers-missing` when the model gave another number of answers than there were texts.
    """
    watched = progress or Quiet()
    outputs: list[Output] = []
    for part in examples.batches(batch):
        outputs += ask(model, part)
        watched.advance(0, predicted=len(outputs))
    if len(outputs) != len(examples):
        raise Broken("select.answers-missing", texts_n=len(examples), answers_n=len(outputs))
    return outputs


def evaluate(outputs: Answering | Sequence[Output], examples: Examples, *, resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """Judge answers (or the model that gives them) on labelled examples.

    Args:
        outputs: n answers in the order of the examples, or something that predicts.
        examples: n labelled examples.
        resamples: of the interval.
        seed: of the resamples.

    Raises:
        Broken: `select.answers-missing`, `select.not-a-number`.
    """
    answers = list(outputs) if isinstance(outputs, Sequence) else predict_all(outputs, examples)
    if len(answers) != len(examples):
        raise Broken("select.answers-missing", texts_n=len(examples), answers_n=len(answers))
    if any(o.score is not None and not math.isfinite(o.score) for o in answers):
        raise Broken("select.not-a-number", metric="score")
    return (_classified if examples.task == "classification" else _tagged)(answers, examples, resamples, seed)


def _classified(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    predicted = [o.label for o in answers]
    labels, numbers = class_numbers(examples.labels, predicted)
    correct = numbers[:, 0] == numbers[:, 1]
    counts = Counts("accuracy", correct.astype(np.int64)[:, None])
    head = interval(counts, resamples=resamples, seed=seed)
    macro = interval(Counts("macro_f1", numbers), resamples=min(resamples, MACRO_RESAMPLES), seed=seed)
    rows = class_rows(labels, numbers)
    figures = {**summary(rows, total=len(examples)), "macro_f1": macro.score, "macro_f1_low": macro.low, "macro_f1_high": macro.high}
    sure = np.array([0.0 if o.score is None else o.score for o in answers])
    ece, bins = calibration(sure, correct) if answers and all(o.score is not None for o in answers) else (None, [])
    wrong = np.flatnonzero(~correct)
    errors = _errors(wrong[np.argsort(-sure[wrong], kind="stable")].tolist(), answers, examples, examples.labels, [p or "" for p in predicted])
    return Evaluation(
        "classification", HEADLINE["classification"], len(examples), head.score, head.low, head.high, counts, figures, rows,
        confusion(labels, numbers), ece, bins, errors, len(wrong), len(set(predicted)) <= 1,
    )  # fmt: skip


def _tagged(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    predicted = [o.spans for o in answers]
    rows = span_counts(examples.spans, predicted)
    counts = Counts("span_f1", rows)
    head = interval(counts, resamples=resamples, seed=seed)
    classes = span_rows(examples.spans, predicted)
    whole = (rows[:, 0] == rows[:, 1]) & (rows[:, 0] == rows[:, 2])
    figures = {**summary(classes), "exact_texts": float(whole.mean()) if len(rows) else 0.0}
    sure = np.array([0.0 if o.score is None else o.score for o in answers])
    ece, bins = calibration(sure, whole) if answers and all(o.score is not None for o in answers) else (None, [])
    wrong = np.flatnonzero(~whole)
    shown = [_told(s) for s in examples.spans], [_told(p or ()) for p in predicted]
    errors = _errors(wrong[np.argsort(-sure[wrong], kind="stable")].tolist(), answers, examples, *shown)
    constant = not any(predicted)
    return Evaluation("tagging", HEADLINE["tagging"], len(examples), head.score, head.low, head.high, counts, figures, classes, None, ece, bins, errors, len(wrong), constant)


def _told(spans: Sequence[Any]) -> str:
    return " ".join(f"{s.start}-{s.end}:{s.label}" for s in spans)


def _errors(rows: list[int], answers: Sequence[Output], examples: Examples, gold: Sequence[str], predicted: Sequence[str]) -> list[ErrorRow]:
    return [ErrorRow(i, examples.ids[i] if examples.ids else "", gold[i], predicted[i], answers[i].score) for i in rows[:ERRORS_KEPT]]
