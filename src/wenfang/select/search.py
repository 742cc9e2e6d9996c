"""The search: families by cost, candidates best guess first, in rounds, inside a time budget; the journal lets it go on after a crash.

Each fit gets a deadline that leaves later families their share and the winner its refit. A family is given up, with a note,
when its candidates are exhausted, bring nothing more, stand clearly behind, or no longer fit into the time left. Only the
bundles on a family's own front (score, latency, size) stay on disk, and no model stays in memory.
"""

from __future__ import annotations

import gc
import itertools
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Cancelled, Progress, ReplicaHost
from wenfang.models.base import DataShape, Model
from wenfang.stats.paired import compare

from .choose import Limits
from .evaluate import Evaluation, evaluate
from .journal import Journal
from .latency import measure_again, size_of
from .trial import Fit, Fitted, Run, WriteBundle, card_of, failed, fit_here, try_fit

__all__ = ["Found", "Lane", "Search"]

PATIENCE = 2
"""Candidates in a row that bring nothing before a family is given up."""
KEPT = 4
"""Bundles of one family on disk at most."""
CANDIDATES_MAX = 64
RESAMPLES = 1000
"""For the quick test whether a candidate of the same family is worth measuring."""


@dataclass(slots=True)
class Lane:
    """One family in the race."""

    name: str
    family: type[Model]
    waiting: list[BaseModel]
    runs: list[Run] = field(default_factory=list[Run])
    kept: list[Run] = field(default_factory=list[Run])
    over: bool = False

    @property
    def best(self) -> Run | None:
        """The best run whose bundle is kept."""
        return max(self.kept, key=lambda r: r.score, default=None)

    def fit_s(self) -> float | None:
        """What a fit of this family takes; None before the first."""
        took = [r.fit_s for r in self.runs if r.state != "failed"]
        return sum(took) / len(took) if took else None

    def around_s(self) -> float:
        """Predicting, writing and measuring, beside the fit."""
        return max((r.predict_s + r.bundle_s for r in self.runs), default=0.0)


@dataclass(frozen=True, slots=True)
class Found:
    """A contender: a run with a bundle, judged and measured."""

    run: Run
    evaluation: Evaluation


