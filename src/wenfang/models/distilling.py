"""What a teacher knows, as examples that any family can learn from.

A cross-entropy against shares is the same as weighted examples, one for each label that has a share; so a family that honours
weights learns from a teacher without knowing of it. Unlabelled texts get the teacher's own answers, weighted by how sure it is. Knows
nothing of the student.
Source: Hinton et al. 2015, section 2; Kim and Rush 2016 (sequence-level, for generated texts).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Output, ask
from wenfang.core.ports import Progress, Quiet

from .base import Model

__all__ = ["SHARE_MIN", "taught"]

SHARE_MIN = 0.05
"""Smaller shares of a label are given to the others: they would only make the set long."""
SURE_MIN = 0.5
"""Unlabelled texts the teacher is less sure of are left out."""
BATCH = 1000
Floats = npt.NDArray[np.floating]


def taught(train: Examples, teacher: Model, *, unlabelled: Sequence[str] = (), share: float = 0.5, sure_min: float = SURE_MIN, progress: Progress | None = None) -> Examples:
    """``train`` with the teacher's opinion in it, and ``unlabelled`` with its answers.

    Args:
        train: n labelled examples; those of tagging and generation stay as they are.
        teacher: a model of the same task that knows every label of ``train``.
        unlabelled: m texts; exact repetitions and texts of ``train`` are left out.
        share: of the teacher's probabilities in the target of a labelled example; the rest is the label's.
        sure_min: the teacher's score that an unlabelled text needs.
        progress: told as it goes.

    Returns:
        At least as many examples as ``train``, with weights.

    Raises:
        Invalid: `distil.tasks-differ`, `distil.labels-unknown`, `distil.no-pairs`.

    Cost: one pass of the teacher over all texts.
    """
    if teacher.task != train.task:
        raise Invalid("distil.tasks-differ", teacher=teacher.task, train=train.task)
    if unknown := sorted(set(train.label_names()) - set(teacher.labels_)):
        raise Invalid("distil.labels-unknown", labels=unknown[:10])
    if unlabelled and train.texts_b:
        raise Invalid("distil.no-pairs")
    watched = progress or Quiet()
    known = set(train.texts)
    fresh = [t for t in dict.fromkeys(unlabelled) if t not in known]
    watched.stage("teach", len(train) + len(fresh), "texts")
    whole = _softened(train, teacher, share, watched) if train.labels and share > 0 else _weighted(train)
    for start in range(0, len(fresh), BATCH):
        texts = fresh[start : start + BATCH]
        answered = _answered(Examples(train.task, texts), teacher, sure_min)
        if len(answered):
            whole = whole + answered
        watched.advance(len(texts))
    return whole


def _weighted(examples: Examples) -> Examples:
    """The examples with their weights written out."""
    columns = examples.columns()
    columns["weights"] = examples.weights or [1.0] * len(examples)
    columns["ids"] = columns["groups"] = []
    return Examples(examples.task, **columns)


def _softened(train: Examples, teacher: Model, share: float, progress: Progress) -> Examples:
    """Every labelled example once for each label that has a share in its target."""
    place = {label: i for i, label in enumerate(teacher.labels_)}
    rows: list[int] = []
    labels: list[str] = []
    weights: list[float] = []
    for start in range(0, len(train), BATCH):
        part = train.take(range(start, min(start + BATCH, len(train))))
        target = share * teacher.probabilities(part.texts, part.texts_b).astype(np.float64)
        own = np.array([place[label] for label in part.labels])
        target[np.arange(len(part)), own] += 1 - share
        for row, line in enumerate(_kept(target)):
            worth = train.weights[start + row] if train.weights else 1.0
            for column in np.flatnonzero(line).tolist():
                rows.append(start + row)
                labels.append(teacher.labels_[column])
                weights.append(round(worth * float(line[column]), 6))
        progress.advance(len(part))
    told = train.take(rows)
    return Examples(train.task, told.texts, labels, texts_b=told.texts_b, weights=weights)


def _kept(target: Floats) -> Floats:
    """The targets without their crumbs, rows sum to 1 again."""
    kept = np.where(target >= SHARE_MIN, target, 0.0)
    kept[np.arange(len(target)), target.argmax(axis=1)] = target.max(axis=1)
    return kept / kept.sum(axis=1, keepdims=True)


def _answered(texts: Examples, teacher: Model, sure_min: float) -> Examples:
    """The texts with the teacher's answers, as far as it is sure of them."""
    outputs = ask(teacher, texts)
    sure = [i for i, o in enumerate(outputs) if (o.score if o.score is not None else 1.0) >= sure_min and _says_something(o)]
    chosen = [outputs[i] for i in sure]
    kept = [texts.texts[i] for i in sure]
    weights = [round(o.score if o.score is not None else 1.0, 6) for o in chosen]
    if texts.task == "tagging":
        return Examples(texts.task, kept, spans=[tuple(o.spans or ()) for o in chosen], weights=weights)
    if texts.task == "multilabel":
        return Examples(texts.task, kept, label_sets=[tuple(sorted(o.labels or ())) for o in chosen], weights=weights)
    if texts.task in {"generation", "chat"}:
        return Examples(texts.task, kept, targets=[o.text or "" for o in chosen], weights=weights)
    return Examples(texts.task, kept, labels=[o.label or "" for o in chosen], weights=weights)


def _says_something(output: Output) -> bool:
    return output.spans is not None or output.labels is not None or bool(output.label) or bool(output.text)
