"""Scores as functions of counts: one row of whole numbers for each example is enough to compute a metric on any resample.

Knows nothing of texts, labels or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import formulas
from .formulas import BLEU_ORDER, CHRF_ORDER, MILLIONTHS, Floats, Formula, Ints

__all__ = ["COLUMNS", "LOWER_IS_BETTER", "MILLIONTHS", "Counts", "Floats", "Ints", "Metric", "collapse", "in_millionths", "midranks", "score", "scores"]

Metric = Literal[
    "accuracy", "subset_accuracy", "macro_f1", "micro_f1", "span_f1", "spearman", "pearson", "rouge_1", "rouge_2", "rouge_l", "chrf", "bleu", "perplexity",
    "mrr", "ndcg", "recall_at_k",
]  # fmt: skip

_PARTS = ("hit", "predicted", "gold")
_FORMULAS: dict[Metric, tuple[tuple[str, ...], Formula]] = {
    "accuracy": (("correct",), formulas.accuracy),
    "subset_accuracy": (("correct",), formulas.accuracy),
    "macro_f1": (("gold", "predicted"), formulas.macro_f1),
    "micro_f1": (_PARTS, formulas.f1),
    "span_f1": (_PARTS, formulas.f1),
    "spearman": (("gold", "predicted"), formulas.spearman),
    "pearson": (("gold", "predicted"), formulas.pearson),
    "rouge_1": (("f1",), formulas.mean),
    "rouge_2": (("f1",), formulas.mean),
    "rouge_l": (("f1",), formulas.mean),
    "chrf": (tuple(f"{n}-{what}" for n in range(1, CHRF_ORDER + 1) for what in ("said", "wanted", "right")), formulas.chrf),
    "bleu": ((*(f"{n}-{what}" for n in range(1, BLEU_ORDER + 1) for what in ("right", "said")), "said", "wanted"), formulas.bleu),
    "perplexity": (("loss", "tokens"), formulas.perplexity),
    "mrr": (("value",), formulas.mean),
    "ndcg": (("value",), formulas.mean),
    "recall_at_k": (("value",), formulas.mean),
}
COLUMNS: dict[Metric, tuple[str, ...]] = {metric: columns for metric, (columns, _) in _FORMULAS.items()}
"""What the columns of the counts mean: ``correct`` is 0 or 1; ``gold`` and ``predicted`` are class numbers (-1: no answer), doubled mid-ranks
(spearman) or millionths (pearson); ``hit``, ``predicted``, ``gold`` count labels or spans; ``f1``, ``value``, ``loss`` are millionths."""
LOWER_IS_BETTER: frozenset[Metric] = frozenset({"perplexity"})


@dataclass(frozen=True, slots=True)
class Counts:
    """The sufficient counts of one evaluation.

    Args:
        metric: which score they are for.
        rows: (n, columns of the metric), whole numbers.
    """

    metric: Metric
    rows: Ints

    def __post_init__(self) -> None:
        assert self.rows.shape == (len(self.rows), len(COLUMNS[self.metric])), (self.metric, self.rows.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, keep: npt.NDArray[np.bool_] | Ints) -> Counts:
        """The counts of some of the examples."""
        return Counts(self.metric, self.rows[keep])


def in_millionths(values: npt.ArrayLike) -> Ints:
    """Fractions as whole numbers.

    >>> in_millionths([0.5, 1 / 3]).tolist()
    [500000, 333333]
    """
    return np.rint(np.asarray(values, np.float64) * MILLIONTHS).astype(np.int64)


def midranks(values: npt.ArrayLike) -> Ints:
    """Twice the rank of each value, ties sharing their mean rank: a scale that two models have in common, whatever their scores mean.

    >>> midranks([0.3, 0.1, 0.3]).tolist()
    [5, 2, 5]
    """
    _, inverse, times = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = times.cumsum()
    return (2 * last - times + 1)[inverse].astype(np.int64)


def collapse(rows: Ints) -> tuple[Ints, Ints]:
    """The distinct rows (K, columns) and how often each stands there (K), the most frequent first.

    Resampling n examples is the same as drawing a multinomial over the distinct rows; that is what makes it cheap.
    """
    key = np.zeros(len(rows), np.int64)
    for column in rows.T:
        values, inverse = np.unique(column, return_inverse=True)
        _, key = np.unique(key * len(values) + inverse, return_inverse=True)
    _, first, times = np.unique(key, return_index=True, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return rows[first[order]], times[order].astype(np.int64)


def scores(metric: Metric, rows: Ints, weights: Floats) -> Floats:
    """The metric of each of R resamples.

    Args:
        metric: its name.
        rows: (K, columns) distinct rows.
        weights: (R, K) how often each row was drawn.

    Returns:
        (R,) scores: 0..1, correlations -1..1, perplexity from 1 up.
    """
    return _FORMULAS[metric][1](rows, weights)


def score(counts: Counts) -> float:
    """The metric of all examples.

    >>> score(Counts("span_f1", np.array([[1, 2, 1], [0, 0, 1]])))
    0.5
    """
    rows, times = collapse(counts.rows)
    return float(scores(counts.metric, rows, times[None, :].astype(np.float64))[0])
