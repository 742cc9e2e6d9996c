"""When valid is too small to tell the best candidates apart: they are fitted again on parts of train, and the answers to the rest of it are added.

Every fold is fitted exactly as the runs of the search were, valid in the same part (when to stop, thresholds, how an ensemble weighs its
members), and answers the part of train it was kept from; with the answers to valid each example counts once. Near-duplicates lie
in one fold. Nothing is begun that cannot end with the refit inside the budget; folds that are done stay done across a restart.
Knows nothing of how the choice is made of the answers. Source: Stone 1974 (Cross-validatory choice).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wenfang.core.errors import Broken
from wenfang.core.examples import Examples, Output
from wenfang.core.ports import Cancelled
from wenfang.data.split import split_rows
from wenfang.models.base import Curve, Model
from wenfang.models.families.ensemble import Ensemble, Member
from wenfang.stats.scores import Counts, score

from .choose import Candidate, finalists
from .evaluate import predict_all
from .search import FOLDS, Search
from .trial import Run, reason_of
from .verdict import Sentence
from .wanted import judge

__all__ = ["Folds", "confirm_by_folds"]


@dataclass(frozen=True, slots=True)
class Folds:
    """What folds found, or why there were none."""

    sentence: Sentence
    counts: Mapping[str, Counts] = field(default_factory=dict[str, Counts])
    """By run, over the answers of all folds that ended and those to valid; empty: nothing was found."""
    folds_n: int = 0
    """That ended."""
    n: int = 0
    """Answers of each run."""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        scores = {name: score(counts) for name, counts in self.counts.items()}
        return {"key": self.sentence[0], "fields": self.sentence[1], "folds_n": self.folds_n, "n": self.n, "scores": scores}


def confirm_by_folds(search: Search, candidates: Sequence[Candidate]) -> Folds | None:
    """Fit folds for the leader and its rivals; None: valid has decided, or nobody could be fitted again.

    Args:
        search: ended.
        candidates: its contenders, judged on valid.

    Raises:
        Invalid: `select.no-candidate-meets-limits`; Cancelled: from the progress.

    Cost: at most what the budget leaves beside the refit.
    """
    begun = search.journal.find("folds")
    plan = begun[0] if begun else _plan(search, candidates)
    if plan is None:
        return None
    if not begun:
        search.journal.add("folds", **plan)
    if not plan["folds_n"]:
        search.progress.note(plan["key"], **plan["fields"])
        return Folds((plan["key"], plan["fields"]))
    by_name = {r.name: r for r in search.all_runs()}
    runs = [by_name[name] for name in plan["runs"]]
    parts = list(split_rows(search.train, shares={str(i): 1.0 for i in range(FOLDS)}, seed=search.plan.seed).values())
    _fit_folds(search, runs, parts[: plan["folds_n"]])
    return _pooled(search, runs, parts)


# ---------------------------------------------------------------- who, and in what time


def _plan(search: Search, candidates: Sequence[Candidate]) -> dict[str, Any] | None:
    """Who is fitted on how many folds, or why nobody is."""
    runs = _finalists(search, candidates)
    if len(runs) < 2:
        return None
    names = [r.name for r in runs]
    if search.train.weights:
        return {"folds_n": 0, "key": "verdict.folds-weighted", "fields": {"runs": names, "valid_n": len(search.valid)}}
    left_s = _left_s(search, runs)
    for few in dict.fromkeys((tuple(names), tuple(names[:2]))):
        members = _members(search, [r for r in runs if r.name in few])
        for n in range(FOLDS, 0, -1):
            if search.folds_s(members, n) <= left_s:
                return {"folds_n": n, "runs": list(few)}
    need_s = search.folds_s(_members(search, runs[:2]), 1)
    return {"folds_n": 0, "key": "verdict.folds-no-time", "fields": {"runs": names[:2], "valid_n": len(search.valid), "need_s": need_s, "left_s": max(0.0, left_s)}}


def _finalists(search: Search, candidates: Sequence[Candidate]) -> list[Run]:
    """Those among whom folds decide, as far as they learn here."""
    by_name = {r.name: r for r in search.all_runs()}
    remote = {lane.name for lane in search.lanes if lane.family.remote}
    wanted = [by_name[name] for name in finalists(candidates, search.plan.limits, seed=search.plan.seed)]
    return [] if wanted[0].family in remote else [r for r in wanted if r.family not in remote]


def _left_s(search: Search, runs: Sequence[Run]) -> float:
    """What may go into folds: what is left, less the refit of the dearest of them and what follows it."""
    lanes = {lane.name: lane for lane in search.lanes}
    return search.left_s() - max(1.1 * search.growth * r.fit_s + search.tail_s(lanes[r.family]) for r in runs)


def _members(search: Search, runs: Sequence[Run]) -> list[Run]:
    """The runs that have to be fitted for these: members in the place of the ensembles they make up, each once, the cheapest first."""
    found: dict[str, Run] = {}
    for run in runs:
        found |= {m.name: m for m in _members_of(search, run)}
    return sorted(found.values(), key=lambda r: r.fit_s)


def _members_of(search: Search, run: Run) -> list[Run]:
    """The runs that an ensemble was assembled of; any other run is its own only member."""
    if run.origin != "assembled":
        return [run]
    whole = [r for r in search.all_runs() if r.share == 1 and r.origin != "assembled"]
    return [next(r for r in whole if (r.family, r.params, r.seed) == (m["family"], m["hyper"], m["seed"])) for m in run.params["members"]]


# ---------------------------------------------------------------- the folds


def _fit_folds(search: Search, runs: Sequence[Run], parts: Sequence[Sequence[int]]) -> None:
    """Fit what is missing, fold by fold; the first that fails or finds no time is the last."""
    journal, members = search.journal, _members(search, runs)
    done = len(journal.find("fold"))
    if journal.find("folds-over"):
        return
    search.progress.stage("folds", len(parts) * len(members), "runs")
    search.progress.advance(done * len(members))
    one_s = search.folds_s(members, 1)
    for number in range(done, len(parts)):
        left_s = _left_s(search, runs)
        if one_s > left_s:
            journal.add("folds-over", key="verdict.folds-no-time", fields={"need_s": one_s, "left_s": max(0.0, left_s)})
            return
        try:
            answers = _fold(search, runs, parts[number], number, left_s)
        except Cancelled:
            raise
        except Exception as e:  # folds may only add: what valid says is still there, and why they failed is told
            key, fields = reason_of(e)
            journal.add("folds-over", key="verdict.folds-failed", fields={"reason": {"key": key, "fields": fields}})
            return
        for name, outputs in answers.items():
            journal.keep_answers(f"fold-{number}-{name}", outputs)
        journal.add("fold", number=number)
        shutil.rmtree(journal.work / "checkpoints" / f"fold-{number}", ignore_errors=True)


def _fold(search: Search, runs: Sequence[Run], rows: Sequence[int], number: int, left_s: float) -> dict[str, list[Output]]:
    """What each of the runs, fitted on the rest of train, answers to the rows of one fold."""
    held = set(rows)
    rest, asked = search.train.take([i for i in range(len(search.train)) if i not in held]), search.train.take(rows)
    until = time.monotonic() + left_s
    models: dict[str, Model] = {}
    for member in _members(search, runs):
        models[member.name] = _fit_member(search, member, rest, number, until)
        search.progress.advance(1, run=member.name, left_s=round(search.left_s()))
    answers: dict[str, list[Output]] = {}
    for run in runs:
        members = _members_of(search, run)
        alone = members == [run]
        hypers = [Member(family=m.family, hyper=m.params, seed=m.seed) for m in members]
        model = models[run.name] if alone else Ensemble.of([models[m.name] for m in members], hypers, search.valid, seed=run.seed)
        answers[run.name] = predict_all(model, asked, progress=search.progress)
    return answers


def _fit_member(search: Search, run: Run, rest: Examples, number: int, until: float) -> Model:
    """Fit a run again on ``rest``, in the time it then takes; one that was cut off is cut off in proportion.

    Raises:
        Broken: `select.fold-cut`.
    """
    family = next(lane.family for lane in search.lanes if lane.name == run.family)
    stopped = run.state == "stopped"
    if stopped:
        until = min(until, time.monotonic() + run.fit_s * len(rest) / len(search.train))
    curve = Curve(search.progress, until, checkpoints=search.journal.work / "checkpoints" / f"fold-{number}" / run.name)
    learned = search.ports.fit(family(family.Hyper.model_validate(run.params), task=search.train.task, seed=run.seed), rest, search.valid, curve)
    if learned.cut and not stopped:
        raise Broken("select.fold-cut", run=run.name)
    return learned.model


# ---------------------------------------------------------------- what they say


def _pooled(search: Search, runs: Sequence[Run], parts: Sequence[Sequence[int]]) -> Folds:
    """The answers of all folds that ended, with those to valid."""
    journal, done = search.journal, len(search.journal.find("fold"))
    names, over = [r.name for r in runs], journal.find("folds-over")
    if not done:
        fields = {**over[0]["fields"], "runs": names, "valid_n": len(search.valid)}
        return Folds((over[0]["key"], fields))
    rows = [row for part in parts[:done] for row in part]
    pool = search.train.take(rows) + search.valid
    counts: dict[str, Counts] = {}
    for run in runs:
        outputs = [o for i in range(done) for o in journal.answers(f"fold-{i}-{run.name}")] + journal.answers(run.name)
        counts[run.name] = judge(outputs, pool, metric=search.plan.metric, resamples=2, seed=search.plan.seed).counts
    told = [f"{name} {score(counts[name]):.4f}" for name in sorted(names, key=lambda n: -score(counts[n]))]
    fields = {"valid_n": len(search.valid), "runs": names, "n": len(pool), "fold_n": len(rows), "done_n": done, "folds_n": len(parts), "scores": told}
    return Folds(("verdict.folds", fields), counts, done, len(pool))
