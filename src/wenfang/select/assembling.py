"""After the search: do the best runs answer better together than each alone? Members are taken as they are, nothing is fitted.

How they are weighed is chosen on one half of valid and judged on the other, both ways round, so that the score an ensemble enters the
choice with is an honest one. Knows nothing of lanes, journals or bundles. Source: Caruana et al. 2004 (Ensemble selection from libraries
of models).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import WenfangError
from wenfang.core.examples import Examples, Output
from wenfang.models.answers import classified, holding, several
from wenfang.models.base import Model
from wenfang.models.calibration import best_threshold
from wenfang.models.families.ensemble import Ensemble, EnsembleHyper, Member
from wenfang.models.pooling import choose_pool, choose_shares, choose_votes, pooled, voted

from .choose import Cost, Limits
from .trial import Fitted, Run, figures_of
from .wanted import judge as judged

__all__ = ["CONTENDERS", "assemble"]

CONTENDERS = 6
MEMBERS = 4
"""At most: each one is paid for at every request."""
VALID_MIN = 60
"""Fewer examples cannot tell weights from luck."""


@dataclass(frozen=True, slots=True)
class _Contender:
    run: Run
    model: Model
    opinions: npt.NDArray[np.float32] | None
    """(n, L) probabilities; None for tagging."""
    answers: list[Output]


@dataclass(frozen=True, slots=True)
class _Judge:
    """Cross-fitted answers of members, and their score."""

    valid: Examples
    labels: list[str]
    metric: str | None = None
    truth: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def answers(self, members: Sequence[_Contender]) -> list[Output]:
        """What they answer together to every example of valid, weighed on the other half."""
        n = len(self.valid)
        halves = [np.arange(0, n, 2), np.arange(1, n, 2)]
        merged: list[Output] = [Output()] * n
        for own, other in itertools.permutations(halves):
            for row, output in zip(own.tolist(), self._half(members, own, other), strict=True):
                merged[row] = output
        return merged

    def _half(self, members: Sequence[_Contender], own: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> list[Output]:
        if self.valid.task == "tagging":

            def of(rows: npt.NDArray[np.intp]) -> list[list[Output]]:
                return [[m.answers[i] for i in rows.tolist()] for m in members]

            rows: list[int] = other.tolist()
            weights, threshold = choose_votes(of(other), [self.valid.spans[i] for i in rows])
            return voted(of(own), weights, threshold)
        opinions = np.stack([m.opinions for m in members if m.opinions is not None])
        if self.valid.task == "multilabel":
            gold = holding(self.labels, self.valid.label_sets)[other]
            pool = choose_shares(opinions[:, other], gold)
            threshold = best_threshold(pooled(opinions[:, other], pool).astype(np.float64), gold)
            return several(self.labels, pooled(opinions[:, own], pool), threshold)
        known = other[self.truth[other] >= 0]
        pool = choose_pool(opinions[:, known], self.truth[known], stacking=True)
        return classified(self.labels, pooled(opinions[:, own], pool))


def assemble(
    runs: Sequence[Run],
    valid: Examples,
    *,
    read: Callable[[Run], Model],
    limits: Limits,
    left_s: Callable[[], float],
    growth: float,
    seed: int,
    number: int = 1,
    metric: str | None = None,
) -> Fitted | None:
    """The ensemble of ``runs`` that answers valid best, if it is better than the best of them alone and keeps what is left of the time.

    Args:
        runs: bundled ones, best first.
        valid: to weigh and to judge by.
        read: the model of a run.
        limits: an ensemble costs what its members cost together.
        left_s: seconds left; fitting the members again must fit into them.
        growth: how much longer a refit takes than a fit.
        seed: of the selection.
        number: of the run.
        metric: to judge by; None: the task's own.

    Returns:
        The run with its model, answers and evaluation, or None.

    Cost: one pass of valid through each of up to six models, and weighing (seconds for 10,000 examples).
    """
    if len(runs) < 2 or len(valid) < VALID_MIN:
        return None
    begun = time.monotonic()
    pool = _contenders(runs, valid, read, left_s)
    if len(pool) < 2:
        return None
    labels = pool[0].model.labels_
    where = {label: i for i, label in enumerate(labels)}
    judge = _Judge(valid, labels, metric, np.array([where.get(label, -1) for label in valid.labels], np.int64))
    members, best = [pool[0]], pool[0].run.score
    while len(members) < MEMBERS:
        found = [
            (judged(judge.answers([*members, c]), valid, metric=metric, resamples=2, seed=seed).score, i)
            for i, c in enumerate(pool)
            if _may_join(members, c, limits, left_s(), growth)
        ]
        score, which = max(found, default=(-1.0, -1))
        if score <= best:
            break
        members, best = [*members, pool[which]], score
    return _fitted(members, judge, seed=seed, number=number, took_s=time.monotonic() - begun) if len(members) > 1 else None


def _contenders(runs: Sequence[Run], valid: Examples, read: Callable[[Run], Model], left_s: Callable[[], float]) -> list[_Contender]:
    found: list[_Contender] = []
    for run in runs[:CONTENDERS]:
        if left_s() < 3 * run.predict_s:
            break
        try:
            model = read(run)
            if valid.task == "tagging":
                found.append(_Contender(run, model, None, model.predict(valid.texts)))
            else:
                found.append(_Contender(run, model, model.probabilities(valid.texts, valid.texts_b), []))
        except WenfangError:  # a bundle that cannot be opened any more is no member
            continue
    return [c for c in found if c.model.labels_ == found[0].model.labels_]


def _may_join(members: Sequence[_Contender], other: _Contender, limits: Limits, left_s: float, growth: float) -> bool:
    """Whether ``other`` is new, and all of them together would keep the limits and the time of a refit."""
    if other in members:
        return False
    runs = [m.run for m in [*members, other]]
    total: dict[str, Any] = {k: sum(float((r.latency or {}).get(k, 0.0)) for r in runs) for k in ("p50_ms", "p99_ms", "memory_bytes")}
    size = sum(r.size_bytes or 0 for r in runs)
    charged = sum(r.charged or 0.0 for r in runs) or None
    return not limits.broken_by(Cost(total, size, charged)) and 1.1 * growth * sum(r.fit_s for r in runs) < left_s


def _fitted(members: Sequence[_Contender], judge: _Judge, *, seed: int, number: int, took_s: float) -> Fitted:
    runs = [m.run for m in members]
    model = Ensemble.of([m.model for m in members], [Member(family=r.family, hyper=r.params, seed=r.seed) for r in runs], judge.valid, seed=seed)
    again = tuple(Member(family=r.family, hyper=r.refit_params or r.params, seed=r.seed) for r in runs)
    run = Run(f"ensemble-{number}", "ensemble", number, model.hyper.model_dump(mode="json"), seed, origin="assembled")
    found = model.refit_hyper()
    assert isinstance(found, EnsembleHyper)
    run.refit_params = found.model_copy(update={"members": again}).model_dump(mode="json")
    run.fit_s, run.predict_s = sum(r.fit_s for r in runs), sum(r.predict_s for r in runs)
    run.environment = {name: version for r in runs for name, version in r.environment.items()}
    run.curve = [{"step": i, "loss": None, "valid_score": m.run.score} for i, m in enumerate(members, 1)]
    run.predict_s += took_s
    outputs = judge.answers(members)
    evaluation = judged(outputs, judge.valid, metric=judge.metric, seed=seed)
    run.metrics = figures_of(evaluation)
    return Fitted(run, model, outputs, evaluation)
