"""Evaluation of one model on labelled examples: asks it, and has its answers judged as the task demands.

Knows nothing of files, budgets or other models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from wenfang.core.errors import Broken
from wenfang.core.examples import Answering, Examples, Output, ask
from wenfang.core.ports import Progress, Quiet
from wenfang.core.records import Task
from wenfang.stats.bootstrap import RESAMPLES

from .evaluation import ErrorRow, Evaluation
from .judges.grades import grades
from .judges.labels import one_label, several_labels
from .judges.spans import spans
from .judges.texts import texts

__all__ = ["ErrorRow", "Evaluation", "evaluate", "predict_all"]

BATCH = 256
Judge = Callable[[Sequence[Output], Examples, int, int], Evaluation]
_JUDGES: dict[Task, Judge] = {
    "classification": one_label,
    "multilabel": several_labels,
    "tagging": spans,
    "matching": one_label,
    "embedding": grades,
    "generation": texts,
    "chat": texts,
}


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
        Invalid: `select.no-gold`.
    """
    answers = list(outputs) if isinstance(outputs, Sequence) else predict_all(outputs, examples)
    if len(answers) != len(examples):
        raise Broken("select.answers-missing", texts_n=len(examples), answers_n=len(answers))
    if any(o.score is not None and not math.isfinite(o.score) for o in answers):
        raise Broken("select.not-a-number", metric="score")
    judge = grades if examples.grades else _JUDGES[examples.task]
    return judge(answers, examples, resamples, seed)
