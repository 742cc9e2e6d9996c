"""The search: families by cost, their own guesses first, then proposals, in rounds, inside a time budget; the journal lets it go on after a crash.

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Cancelled
from wenfang.models.base import DataShape, Model
from wenfang.models.loading import wait_s
from wenfang.models.space import Space
from wenfang.stats.paired import compare

from .assembling import assemble
from .evaluate import Evaluation
from .halving import portion, shares_for
from .journal import Journal
from .lane import Lane, Step
from .latency import Latency, load_per_core, measure_again, size_of
from .plan import Plan, Ports
from .proposals import available
from .remote import Remotes
from .trial import Fitted, Run, card_of, failed, try_fit
from .wanted import judge

__all__ = ["Found", "Search"]

PATIENCE = 2
"""Guesses in a row that bring nothing before a family's guesses are left."""
PATIENCE_PROPOSED = 12
"""The same for proposals; where they begin on shares of train, three times as many."""
CANDIDATES_MAX = 64
RESAMPLES = 1000
"""For the quick test whether a candidate of the same family is worth measuring."""
AROUND = 0.03
"""Share of the budget that predicting, writing and measuring a run is taken to need before the first one."""
TAIL = 2.4
"""What follows the refit, as times of that: bundle, latency, answers to the test."""
DEALING_S = 6e-5
"""For each row that is dealt out to folds, near-duplicates together."""
LATE = 0.03
"""Share of the budget by which a family may miss its deadline, before it was seen to."""
SPARE = 0.02
FOLDING = 0.25
"""Share of the budget that all but a family's first fit leave, at most, to folds of the two best families where valid cannot tell these apart."""
FOLDS = 5
"""Into so many train is dealt, and as many are fitted as there is time for: on less of train than four fifths, those that need much of it fall behind."""
LEARNING = 0.1
"""A first fit gets at least so many seconds for each second of loading its libraries."""
SLOW = 3.0
"""A fit on a share of train may take so many times what its share of a whole fit is."""


@dataclass(frozen=True, slots=True)
class Found:
    """A contender: a run with a bundle, judged and measured."""

    run: Run
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class _Job:
    """A step that was given its time."""

    lane: Lane
    step: Step
    run: Run
    deadline_s: float
    """For learning."""
    loading_s: float = 0.0
    """For loading libraries before it."""


