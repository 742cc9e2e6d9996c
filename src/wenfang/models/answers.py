"""What every family does alike at its two ends: the labels of a training set, and probabilities turned into answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Output

__all__ = ["classified", "holding", "several", "trainable_labels"]


def trainable_labels(train: Examples) -> list[str]:
    """The sorted labels of ``train``; none for tasks without labels (graded pairs, embedding, generation, chat).

    Raises:
        Invalid: `model.no-examples`; `model.too-few-labels` (classification and matching need two, multilabel and tagging one).
    """
    if not len(train):
        raise Invalid("model.no-examples")
    labels = train.label_names()
    needed = 0 if train.task in {"embedding", "generation", "chat"} or train.grades else 1 if train.task in {"tagging", "multilabel"} else 2
    if len(labels) < needed:
        raise Invalid("model.too-few-labels", found=len(labels), needed=needed)
    return labels


def classified(labels: Sequence[str], probabilities: npt.NDArray[np.floating], top_k: int = 1) -> list[Output]:
    """One answer for each row; equal probabilities go to the label that comes first.

    Args:
        labels: L names.
        probabilities: shape (B, L), rows sum to at most 1.
        top_k: how many labels go into ``Output.scores``; 1 leaves it out.
    """
    if top_k <= 1:
        best = probabilities.argmax(axis=1)
        score = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
        pairs: Iterable[tuple[int, float]] = zip(best.tolist(), score.tolist(), strict=True)
        return [Output(label=labels[i], score=min(1.0, s)) for i, s in pairs]
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    ranked = np.take_along_axis(probabilities, order, axis=1)
    answers: list[Output] = []
    rows: Iterable[tuple[list[int], list[float]]] = zip(order.tolist(), ranked.tolist(), strict=True)
    for row, scores in rows:
        named = {labels[i]: min(1.0, s) for i, s in zip(row, scores, strict=True)}
        answers.append(Output(label=labels[row[0]], score=min(1.0, scores[0]), scores=named))
    return answers


def holding(labels: Sequence[str], sets: Sequence[Iterable[str]]) -> npt.NDArray[np.bool_]:
    """Which labels hold, shape (n, L); labels that are not known are left out.

    Args:
        labels: L names.
        sets: n.
    """
    number = {label: i for i, label in enumerate(labels)}
    found = np.zeros((len(sets), len(labels)), np.bool_)
    for row, names in enumerate(sets):
        found[row, [number[name] for name in names if name in number]] = True
    return found


def several(labels: Sequence[str], probabilities: npt.NDArray[np.floating], threshold: float, top_k: int = 1) -> list[Output]:
    """For each row the labels at or above the threshold, most probable first; the score is the probability of the least sure decision.

    Args:
        labels: L names.
        probabilities: each on its own, shape (B, L).
        threshold: from 0 to 1.
        top_k: how many labels go into ``Output.scores``; 1 leaves it out.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    least = np.where(probabilities >= threshold, probabilities, 1 - probabilities).min(axis=1)
    answers: list[Output] = []
    rows: Iterable[tuple[list[int], list[float], float]] = zip(order.tolist(), ranked.tolist(), least.tolist(), strict=True)
    for row, scores, score in rows:
        said = tuple(labels[i] for i, s in zip(row, scores, strict=True) if s >= threshold)
        named = {labels[i]: min(1.0, s) for i, s in zip(row[:top_k], scores[:top_k], strict=True)} if top_k > 1 else None
        answers.append(Output(labels=said, score=min(1.0, score), scores=named))
    return answers
