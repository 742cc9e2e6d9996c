"""The metric a selection chooses by, where the user wants another than the task's own: moderation wants macro-F1, a long tail too.

Knows nothing of how answers came about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from wenfang.core.errors import Invalid
from wenfang.core.examples import Answering, Examples, Output
from wenfang.core.records import Task
from wenfang.stats.bootstrap import RESAMPLES, interval
from wenfang.stats.scores import Counts

from .evaluate import Evaluation, evaluate, predict_all
from .metrics import class_numbers, set_counts
from .overlap import bleu_counts, chrf_counts, rouge_counts

__all__ = ["check_metric", "judge", "metrics_for"]

Count = Callable[[Sequence[Output], Examples], Counts]


def _macro_f1(answers: Sequence[Output], examples: Examples) -> Counts:
    return Counts("macro_f1", class_numbers(examples.labels, [o.label for o in answers])[1])


def _subset_accuracy(answers: Sequence[Output], examples: Examples) -> Counts:
    rows = set_counts(examples.label_sets, [o.labels or () for o in answers])
    return Counts("subset_accuracy", ((rows[:, 0] == rows[:, 1]) & (rows[:, 0] == rows[:, 2])).astype(np.int64)[:, None])


def _rouge(name: str) -> Count:
    return lambda answers, examples: rouge_counts(examples.targets, [o.text or "" for o in answers])[name]


def _chrf(answers: Sequence[Output], examples: Examples) -> Counts:
    return chrf_counts(examples.targets, [o.text or "" for o in answers])


def _bleu(answers: Sequence[Output], examples: Examples) -> Counts:
    return bleu_counts(examples.targets, [o.text or "" for o in answers])


_LABELS: Mapping[str, Count | None] = {"accuracy": None, "macro_f1": _macro_f1}
_TEXTS: Mapping[str, Count | None] = {"rouge_l": None, "rouge_1": _rouge("rouge_1"), "rouge_2": _rouge("rouge_2"), "chrf": _chrf, "bleu": _bleu}
_METRICS: Mapping[Task, Mapping[str, Count | None]] = {
    "classification": _LABELS,
    "matching": _LABELS,
    "multilabel": {"micro_f1": None, "subset_accuracy": _subset_accuracy},
    "tagging": {"span_f1": None},
    "generation": _TEXTS,
    "chat": {**_TEXTS, "chrf": None, "rouge_l": _rouge("rouge_l")},
}
"""By task, the metrics one can choose by; None: what ``evaluate`` leads with."""


def metrics_for(examples: Examples) -> list[str]:
    """The metrics one can choose by on such examples; the first is the default."""
    if examples.grades or examples.task not in _METRICS:
        return ["spearman"]
    found = _METRICS[examples.task]
    return sorted(found, key=lambda name: found[name] is not None)


def check_metric(metric: str | None, examples: Examples) -> None:
    """Raises Invalid: `select.unknown-metric`."""
    known = metrics_for(examples)
    if metric is not None and metric not in known:
        raise Invalid("select.unknown-metric", metric=metric, task=examples.task, known=known)


def judge(outputs: Answering | Sequence[Output], examples: Examples, *, metric: str | None = None, resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """``evaluate`` with the wanted metric at its head; what led before stands among the figures.

    Args:
        outputs: n answers, or something that predicts.
        examples: n labelled examples.
        metric: of ``metrics_for``; None: the task's own.
        resamples: of the intervals.
        seed: of the resamples.

    Raises:
        Broken: `select.answers-missing`, `select.not-a-number`.
    """
    answers = list(outputs) if isinstance(outputs, Sequence) else predict_all(outputs, examples)
    found = evaluate(answers, examples, resamples=resamples, seed=seed)
    count = None if metric in {None, found.metric} or metric is None else _METRICS[examples.task][metric]
    if count is None:
        return found
    counts = count(answers, examples)
    head = interval(counts, resamples=resamples, seed=seed)
    former = {found.metric: found.score, f"{found.metric}_low": found.low, f"{found.metric}_high": found.high}
    return replace(found, metric=counts.metric, score=head.score, low=head.low, high=head.high, counts=counts, figures={**found.figures, **former})