class Search:
    """A search; ``run`` makes it.

    Args:
        train: to learn from.
        valid: to judge by.
        host: starts replicas.
        limits: decide which runs of a family are worth keeping.
        journal: of this selection.
        write_bundle: writes a bundle.
        budget_s: of the whole selection; the search leaves the refit its time.
        seed: of every fit.
        progress: told everything.
        fit: where fits run.
    """

    def __init__(
        self, train: Examples, valid: Examples, *, host: ReplicaHost, limits: Limits, journal: Journal, write_bundle: WriteBundle, budget_s: float, seed: int,
        progress: Progress, fit: Fit = fit_here,
    ) -> None:  # fmt: skip
        self.train, self.valid = train, valid
        self.host, self.limits, self.journal, self.write_bundle = host, limits, journal, write_bundle
        self.budget_s, self.seed, self.progress, self.fit = budget_s, seed, progress, fit
        self.growth = (len(train) + len(valid)) / max(1, len(train))
        self.evaluations: dict[str, Evaluation] = {}
        self.lanes: list[Lane] = []

    def run(self, families: Mapping[str, type[Model]], shape: DataShape) -> list[Run]:
        """Search until candidates or time are out; every run, in order. ``found`` then gives the contenders.

        Raises:
            Invalid: `select.no-family-for-task`, `select.no-run-succeeded`.
        """
        able = sorted((f for f in families.items() if shape.task in f[1].tasks), key=lambda f: (f[1].cost_rank, f[0]))
        if not able:
            raise Invalid("select.no-family-for-task", task=shape.task, families=sorted(families))
        self.lanes = [Lane(name, family, list(itertools.islice(family.candidates(shape), CANDIDATES_MAX))) for name, family in able]
        self.progress.stage("fit", sum(len(lane.waiting) for lane in self.lanes), "runs")
        self._replay()
        while active := [lane for lane in self.lanes if not lane.over]:
            for lane in active:
                self._turn(lane)
        if not any(lane.kept for lane in self.lanes):
            raise Invalid("select.no-run-succeeded", runs_n=len(self.all_runs()), reasons=sorted({r.note for r in self.all_runs() if r.note}) or ["select.family-no-time"])
        return self.all_runs()

    def all_runs(self) -> list[Run]:
        """Every run so far, by family."""
        return [r for lane in self.lanes for r in lane.runs]

    def found(self) -> list[Found]:
        """The contenders: runs whose bundles are kept."""
        return [Found(r, self._evaluation(r)) for lane in self.lanes for r in lane.kept]

    def left_s(self) -> float:
        """Seconds left of the budget."""
        return self.budget_s - self.journal.spent_s()

    def tail_s(self, lane: Lane) -> float:
        """What comes after the refit of a run of this family: bundle, latency, and answers to the test, all estimated."""
        return 1.2 * 2 * self.around_s(lane)

    def around_s(self, lane: Lane) -> float:
        """Predicting, writing and measuring a run of this family; before the first one a guess."""
        return lane.around_s() if any(r.bundled for r in lane.runs) else 0.03 * self.budget_s

    def _turn(self, lane: Lane) -> None:
        if not lane.waiting:
            lane.over = True
            return
        if reason := self._hopeless(lane):
            self._give_up(lane, *reason)
            return
        deadline_s = self._deadline_s(lane)
        if deadline_s < self._least_s(lane):
            self._give_up(lane, "select.family-no-time", need_s=round(self._least_s(lane), 1), left_s=round(max(0.0, deadline_s), 1))
            return
        hyper = lane.waiting.pop(0)
        number = len(lane.runs) + 1
        run = Run(f"{lane.name}-{number}", lane.name, number, hyper.model_dump(mode="json"), self.seed)
        fitted = try_fit(run, lane.family, hyper, train=self.train, valid=self.valid, deadline_s=deadline_s, progress=self.progress, fit=self.fit)
        if fitted is not None and self._worth_a_bundle(lane, fitted):
            self._bundle(fitted)
        del fitted
        gc.collect()
        self.journal.add("run", run=run.document())
        self._admit(lane, run)
        if run.state == "failed" and run.reason:
            self.progress.note(run.reason[0], **run.reason[1], run=run.name)
        best = max((r.score for r in self.all_runs()), default=-math.inf)
        self.progress.advance(1, run=run.name, score=run.metrics.get("score"), best=None if best == -math.inf else best, left_s=round(self.left_s()))

    def _give_up(self, lane: Lane, key: str, **fields: Any) -> None:
        lane.over = True
        self.progress.advance(len(lane.waiting))
        self.progress.note(key, family=lane.name, **fields)
        if key not in {e["key"] for e in self.journal.find("given-up") if e["fields"]["family"] == lane.name}:
            self.journal.add("given-up", key=key, fields={"family": lane.name, **fields})

    # ---------------------------------------------------------------- time

    def _deadline_s(self, lane: Lane) -> float:
        """Seconds this fit may take: what is left, less the needs of the other families and of the refit."""
        left, active = self.left_s(), [x for x in self.lanes if not x.over]
        equal = left / len(active)
        others = 0.0
        for other in active:
            if other is not lane and other.waiting:
                known = other.fit_s()
                others += equal if known is None else min(equal, len(other.waiting) * 1.3 * (known + other.around_s()))
        late = max((r.fit_s - r.deadline_s for r in lane.runs if r.deadline_s), default=0.03 * self.budget_s)  # what the family takes beyond its deadline
        free = left - others - self.around_s(lane) - 0.02 * self.budget_s - max(0.0, late)
        refit_of_best = max((1.1 * self.growth * x.best.fit_s + self.tail_s(x) for x in self.lanes if x.best), default=0.0)
        return min((free - self.tail_s(lane)) / (1 + 1.1 * self.growth), free - refit_of_best)

    def _least_s(self, lane: Lane) -> float:
        """A fit with less time than this is not begun."""
        floor = 0.002 * self.budget_s
        fitted = [r for r in lane.runs if r.state != "failed"]
        if not fitted:
            return floor
        cut = [r.fit_s for r in fitted if r.state == "stopped"]
        return max(floor, 1.5 * max(cut) if cut else 0.7 * min(r.fit_s for r in fitted))

    def _hopeless(self, lane: Lane) -> tuple[str] | None:
        last = lane.runs[-PATIENCE:]
        if len(last) == PATIENCE and all(r.state == "failed" for r in last):
            return ("select.family-fails",)
        done = [r for r in lane.runs if r.state != "failed"]
        if len(done) > PATIENCE and max(r.score for r in done[:-PATIENCE]) >= max(r.score for r in done[-PATIENCE:]):
            return ("select.family-no-gain",)
        front = max((r for r in self.all_runs() if r.state != "failed"), key=lambda r: r.score, default=None)
        if front is None or len(done) < 2:
            return None
        own = max(done, key=lambda r: r.score)
        spread = own.score - min(r.score for r in done)
        behind = front.score - own.score
        return ("select.family-behind",) if own.metrics["high"] < front.metrics["low"] and behind > 3 * spread else None

    # ---------------------------------------------------------------- bundles

    def _worth_a_bundle(self, lane: Lane, fitted: Fitted) -> bool:
        best = lane.best
        if best is None or fitted.run.score >= best.score:
            return True
        within = [r.score for r in lane.kept if not self.limits.broken_by(r)]
        if not within or fitted.run.score > max(within):
            return True
        return compare(fitted.evaluation.counts, self._evaluation(best).counts, resamples=RESAMPLES, seed=self.seed).p > 0.05

    def _bundle(self, fitted: Fitted) -> None:
        run, begun = fitted.run, time.monotonic()
        folder = self.journal.folder(run.name)
        try:
            self.write_bundle(folder, fitted.model, card_of(run, {"refit": False}))
            run.size_bytes = size_of(folder)
            limit_s = max(0.6, 0.04 * self.budget_s)
            run.latency = asdict(measure_again(self.host, folder, self.valid, max_p99_ms=self.limits.max_latency_ms, seed=self.seed, limit_s=limit_s, progress=self.progress))
            self.journal.keep_answers(run.name, fitted.outputs)
            self.evaluations[run.name] = fitted.evaluation
            run.bundled = True
        except Cancelled:
            raise
        except Exception as e:  # a model that cannot be written or served is a failed run; the others go on
            failed(run, e)
            shutil.rmtree(folder, ignore_errors=True)
        run.bundle_s = time.monotonic() - begun

    def _evaluation(self, run: Run) -> Evaluation:
        if run.name not in self.evaluations:
            self.evaluations[run.name] = evaluate(self.journal.answers(run.name), self.valid, seed=run.seed)
        return self.evaluations[run.name]

    def _admit(self, lane: Lane, run: Run) -> None:
        """Add a run to its lane and drop the bundles that left the family's front."""
        lane.runs.append(run)
        if not run.bundled:
            return
        contenders = [*lane.kept, run]
        lane.kept = _front(contenders, self.limits)
        for gone in (r for r in contenders if r not in lane.kept):
            shutil.rmtree(self.journal.work / "bundles" / gone.name, ignore_errors=True)
            self.evaluations.pop(gone.name, None)

    def _replay(self) -> None:
        """Take over what the journal holds."""
        lanes = {lane.name: lane for lane in self.lanes}
        for entry in self.journal.find("run"):
            run = Run.from_document(entry["run"])
            lane = lanes[run.family]
            lane.waiting.pop(0)
            self._admit(lane, run)
            self.progress.advance(1, run=run.name, score=run.metrics.get("score"))
        if self.journal.find("run"):
            self.progress.note("select.resumed", runs_n=len(self.journal.find("run")), spent_s=round(self.journal.spent_s(), 1))


def _front(runs: Sequence[Run], limits: Limits) -> list[Run]:
    """The best run, the best within the limits, the second best (to compare with), and what no other beats in score, latency and size."""

    def beats(a: Run, b: Run) -> bool:
        x, y = ((-r.score, r.latency["p99_ms"] if r.latency else math.inf, r.size_bytes or math.inf) for r in (a, b))
        return x != y and all(i <= j for i, j in zip(x, y, strict=True))

    by_score = sorted(runs, key=lambda r: -r.score)
    within = [r for r in by_score if not limits.broken_by(r)]
    ordered = [by_score[0], *within[:1], *by_score[1:2], *(r for r in by_score if not any(beats(o, r) for o in runs))]
    return list({r.name: r for r in ordered}.values())[:KEPT]
