"""How well a network does on valid while it learns: one number for each task, more is better. Knows nothing of training."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Examples
from wenfang.models.ranks import rank_correlation
from wenfang.models.spans import span_f1
from wenfang.models.tags import TagSet

from .answering import Aggregate, Answerer, Run, spans_of_tokens
from .paths import Transitions
from .questions import questions_of
from .tokens import Tokens

__all__ = ["Judge", "Work", "best_threshold", "work_of"]

Floats = npt.NDArray[np.floating]


class Work(Protocol):
    """What a network of some task gives."""

    labels: list[str]
    sigmoid: bool
    """Each output is a probability of its own; else they share one."""
    tags: TagSet | None
    outputs: int


class _Work:
    def __init__(self, labels: list[str], *, sigmoid: bool, tags: TagSet | None) -> None:
        self.labels, self.sigmoid, self.tags = labels, sigmoid, tags
        self.outputs = len(tags) if tags is not None else max(1, len(labels))


def work_of(task: str, labels: list[str]) -> Work:
    """The shape of a task's answers: tags, one of L classes, any of L labels, or a grade (no labels)."""
    return _Work(labels, sigmoid=task == "multilabel" or not labels, tags=TagSet(tuple(labels)) if task == "tagging" else None)


class Judge:
    """Scores a network on valid: accuracy, micro F1 of exact spans or labels, or rank correlation of grades.

    Args:
        valid: at least one example.
        tokens: makes numbers of texts.
        size: tokens read at once.
        work: what the network gives.
        aggregate: how windows become one answer.
    """

    def __init__(self, valid: Examples, tokens: Tokens, size: int, work: Work, aggregate: Aggregate) -> None:
        self.valid = valid
        self.tokens = tokens
        self.size = size
        self.work = work
        self.aggregate: Aggregate = aggregate
        self.questions = questions_of(tokens, valid.texts, valid.texts_b, size=size)

    def part(self, at_most: int) -> Judge:
        """One of at most so many texts, evenly spread."""
        n = len(self.valid)
        rows = np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.intp)).tolist()
        return Judge(self.valid.take(rows), self.tokens, self.size, self.work, self.aggregate)

    def tokens_count(self) -> int:
        """Tokens of all texts."""
        return sum(len(e.ids) for e in self.questions.encoded)

    def __call__(self, run: Run, chain: Transitions | None, budget_tokens: int) -> float:
        """The score of the network behind ``run``."""
        answerer = Answerer(run, self.tokens, size=self.size, budget_tokens=budget_tokens)
        if chain is not None:
            return self._spans(answerer, chain)
        probabilities = answerer.probabilities(self.questions, sigmoid=self.work.sigmoid, aggregate=self.aggregate)
        if not self.work.sigmoid:
            return float((np.array(self.work.labels)[probabilities.argmax(axis=1)] == np.array(self.valid.labels)).mean())
        if self.valid.grades:
            return rank_correlation(probabilities[:, 0], np.array(self.valid.grades))
        return best_threshold(probabilities, self.gold())[1]

    def threshold(self, run: Run, budget_tokens: int) -> float:
        """Of multilabel: from which probability on a label is said."""
        answerer = Answerer(run, self.tokens, size=self.size, budget_tokens=budget_tokens)
        return best_threshold(answerer.probabilities(self.questions, sigmoid=True, aggregate=self.aggregate), self.gold())[0]

    def gold(self) -> npt.NDArray[np.bool_]:
        """Multilabel: which labels each text has, shape (n, L); labels that training never saw are not among them."""
        number = {label: i for i, label in enumerate(self.work.labels)}
        gold = np.zeros((len(self.valid), len(self.work.labels)), np.bool_)
        for row, labels in enumerate(self.valid.label_sets):
            gold[row, [number[label] for label in labels if label in number]] = True
        return gold

    def _spans(self, answerer: Answerer, chain: Transitions) -> float:
        assert self.work.tags is not None
        encoded = self.questions.encoded
        paths, _ = answerer.tag_paths(encoded, chain)
        decode = self.work.tags.decode
        return span_f1([spans_of_tokens(decode(path), text, raw) for path, text, raw in zip(paths, encoded, self.valid.texts, strict=True)], self.valid.spans)


def best_threshold(probabilities: Floats, gold: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold with the best micro F1 and that F1; of equals the one nearest to a half.

    Args:
        probabilities: shape (n, L).
        gold: shape (n, L).

    >>> best_threshold(np.array([[0.9, 0.2], [0.4, 0.1]]), np.array([[True, False], [True, False]]))
    (0.3, 1.0)
    """
    order = np.argsort(-probabilities, axis=None, kind="stable")
    p = probabilities.ravel()[order].astype(np.float64)
    hits = np.cumsum(gold.ravel()[order])
    said = np.arange(1, len(p) + 1)
    f1 = 2 * hits / np.maximum(1, said + gold.sum())
    ends = np.append(p[1:] < p[:-1], True)  # a threshold cannot part equals
    f1 = np.where(ends, f1, -1.0)
    middles = (p + np.append(p[1:], 0.0)) / 2
    best = f1.max()
    rivals = middles[f1 >= best - 1e-12]
    return round(float(rivals[np.abs(rivals - 0.5).argmin()]), 6), float(best)
