"""Judging grades of pairs: does the model order pairs as people do? Knows nothing of files, budgets or other models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Output
from wenfang.select.evaluation import Evaluation, error_rows, figure_of
from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts, in_millionths, midranks

__all__ = ["grades"]

POINTS = 400
"""Of the picture."""
FAR = 0.25
"""A pair whose two ranks lie further apart than this share of all pairs is called an error."""


def grades(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    """Spearman's correlation of scores and grades, Pearson's beside it.

    Raises:
        Invalid: `select.no-gold` when pairs have neither grades nor two kinds of labels.
    """
    gold = _wanted(examples)
    said = np.array([0.0 if o.score is None else o.score for o in answers])
    ranks = np.stack([midranks(gold), midranks(said)], axis=1).reshape(-1, 2)
    counts = Counts("spearman", ranks)
    head = interval(counts, resamples=resamples, seed=seed)
    linear = Counts("pearson", np.stack([in_millionths(gold), in_millionths(said)], axis=1).reshape(-1, 2))
    figures = {**figure_of(linear, resamples=resamples, seed=seed), "mean_error": float(np.abs(gold - said).mean()) if len(said) else 0.0}
    apart = np.abs(ranks[:, 0] - ranks[:, 1]) / 2
    order = np.argsort(-apart, kind="stable")
    far = int((apart > FAR * len(ranks)).sum())
    errors = error_rows(order[:far].tolist(), examples, gold=[f"{g:.3f}" for g in gold], said=[f"{s:.3f}" for s in said], score=said.tolist())
    shown = np.linspace(0, len(said) - 1, min(POINTS, len(said))).astype(np.int64)
    picture = {"kind": "scatter", "points": [[round(float(gold[i]), 4), round(float(said[i]), 4)] for i in shown]}
    constant = len(set(said.tolist())) <= 1
    return Evaluation(examples.task, "spearman", len(examples), head.score, head.low, head.high, counts, figures, errors=errors, errors_n=far, constant=constant, picture=picture)


def _wanted(examples: Examples) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if examples.grades:
        return np.array(examples.grades, np.float64)
    names = examples.label_names()
    if len(names) < 2:
        raise Invalid("select.no-gold", task=examples.task)
    try:
        place = {name: float(name) for name in names}
    except ValueError:  # words: their order says nothing, but two of them still tell alike from different
        if len(names) > 2:
            raise Invalid("select.no-gold", task=examples.task) from None
        place = {name: float(i) for i, name in enumerate(names)}
    return np.array([place[label] for label in examples.labels], np.float64)