class Search:
    """A search; ``run`` makes it.

    Args:
        train: to learn from.
        valid: to judge by.
        plan: budget, limits, objectives, seed.
        ports: where fits and replicas run, who is told.
        journal: of this selection.
        test_n: how many examples the chosen model will be tested on.
    """

    def __init__(self, train: Examples, valid: Examples, *, plan: Plan, ports: Ports, journal: Journal, test_n: int = 0) -> None:
        self.test_n = test_n
        self.train, self.valid = train, valid
        self.plan, self.ports, self.journal, self.progress = plan, ports, journal, ports.progress
        self.growth = (len(train) + len(valid)) / max(1, len(train))
        self.evaluations: dict[str, Evaluation] = {}
        self.lanes: list[Lane] = []
        read = ports.read_bundle
        self.remotes = Remotes(None if read is None else lambda run: read(journal.work / "bundles" / run.name))
        self._portions: dict[float, Examples] = {1.0: train}

    def run(self, families: Mapping[str, type[Model]], shape: DataShape) -> list[Run]:
        """Search until candidates or time are out; every run, in order. ``found`` then gives the contenders.

        Raises:
            Invalid: `select.no-family-for-task`, `select.no-run-succeeded`, `select.budget-too-small`.
        """
        able = sorted((f for f in families.items() if shape.task in f[1].tasks), key=lambda f: (f[1].cost_rank, f[0]))
        if not able:
            raise Invalid("select.no-family-for-task", task=shape.task, families=sorted(families))
        self.lanes = [self._lane(name, family, shape) for name, family in able]
        self.progress.stage("fit", sum(len(lane.waiting) for lane in self.lanes), "runs")
        self._replay()
        searching = False
        while active := [lane for lane in self.lanes if not lane.over]:
            guessing = [lane for lane in active if lane.waiting]
            if not guessing and not searching and any(lane.searches for lane in active):
                searching = True
                self.progress.stage("search", None, "runs")
            self._round(guessing or active)
        self._assemble()
        if not any(lane.kept for lane in self.lanes):
            runs = self.all_runs()
            reasons = {r.reason[0]: {"key": r.reason[0], "fields": r.reason[1]} for r in runs if r.reason}
            enough_s = [e["fields"]["least_s"] for e in self.journal.find("given-up") if e["key"] == "select.family-not-begun"]
            if not runs and enough_s:
                raise Invalid("select.budget-too-small", budget_s=self.plan.budget_s, least_s=min(enough_s))
            raise Invalid("select.no-run-succeeded", runs_n=len(runs), reasons=[reasons[key] for key in sorted(reasons)] or ["select.family-not-begun"])
        return self.all_runs()

    def _assemble(self) -> None:
        """Put the best runs together, once, where the family that can hold them is in the race."""
        lane, read = next((x for x in self.lanes if x.name == "ensemble"), None), self.ports.read_bundle
        if lane is None or read is None or not self._may_assemble():
            return
        runs = sorted((r for x in self.lanes for r in sorted(x.kept, key=lambda r: -r.score)[:2] if x.name != "majority" and not x.family.remote), key=lambda r: -r.score)
        within = [r for r in runs if not self.plan.limits.broken_by(r)]
        self.progress.stage("assemble", len(within), "models")
        bundles = self.journal.work / "bundles"
        fitted = assemble(
            within,
            self.valid,
            read=lambda run: read(bundles / run.name),
            limits=self.plan.limits,
            left_s=self.left_s,
            growth=self.growth,
            seed=self.plan.seed,
            metric=self.plan.metric,
        )
        if fitted is not None:
            step = Step(lane.family.Hyper.model_validate(fitted.run.params), "assembled")
            lane.pending.append(step)
            self._settle([(_Job(lane, step, fitted.run, 0.0), fitted)])
        self.journal.add("assembled", found=fitted is not None)

    def _may_assemble(self) -> bool:
        return self.ports.read_bundle is not None and any(x.name == "ensemble" and not x.runs for x in self.lanes) and not self.journal.find("assembled")

    def _lane(self, name: str, family: type[Model], shape: DataShape) -> Lane:
        guesses = [Step(h, "guess") for h in itertools.islice(family.candidates(shape), CANDIDATES_MAX)]
        known = {str(g.params) for g in guesses}
        earlier = [Step(h, "earlier") for h in self.plan.recipes(name, family, shape) if str(h.model_dump(mode="json")) not in known]
        space: Space = family.space(shape) if available() else {}
        shares = shares_for(len(self.train)) if self.plan.objectives == ("score",) else (1.0,)
        return Lane(name, family, [*guesses[:1], *earlier, *guesses[1:]], space, shares, self.plan.objectives, self.plan.limits, self.plan.seed)

    def all_runs(self) -> list[Run]:
        """Every run so far, by family."""
        return [r for lane in self.lanes for r in lane.runs]

    def found(self) -> list[Found]:
        """The contenders: runs whose bundles are kept."""
        return [Found(r, self._evaluation(r)) for lane in self.lanes for r in lane.kept]

    def left_s(self) -> float:
        """Seconds left of the budget."""
        return self.plan.budget_s - self.journal.spent_s()

    def tail_s(self, lane: Lane) -> float:
        """What comes after the refit of a run of this family: bundle, latency, and answers to the test, all estimated."""
        return TAIL * self.around_s(lane)

    def folds_s(self, runs: Sequence[Run], n: int) -> float:
        """What fitting these on n folds of train is taken to need: fits on what is not in the fold, answers to what is, and dealing it out."""
        rows = len(self.train)
        answers = rows / max(1, len(self.valid))
        return 1.2 * n / FOLDS * sum((FOLDS - 1) * r.fit_s + answers * r.predict_s for r in runs) + DEALING_S * rows

    def around_s(self, lane: Lane) -> float:
        """Predicting, writing and measuring a run of this family; before the first one a guess."""
        known = [x.around_s() for x in [lane, *self.lanes] if any(r.bundled for r in x.runs)]
        return known[0] if known and any(r.bundled for r in lane.runs) else max(AROUND * self.plan.budget_s, min(known, default=0.0))

    def loading_s(self, lane: Lane) -> float:
        """What the first fit of a family waits for its libraries: estimated, for they are not loaded before there is time for them."""
        if lane.full or not lane.waiting:
            return 0.0
        crowd = math.sqrt(max(1.0, load_per_core()))  # measured: at three runnable processes a core loading takes twice its processor time
        return crowd * wait_s(lane.family(lane.waiting[0].hyper, task=self.train.task).libraries())

    # ---------------------------------------------------------------- rounds

    def _round(self, lanes: list[Lane]) -> None:
        """One fit of each lane; with ``parallel`` so many at once, and whatever is measured is measured after them."""
        n = self.plan.parallel
        if n == 1:
            for lane in lanes:
                if job := self._begin(lane):
                    self._settle([(job, self._fit(job))])
            return
        jobs: list[_Job] = []
        for lane in itertools.islice(itertools.cycle(lanes), n * len(lanes)):
            if len(jobs) < n and not lane.over and (job := self._begin(lane)):
                jobs.append(job)
        if jobs:
            with ThreadPoolExecutor(n, thread_name_prefix="fit") as pool:
                self._settle(list(zip(jobs, pool.map(self._fit, jobs), strict=True)))

    def _begin(self, lane: Lane) -> _Job | None:
        """Decide what this lane does next and in what time; None: nothing, or not now."""
        if not lane.waiting and not lane.searches:
            lane.over = not lane.pending
            return None
        if reason := self._hopeless(lane):
            self._give_up(lane, *reason)
            return None
        loading_s = self.loading_s(lane)
        deadline_s = self._deadline_s(lane, loading_s)
        if deadline_s < self._least_s(lane):
            told = {"need_s": round(self._least_s(lane) + loading_s, 1), "left_s": round(max(0.0, deadline_s + loading_s), 1)}
            if lane.full:
                self._give_up(lane, "select.family-no-time", **told)
            else:
                self._give_up(lane, "select.family-not-begun", **told, least_s=self._least_budget_s(lane))
            return None
        fit_s = lane.fit_s() or 0.0
        step = lane.next(last=deadline_s < 2.3 * fit_s)
        if step is None:
            lane.over = not lane.pending
            return None
        if step.share < 1:
            deadline_s = min(deadline_s, max(SLOW * step.share * fit_s, 0.002 * self.plan.budget_s))
        number = len(lane.runs) + len(lane.pending)
        run = Run(f"{lane.name}-{number}", lane.name, number, step.params, self.plan.seed, origin=step.origin, share=step.share, proposal=step.proposal)
        return _Job(lane, step, run, deadline_s, loading_s)

    def _fit(self, job: _Job) -> Fitted | None:
        checkpoints = self.journal.work / "checkpoints" / job.run.name
        if job.lane.family.remote:
            model, tests = job.lane.family(job.step.hyper, task=self.train.task), list(self.plan.checks.robustness.values())
            Remotes.tell(job.run, model, self.train, valid_n=len(self.valid), test_n=self.test_n, tests=tests, progress=self.progress)
        return try_fit(
            job.run, job.lane.family, job.step.hyper, train=self._portion(job.step.share), valid=self.valid, deadline_s=job.deadline_s, progress=self.progress,
            fit=self.ports.fit, checkpoints=checkpoints, metric=self.plan.metric, loading_s=job.loading_s, answers_s=max(1.0, self.left_s() - job.deadline_s),
        )  # fmt: skip

    def _portion(self, share: float) -> Examples:
        if share not in self._portions:
            self._portions[share] = portion(self.train, share, seed=self.plan.seed)
        return self._portions[share]

    def _settle(self, done: list[tuple[_Job, Fitted | None]]) -> None:
        """Write and measure what is worth it, journal the runs together, and take them into their lanes."""
        for job, fitted in done:
            if fitted is not None and job.step.share == 1 and self._worth_a_bundle(job.lane, fitted):
                self._bundle(fitted)
        runs = [job.run for job, _ in done]
        steps = [(job.lane, job.step) for job, _ in done]
        done.clear()
        gc.collect()
        self.journal.add("run", runs=[run.document() for run in runs])
        for (lane, step), run in zip(steps, runs, strict=True):
            self._admit(lane, step, run)
            shutil.rmtree(self.journal.work / "checkpoints" / run.name, ignore_errors=True)
            if run.state == "failed" and run.reason:
                self.progress.note(run.reason[0], **run.reason[1], run=run.name)
            best = max((r.score for r in self.all_runs() if r.share == 1), default=-math.inf)
            self.progress.advance(1, run=run.name, score=run.metrics.get("score"), best=None if best == -math.inf else best, left_s=round(self.left_s()))

    def _give_up(self, lane: Lane, key: str, **fields: Any) -> None:
        """Leave a family, or only its guesses where there is more to search."""
        if key == "select.family-no-gain" and lane.waiting and lane.searches:
            lane.waiting.clear()
            self.journal.add("guesses-left", family=lane.name)
            return
        lane.over = True
        self.progress.advance(len(lane.waiting))
        self.progress.note(key, family=lane.name, **fields)
        self.journal.add("given-up", key=key, fields={"family": lane.name, **fields})

    # ---------------------------------------------------------------- time

    def _deadline_s(self, lane: Lane, loading_s: float) -> float:
        """Seconds this fit may take after its libraries are loaded: what is left, less the needs of the other families and of the refit."""
        left, active = self.left_s(), [x for x in self.lanes if not x.over]
        equal = left / len(active)
        others = 0.0
        for other in active:
            turns = len(other.waiting) or int(other.searches and not lane.waiting)
            if other is not lane and turns:
                known = other.fit_s()
                others += equal if known is None else min(equal, turns * 1.3 * (known + other.around_s()))
        late = max((r.fit_s - r.deadline_s for r in lane.runs if r.deadline_s), default=LATE * self.plan.budget_s)  # what the family takes beyond its deadline
        free = left - others - loading_s - self.around_s(lane) - SPARE * self.plan.budget_s - max(0.0, late)
        refit_of_best = max((1.1 * self.growth * x.best.fit_s + self.tail_s(x) for x in self.lanes if x.best), default=0.0)
        if self._may_assemble():  # two of them may have to be fitted again together
            pairs = sorted(((x.best.score, 1.1 * self.growth * x.best.fit_s + 3 * x.best.predict_s) for x in self.lanes if x.best and x is not lane), reverse=True)
            refit_of_best = max(refit_of_best, sum(s for _, s in pairs[:2]))
            free -= sum(s for _, s in pairs[:1])
        if lane.full:
            free -= min(FOLDING * self.plan.budget_s, self._undecided_s())
        return min((free - self.tail_s(lane)) / (1 + 1.1 * self.growth), free - refit_of_best)

    def _undecided_s(self) -> float:
        """What one fold of the two best families would take; nothing where valid tells them apart."""
        bests = sorted((x.best for x in self.lanes if x.best and not x.family.remote), key=lambda r: -r.score)[:2]
        return self.folds_s(bests, 1) if len(bests) == 2 and bests[1].metrics["high"] >= bests[0].metrics["low"] else 0.0

    def _least_s(self, lane: Lane) -> float:
        """A fit with less time than this is not begun."""
        floor = max(0.002 * self.plan.budget_s, LEARNING * self.loading_s(lane))
        fitted = lane.full
        if not fitted:
            return floor
        cut = [r.fit_s for r in fitted if r.state == "stopped"]
        return max(floor, 1.5 * max(cut) if cut else 0.7 * min(r.fit_s for r in fitted))

    def _least_budget_s(self, lane: Lane) -> int:
        """The budget with which this family alone would begin: ``_deadline_s`` turned round."""
        need_s = self._least_s(lane) * (1 + 1.1 * self.growth) + self.loading_s(lane) + self.journal.spent_s()
        return math.ceil(1.1 * need_s / (1 - LATE - SPARE - AROUND * (1 + TAIL)))

    def _hopeless(self, lane: Lane) -> tuple[str] | None:
        most = PATIENCE if lane.waiting else 2 * PATIENCE
        last = lane.runs[-most:]
        if len(last) == most and all(r.state == "failed" for r in last):
            return ("select.family-fails",)
        done, many = lane.full, len(self.plan.objectives) > 1
        if lane.waiting:
            if not many and len(done) > PATIENCE and max(r.score for r in done[:-PATIENCE]) >= max(r.score for r in done[-PATIENCE:]):
                return ("select.family-no-gain",)
        elif lane.idle_n >= PATIENCE_PROPOSED * (1 if len(lane.shares) == 1 and not many else 3):
            return ("select.family-no-gain",)
        front = self._leader()
        if front is None or len(done) < (2 if lane.waiting else 1) or many:
            return None
        own = max(done, key=lambda r: r.score)
        spread = own.score - min(r.score for r in done) if lane.waiting else 0.0
        behind = front.score - own.score
        return ("select.family-behind",) if own.metrics["high"] < front.metrics["low"] and behind > 3 * spread else None

    def _leader(self) -> Run | None:
        """The best run on the whole of train; inside the limits, once one is."""
        done = [r for lane in self.lanes for r in lane.full]
        within = [r for r in done if r.bundled and not self.plan.limits.broken_by(r)]
        return max(within or done, key=lambda r: r.score, default=None)

    # ---------------------------------------------------------------- bundles

    def _worth_a_bundle(self, lane: Lane, fitted: Fitted) -> bool:
        best = lane.best
        if best is None or fitted.run.score >= best.score or len(self.plan.objectives) > 1:
            return True
        within = [r.score for r in lane.kept if not self.plan.limits.broken_by(r)]
        if not within or fitted.run.score > max(within):
            return True
        return compare(fitted.evaluation.counts, self._evaluation(best).counts, resamples=RESAMPLES, seed=self.plan.seed).p > 0.05

    def _bundle(self, fitted: Fitted) -> None:
        run, begun = fitted.run, time.monotonic()
        folder = self.journal.folder(run.name)
        try:
            self.ports.write_bundle(folder, fitted.model, card_of(run, {"refit": False}))
            run.size_bytes, run.charged = size_of(folder), fitted.model.charge_per_million()
            run.latency = asdict(self._latency(fitted, folder))
            self.journal.keep_answers(run.name, fitted.outputs)
            self.evaluations[run.name] = fitted.evaluation
            run.bundled = True
        except Cancelled:
            raise
        except Exception as e:  # a model that cannot be written or served is a failed run; the others go on
            failed(run, e)
            shutil.rmtree(folder, ignore_errors=True)
        run.bundle_s = time.monotonic() - begun

    def _latency(self, fitted: Fitted, folder: Path) -> Latency:
        if fitted.model.remote:
            return self.remotes.measure(fitted.run, fitted.model, self.ports.host, folder, self.valid)
        limit_s, limits = max(0.6, 0.04 * self.plan.budget_s), self.plan.limits
        return measure_again(self.ports.host, folder, self.valid, max_p99_ms=limits.max_latency_ms, seed=self.plan.seed, limit_s=limit_s, progress=self.progress)

    def remote_model(self, run: Run) -> Model | None:
        """The model of a run whose answers come from elsewhere, with the answers it has given; None: it runs here, and a replica is asked."""
        return self.remotes.of(run, next(x.family for x in self.lanes if x.name == run.family))

    def _evaluation(self, run: Run) -> Evaluation:
        if run.name not in self.evaluations:
            self.evaluations[run.name] = judge(self.journal.answers(run.name), self.valid, metric=self.plan.metric, seed=run.seed)
        return self.evaluations[run.name]

    def _admit(self, lane: Lane, step: Step, run: Run) -> None:
        """Add a run to its lane and drop the bundles that left the family's front."""
        for gone in lane.admit(step, run):
            shutil.rmtree(self.journal.work / "bundles" / gone.name, ignore_errors=True)
            self.evaluations.pop(gone.name, None)

    def _replay(self) -> None:
        """Take over what the journal holds."""
        lanes = {lane.name: lane for lane in self.lanes}
        found = self.journal.find("run")
        for entry in found:
            batch = [(lanes[r["family"]], Run.from_document(r)) for r in entry["runs"]]
            steps = [lane.replay(run) for lane, run in batch]
            for (lane, run), step in zip(batch, steps, strict=True):
                self._admit(lane, step, run)
                self.progress.advance(1, run=run.name, score=run.metrics.get("score"))
        for entry in self.journal.find("guesses-left"):
            lanes[entry["family"]].waiting.clear()
        for entry in self.journal.find("given-up"):
            lanes[entry["fields"]["family"]].over = True
        if found:
            self.progress.note("select.resumed", runs_n=sum(len(e["runs"]) for e in found), spent_s=round(self.journal.spent_s(), 1))
