"""The end of a selection: refit the chosen recipe on train + valid if time allows, measure it, and look at test once.

Knows nothing of how the choice was made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wenfang.core.examples import Examples, Output
from wenfang.core.ports import Cancelled
from wenfang.models.base import Curve, Model
from wenfang.stats.bootstrap import interval
from wenfang.stats.paired import compare

from .choose import Choice, Cost
from .evaluate import Evaluation, evaluate, predict_all
from .latency import BUSY, Latency, measure_strictly, size_of
from .remote import SAMPLE
from .robustness.checking import Checked, check_robustness
from .scrutiny import Scrutiny, check_bundle, look_closer
from .search import Search
from .trial import Run, card_of, reason_of
from .verdict import Sentence, megabytes
from .wanted import judge

__all__ = ["Final", "finish"]

OVERTIME = 1.10
"""The refit may end at this share of the budget; what follows is short."""
CHECKING = (0.01, 0.04)
"""The robustness tests get at least and at most this share of the budget; what is left of it lies between."""
CHECKING_MOST_S = 60.0
REMOTE_TEST = 0.1
"""A remote model may take at least this share of the budget to answer test."""


@dataclass(slots=True)
class Final:
    """The model that leaves the selection."""

    bundle: Path
    run: str
    family: str
    refitted: bool
    latency: Latency
    size_bytes: int
    evaluation: Evaluation
    paired: dict[str, Any] | None = None
    leaks: dict[str, Any] | None = None
    sentences: list[Sentence] = field(default_factory=list[Sentence])
    refit: dict[str, Any] = field(default_factory=dict[str, Any])
    scrutiny: Scrutiny = field(default_factory=Scrutiny)

    @property
    def test(self) -> dict[str, float]:
        """Score, low, high, n on test."""
        return {**self.evaluation.headline(), "n": self.evaluation.n}

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.run, "family": self.family, "refitted": self.refitted, "refit": self.refit, "latency": asdict(self.latency), "size_bytes": self.size_bytes, "test": self.test,
            "evaluation": self.evaluation.document(), "paired": self.paired, "leaks": self.leaks, **self.scrutiny.document(),
        }  # fmt: skip


def finish(search: Search, choice: Choice, *, families: Mapping[str, type[Model]], test: Examples, leaked_test_rows: Sequence[int] = ()) -> Final:
    """Refit, measure and test the chosen run; the runner-up is tested beside it, as it was judged on valid."""
    journal, run = search.journal, next(r for r in search.all_runs() if r.name == choice.chosen)
    bundle, refit = journal.work / "bundles" / run.name, _refit(search, run, families[run.family])
    latency, size_bytes = run.cost(), run.size_bytes
    if refit["done"]:
        bundle, latency, size_bytes = journal.work / "bundles" / "final", Latency(**refit["latency"]), refit["size_bytes"]
    assert latency is not None
    assert size_bytes is not None
    search.progress.stage("test", 1 + (choice.runner_up is not None), "models")
    answers = _answers(search, "test-final", bundle, test, run)
    evaluation = judge(answers, test, metric=search.plan.metric, seed=search.plan.seed)
    search.progress.advance(1, test=evaluation.score)
    final = Final(bundle, run.name, run.family, bool(refit["done"]), latency, size_bytes, evaluation, refit=refit)
    final.sentences.append((refit["key"], refit["fields"]))
    if latency.load > BUSY:
        cores = os.cpu_count() or 1
        final.sentences.append(("select.machine-busy", {"load": round(latency.load * cores, 1), "cores": cores}))
    if choice.runner_up:
        second = next(r for r in search.all_runs() if r.name == choice.runner_up)
        other = judge(_answers(search, "test-runner-up", journal.work / "bundles" / choice.runner_up, test, second), test, metric=search.plan.metric, seed=search.plan.seed)
        final.paired = {"runner_up": choice.runner_up, "score": other.score, "refitted": False, **asdict(compare(evaluation.counts, other.counts, seed=search.plan.seed))}
        search.progress.advance(1)
    if len(leaked_test_rows):
        final.leaks = _without(evaluation, leaked_test_rows, search.plan.seed)
    _scrutinise(search, final, answers, test)
    return final


def _scrutinise(search: Search, final: Final, answers: Sequence[Output], test: Examples) -> None:
    """The closer look; robustness tests are asked once, also across a restart."""
    plan, journal = search.plan, search.journal
    valid = evaluate(journal.answers(final.run), search.valid, resamples=10)
    final.scrutiny = look_closer(final.evaluation, answers, test, train=search.train, valid=valid, latency=final.latency, checks=plan.checks, seed=plan.seed)
    done = [e for e in journal.find("robustness") if e["bundle"] == final.bundle.name]
    if not done:
        limit_s = min(CHECKING_MOST_S, max(CHECKING[0] * plan.budget_s, min(CHECKING[1] * plan.budget_s, plan.budget_s - journal.spent_s())))
        remote = search.remote_model(next(r for r in search.all_runs() if r.name == final.run))
        more: dict[str, Any] = {"train": search.train, "limit_s": limit_s, "seed": plan.seed, "progress": search.progress}
        if remote is not None:
            remote.until = time.monotonic() + limit_s
            found = check_robustness(remote, test, answers, plan.checks.robustness, sample=SAMPLE, **more)
        else:
            found = check_bundle(search.ports.host, final.bundle, test, answers, checks=plan.checks, **more)
        journal.add("robustness", bundle=final.bundle.name, tests=[asdict(c) for c in found])
        done = journal.find("robustness")
    final.scrutiny.robustness = [Checked(**test) for test in done[-1]["tests"]]


def _refit(search: Search, run: Run, family: type[Model]) -> dict[str, Any]:
    """Fit again on train + valid; the answer says whether the result is used and why not."""
    journal = search.journal
    for entry in journal.find("refit"):
        if not entry["refit"]["done"] or (journal.work / "bundles" / "final").is_dir():
            return entry["refit"]
    lane = next(x for x in search.lanes if x.name == run.family)
    search.progress.stage("refit", 1, "runs")
    if family.remote:  # it learns nothing but which examples to show: what was judged is what leaves
        answer = _not_refitted("verdict.refit-needless")
        journal.add("refit", refit=answer)
        return answer
    need_s = 1.1 * search.growth * run.fit_s
    left_s = OVERTIME * search.plan.budget_s - journal.spent_s() - search.tail_s(lane)
    if need_s > left_s:
        answer = _not_refitted("verdict.refit-no-time", need_s=need_s, left_s=max(0.0, left_s))
    else:
        try:
            answer = _fit_again(search, run, family, left_s)
        except Cancelled:
            raise
        except Exception as e:  # the model judged on valid is still there and good: keep it and say why
            key, fields = reason_of(e)
            answer = {**_not_refitted("verdict.refit-failed", reason=key), "reason_fields": fields}
    search.progress.advance(1)
    journal.add("refit", refit=answer)
    return answer


def _fit_again(search: Search, run: Run, family: type[Model], left_s: float) -> dict[str, Any]:
    journal, begun = search.journal, time.monotonic()
    hyper = family.Hyper.model_validate(run.refit_params)
    curve = Curve(search.progress, begun + left_s, checkpoints=journal.work / "checkpoints" / "final")
    learned = search.ports.fit(family(hyper, task=search.train.task, seed=run.seed), search.train + search.valid, None, curve)
    fit_s = time.monotonic() - begun
    if learned.cut:
        return _not_refitted("verdict.refit-cut", limit_s=left_s)
    search.progress.stage("measure", 1, "models")
    folder = journal.folder("final")
    search.ports.write_bundle(folder, learned.model, card_of(run, {"refit": True, "params": run.refit_params, "rows": len(search.train) + len(search.valid)}))
    size_bytes = size_of(folder)
    limit_s = max(0.6, 0.05 * search.plan.budget_s)
    latency = measure_strictly(
        search.ports.host, folder, search.valid, max_p99_ms=search.plan.limits.max_latency_ms, seed=search.plan.seed, limit_s=limit_s, progress=search.progress
    )
    if search.plan.limits.broken_by(Cost(asdict(latency), size_bytes, run.charged)):
        return _not_refitted("verdict.refit-over-limits", p99_ms=latency.p99_ms, size_mb=megabytes(size_bytes))
    search.progress.advance(1, p99_ms=latency.p99_ms)
    rows = len(search.train) + len(search.valid)
    answer = {"done": True, "key": "verdict.refitted", "fields": {"rows": rows}, "params": run.refit_params, "fit_s": fit_s, "latency": asdict(latency), "size_bytes": size_bytes}
    return answer


def _not_refitted(key: str, **fields: Any) -> dict[str, Any]:
    return {"done": False, "key": key, "fields": fields}


def _answers(search: Search, name: str, bundle: Path, test: Examples, run: Run) -> list[Output]:
    """Answers of a bundle to the test texts, through a real replica unless they come from elsewhere; asked once, also across a restart."""
    journal = search.journal
    if any(e["name"] == name and e["bundle"] == bundle.name for e in journal.find("tested")):
        return journal.answers(name)
    remote = search.remote_model(run)
    if remote is not None:
        remote.until = time.monotonic() + max(REMOTE_TEST * search.plan.budget_s, search.left_s())
        outputs = predict_all(remote, test, progress=search.progress)
    else:
        replica = search.ports.host.start(bundle)
        try:
            outputs = predict_all(replica, test, progress=search.progress)
        finally:
            replica.close()
    journal.keep_answers(name, outputs)
    journal.add("tested", name=name, bundle=bundle.name)
    return outputs


def _without(evaluation: Evaluation, leaked: Sequence[int], seed: int) -> dict[str, Any]:
    """The score on the test rows that do not stand in train."""
    keep = np.ones(evaluation.n, np.bool_)
    keep[list(leaked)] = False
    n = int((~keep).sum())
    return {"n": n, "without": {**asdict(interval(evaluation.counts.take(keep), seed=seed)), "n": int(keep.sum())} if keep.any() else None}
