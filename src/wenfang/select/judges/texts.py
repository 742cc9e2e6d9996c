"""Judging written texts: how far they agree with the wanted ones, and how varied they are. Knows nothing of files, budgets or other models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wenfang.core.examples import Examples, Output
from wenfang.select.evaluation import Evaluation, error_rows, figure_of
from wenfang.select.overlap import bleu_counts, chrf_counts, distinct, rouge_counts
from wenfang.select.ranking import recall_counts, reciprocal_rank_counts
from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts, Metric

__all__ = ["texts"]

FAR = 0.1
"""A text with a ROUGE-L below this shares next to nothing with the wanted one and is called an error."""
RANKS = (1, 5)


def texts(answers: Sequence[Output], examples: Examples, resamples: int, seed: int) -> Evaluation:
    """ROUGE-L for generation, chrF for chat; ROUGE-1/2, BLEU, distinct-n beside it, and ranks where replies were ranked."""
    said = [o.text or "" for o in answers]
    wanted = examples.targets
    found: dict[str, Counts] = {**rouge_counts(wanted, said), "chrf": chrf_counts(wanted, said), "bleu": bleu_counts(wanted, said)}
    metric: Metric = "chrf" if examples.task == "chat" else "rouge_l"
    counts = found.pop(metric)
    head = interval(counts, resamples=resamples, seed=seed)
    figures: dict[str, float] = {}
    for other in found.values():
        figures |= figure_of(other, resamples=resamples, seed=seed)
    figures |= {f"distinct_{n}": distinct(said, n) for n in (1, 2)}
    figures |= {"length_ratio": sum(map(len, said)) / max(1, sum(map(len, wanted))), "empty": float(np.mean([not s for s in said])) if said else 0.0}
    figures |= _ranks(answers, wanted, resamples, seed)
    each = (found.get("rouge_l") or counts).rows[:, 0] / 1e6
    order = np.argsort(each, kind="stable")
    far = int((each < FAR).sum())
    nothing = [""] * len(said)
    errors = error_rows(order[:far].tolist(), examples, gold=nothing, said=nothing, score=each.tolist())
    histogram = {"kind": "agreement", "counts": np.bincount(np.minimum((each * 20).astype(np.int64), 19), minlength=20).tolist()}
    return Evaluation(
        examples.task,
        metric,
        len(examples),
        head.score,
        head.low,
        head.high,
        counts,
        figures,
        errors=errors,
        errors_n=far,
        constant=len(set(said)) <= 1,
        agreement=each,
        picture=histogram,
    )


def _ranks(answers: Sequence[Output], wanted: Sequence[str], resamples: int, seed: int) -> dict[str, float]:
    """MRR and recall of the wanted reply among those that were ranked."""
    if not any(o.replies for o in answers):
        return {}
    ranked, right = [[r.text for r in o.replies or ()] for o in answers], [{w} for w in wanted]
    figures = figure_of(reciprocal_rank_counts(ranked, right), resamples=resamples, seed=seed)
    for k in RANKS:
        figures |= figure_of(recall_counts(ranked, right, k=k), resamples=resamples, seed=seed, name=f"recall_at_{k}")
    return figures
