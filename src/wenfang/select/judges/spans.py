"""Judging spans: found exactly or not at all. Knows nothing of files, budgets or other models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wenfang.core.examples import Examples, Output, Span
from wenfang.select.evaluation import Evaluation, confidences, error_rows, reliability_of
from wenfang.select.metrics import span_counts, span_rows, summary
from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts

__all__ = ["spans"]


def spans(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    """Strict span F1, with types and the share of texts that are wholly right beside it."""
    said = [o.spans for o in answers]
    rows = span_counts(examples.spans, said)
    counts = Counts("span_f1", rows)
    head = interval(counts, resamples=resamples, seed=seed)
    classes = span_rows(examples.spans, said)
    whole = (rows[:, 0] == rows[:, 1]) & (rows[:, 0] == rows[:, 2])
    figures = {**summary(classes), "exact_texts": float(whole.mean()) if len(rows) else 0.0}
    confidence = confidences(answers)
    ece, bins = reliability_of(confidence, whole)
    wrong = np.flatnonzero(~whole)
    order = wrong if confidence is None else wrong[np.argsort(-confidence[wrong], kind="stable")]
    errors = error_rows(order.tolist(), examples, gold=[_told(s) for s in examples.spans], said=[_told(s or ()) for s in said], score=[o.score for o in answers])
    return Evaluation(
        "tagging", "span_f1", len(examples), head.score, head.low, head.high, counts, figures, classes, None, ece, bins, errors, len(wrong), not any(said), whole, confidence
    )


def _told(found: Sequence[Span]) -> str:
    return " ".join(f"{s.start}-{s.end}:{s.label}" for s in found)
