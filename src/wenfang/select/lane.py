"""One family in the race: its own guesses first, then what a proposer makes of what was seen; which run comes next follows from the runs so far.

Knows nothing of time, fits or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from wenfang.models.base import Model
from wenfang.models.space import Space

from .choose import Limits
from .halving import gain, promotion
from .proposals import TellProposer, propose_from
from .trial import Origin, Run

__all__ = ["KEPT", "KEPT_FRONT", "Lane", "Step"]

KEPT = 4
"""Bundles of one family on disk at most."""
KEPT_FRONT = 12
"""The same when a front was asked for."""
ASKS = 12
"""Proposals in a row that are invalid or were tried before: then the space is exhausted."""
LITTLE = 0.05
"""A better score counts as progress when it is above this share of the interval's width."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to fit next."""

    hyper: BaseModel
    origin: Origin
    share: float = 1.0
    """Of train."""
    proposal: int | None = None
    """Which proposal, over all its shares."""

    @property
    def params(self) -> dict[str, Any]:
        """As plain values."""
        return self.hyper.model_dump(mode="json")


@dataclass(slots=True)
class Lane:
    """One family in the race."""

    name: str
    family: type[Model]
    waiting: list[Step]
    """Guesses, best first."""
    space: Space = field(default_factory=dict[str, Any])
    shares: tuple[float, ...] = (1.0,)
    objectives: tuple[str, ...] = ("score",)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    runs: list[Run] = field(default_factory=list[Run])
    pending: list[Step] = field(default_factory=list[Step])
    """Begun and not yet admitted."""
    kept: list[Run] = field(default_factory=list[Run])
    over: bool = False
    proposals_n: int = 0
    idle_n: int = 0
    """Proposals since the last one that brought something."""
    _proposer: TellProposer | None = None
    _open: dict[int, int] = field(default_factory=dict[int, int])
    """Proposer's number by proposal."""

    @property
    def best(self) -> Run | None:
        """The best run whose bundle is kept."""
        return max(self.kept, key=lambda r: r.score, default=None)

    @property
    def full(self) -> list[Run]:
        """Runs on the whole train split that have a model."""
        return [r for r in self.runs if r.share == 1 and r.state != "failed"]

    @property
    def anchor(self) -> Run | None:
        """The best of the guesses."""
        return max((r for r in self.full if r.origin in {"guess", "earlier"}), key=lambda r: r.score, default=None)

    @property
    def searches(self) -> bool:
        """Whether there is more to try when the guesses are exhausted."""
        return bool(self.space) and self.anchor is not None

    def fit_s(self) -> float | None:
        """What a fit on the whole of train takes; None before the first."""
        took = [r.fit_s for r in self.full]
        return sum(took) / len(took) if took else None

    def around_s(self) -> float:
        """Predicting, writing and measuring, beside the fit."""
        return max((r.predict_s + r.bundle_s for r in self.runs), default=0.0)

    # ---------------------------------------------------------------- what comes next

    def next(self, *, last: bool) -> Step | None:
        """The next step, now begun; None: there is nothing more to try.

        Args:
            last: no time for more than one fit on the whole of train.
        """
        step = self.waiting.pop(0) if self.waiting else self._searched(last=last) if self.searches else None
        if step is not None:
            self.pending.append(step)
        return step

    def _searched(self, *, last: bool) -> Step | None:
        anchor = self.anchor
        assert anchor is not None
        anchors = [r for r in self.runs if r.origin == "anchor"]
        if any(a.state == "failed" for a in anchors):  # a share too small for this family
            self.shares = (1.0,)
        begun = {a.share for a in anchors} | {s.share for s in self.pending if s.origin == "anchor"}
        if missing := [s for s in self.shares[:-1] if s not in begun and not last]:
            return Step(self.family.Hyper.model_validate(anchor.params), "anchor", missing[0])
        proposed = [r for r in self.runs if r.origin == "proposal"]
        begun_again = {s.proposal for s in self.pending if s.share > self.shares[0]}
        if found := promotion([r for r in proposed if r.proposal not in begun_again], anchors, self.shares, last=last):
            run, share = found
            return Step(self.family.Hyper.model_validate(run.params), "proposal", share, run.proposal)
        hyper = self._propose()
        return None if hyper is None else Step(hyper, "proposal", 1.0 if last else self.shares[0], self.proposals_n)

    def _propose(self) -> BaseModel | None:
        anchor = self.anchor
        assert anchor is not None
        if self._proposer is None:
            self._proposer = propose_from(self.space, objectives=len(self.objectives), seed=self.seed, name=self.name)
            for run in self.full:
                if values := self._values(run):
                    self._proposer.teach(run.params, values)
        tried = [r.params for r in self.runs] + [s.params for s in self.pending]
        for _ in range(ASKS):
            number, asked = self._proposer.ask()
            try:
                hyper = self.family.Hyper.model_validate({**anchor.params, **asked})
            except ValidationError:
                self._proposer.tell(number, None)
                continue
            if hyper.model_dump(mode="json") in tried:
                self._proposer.tell(number, None)
                continue
            self.proposals_n += 1
            self._open[self.proposals_n] = number
            return hyper
        return None

    def _values(self, run: Run) -> tuple[float, ...] | None:
        """What the proposer is told of a run, all the higher the better; None: nothing is known of it."""
        if run.state == "failed":
            return None
        if len(self.objectives) > 1:
            return None if run.latency is None or run.size_bytes is None else tuple(_figure(run, o) for o in self.objectives)
        if run.share < 1:
            anchors = [r for r in self.runs if r.origin == "anchor"]
            above = gain(run, anchors)
            return (self.anchor.score + above,) if self.anchor and math.isfinite(above) else None
        if self.limits.broken_by(run):  # outside the limits it is worth less than whatever was seen inside
            return (min(r.score for r in self.full) - 0.01,)
        return (run.score,)

    # ---------------------------------------------------------------- what was done

    def replay(self, run: Run) -> Step:
        """Bring the lane to where ``run`` had just been begun; returns its step."""
        hyper = self.family.Hyper.model_validate(run.params)
        if run.origin in {"guess", "earlier"}:
            self.waiting.pop(0)
        elif run.origin == "proposal" and run.proposal not in self._open:
            proposed = self._propose()
            if proposed is None or proposed.model_dump(mode="json") != run.params:  # another version of the proposer: go on from what was done
                self.proposals_n = run.proposal or self.proposals_n
                self._open[self.proposals_n] = -1
        step = Step(hyper, run.origin, run.share, run.proposal)
        self.pending.append(step)
        return step

    def admit(self, step: Step, run: Run) -> list[Run]:
        """Take in a finished run; returns the runs whose bundles are no longer wanted."""
        self.pending.remove(step)
        before = max((r.score for r in self.full), default=-math.inf)
        self.runs.append(run)
        if run.origin == "proposal":
            self._tell(run)
            width = run.metrics.get("high", 0.0) - run.metrics.get("low", 0.0)
            better = run.share == 1 and run.score > before + LITTLE * width
            first = sum(r.proposal == run.proposal for r in self.runs) == 1
            self.idle_n = 0 if better else self.idle_n + first
        if not run.bundled:
            return []
        contenders = [*self.kept, run]
        self.kept = _front(contenders, self.limits, KEPT if len(self.objectives) == 1 else KEPT_FRONT)
        return [r for r in contenders if r not in self.kept]

    def _tell(self, run: Run) -> None:
        if self._proposer is None or run.proposal is None:
            return
        values = self._values(run)
        if values is None and len(self.objectives) == 1 and self.full:  # a region that fails is not asked again
            values = (min(r.score for r in self.full) - 0.05,)
        number = self._open.get(run.proposal)
        if number is not None and number >= 0:
            self._proposer.tell(number, values)
            self._open[run.proposal] = -1
        elif values is not None:
            self._proposer.teach(run.params, values)


def _figure(run: Run, objective: str) -> float:
    assert run.latency is not None
    assert run.size_bytes is not None
    return {"score": run.score, "latency": -math.log(run.latency["p99_ms"] + 1e-6), "size": -math.log(run.size_bytes + 1), "memory": -float(run.latency["memory_bytes"])}[objective]


def _front(runs: Sequence[Run], limits: Limits, kept: int) -> list[Run]:
    """The best run, the best within the limits, the second best (to compare with), and what no other beats in score, latency and size."""

    def beats(a: Run, b: Run) -> bool:
        x, y = ((-r.score, r.latency["p99_ms"] if r.latency else math.inf, r.size_bytes or math.inf) for r in (a, b))
        return x != y and all(i <= j for i, j in zip(x, y, strict=True))

    by_score = sorted(runs, key=lambda r: -r.score)
    within = [r for r in by_score if not limits.broken_by(r)]
    ordered = [by_score[0], *within[:1], *by_score[1:2], *(r for r in by_score if not any(beats(o, r) for o in runs))]
    return list({r.name: r for r in ordered}.values())[:kept]
