"""Proposals, halving and the race of families, in a world where the best point is known."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from selection_world import Constant, InProcess, Oracle, OracleHyper, Tuned, TunedHyper, examples, family, luck

from wenfang.core.errors import Invalid
from wenfang.core.examples import Output
from wenfang.models.space import Choice, Float, Integer
from wenfang.select.choose import Limits
from wenfang.select.halving import portion, promotion, shares_for
from wenfang.select.proposals import propose_from
from wenfang.select.selection import Plan, Ports, select
from wenfang.select.trial import Run

SPACE = {"rate": Float(1e-4, 1.0, log=True), "depth": Integer(1, 8), "kind": Choice(("a", "b", None))}


def run(work, *families, rows=400, budget_s=30.0, plan=None, **more):
    host = InProcess(*families)
    parts = examples(rows), examples(300, start=rows), examples(300, start=rows + 300)
    return select(*parts, families={f.__name__: f for f in families}, ports=Ports(host, host.write), plan=Plan(budget_s, **(plan or {})), work=work, **more)


def runs(outcome, **wanted):
    return [r for r in outcome.document["runs"] if all(r[k] == v for k, v in wanted.items())]


def value(params):
    return -((np.log10(params["rate"]) + 2) ** 2) - (params["depth"] - 5) ** 2 / 8 + (params["kind"] == "b")


def test_the_proposer_draws_near_to_the_best_point_and_repeats_itself():
    def walk():
        proposer, seen = propose_from(SPACE, objectives=1, seed=3, name="f"), []
        proposer.teach({"rate": 0.5, "depth": 1, "kind": "a"}, [value({"rate": 0.5, "depth": 1, "kind": "a"})])
        proposer.teach({"rate": 0.5, "depth": 1, "kind": "outside"}, [9.0])
        for _ in range(40):
            number, params = proposer.ask()
            assert all(SPACE[k].holds(v) for k, v in params.items())
            seen.append((value(params), params))
            proposer.tell(number, [seen[-1][0]])
        return seen

    first = walk()
    assert first == walk()
    best = max(v for v, _ in first)
    assert best > 0.6, "the best there is is 1; the guess has -6"
    assert np.mean([v for v, _ in first[20:]]) > np.mean([v for v, _ in first[:6]])
    assert propose_from(SPACE, objectives=1, seed=3, name="g").ask() != propose_from(SPACE, objectives=1, seed=3, name="f").ask()


def test_two_objectives_walk_by_nsga():
    proposer = propose_from(SPACE, objectives=2, seed=0, name="f")
    for _ in range(25):
        number, params = proposer.ask()
        proposer.tell(number, None if params["depth"] == 1 else [value(params), -params["depth"]])
    assert proposer.ask()[0] == 25


def test_shares_lie_inside_each_other_and_keep_every_label():
    data = examples(3000)
    data.labels[:3] = ["rare"] * 3
    small, large = portion(data, 1 / 9, seed=1), portion(data, 1 / 3, seed=1)
    assert set(small.ids) < set(large.ids) < set(data.ids)
    assert abs(len(large) - 1000) <= len(set(data.labels))
    assert small.label_names() == large.label_names() == data.label_names()
    assert portion(data, 1 / 9, seed=1).ids == small.ids != portion(data, 1 / 9, seed=2).ids
    tagged = examples(900, task="tagging")
    assert len(portion(tagged, 1 / 3, seed=0)) == 300
    assert portion(tagged, 1.0, seed=0) is tagged


def trial(proposal, share, score, candidate=0, origin="proposal"):
    return Run("t", "t", candidate or proposal, {}, 0, origin=origin, share=share, proposal=proposal, metrics={"score": score})


def test_the_best_third_goes_on_if_it_is_no_worse_than_the_anchor():
    shares = shares_for(9000)
    low, middle, whole = shares
    anchors = [trial(None, low, 0.5, 1, "anchor"), trial(None, middle, 0.6, 2, "anchor")]
    done = [trial(1, low, 0.4), trial(2, low, 0.55)]
    assert promotion(done, anchors, shares, last=False) is None, "two are too few"
    done.append(trial(3, low, 0.3))
    assert promotion(done, anchors, shares, last=False) == (done[1], middle)
    done += [trial(2, middle, 0.58), trial(4, low, 0.45), trial(5, low, 0.46), trial(6, low, 0.47)]
    assert promotion(done, anchors, shares, last=False) is None, "the second best of six is below the anchor"
    assert promotion(done, anchors, shares, last=True) is None
    done.append(trial(7, low, 0.52))
    assert promotion(done, anchors, shares, last=False) == (done[-1], middle)
    assert promotion(done, anchors, shares, last=True) == (done[-1], whole)


def test_proposals_find_what_the_guesses_miss(tmp_path):
    tuned = family("tuned", base=Tuned)
    outcome = run(tmp_path, tuned, Constant, budget_s=120.0)  # it ends by itself, long before
    best = max(runs(outcome, family="tuned"), key=lambda r: r["metrics"]["score"])
    assert [r["origin"] for r in runs(outcome, family="tuned")][:3] == ["guess", "guess", "proposal"]
    assert best["origin"] == "proposal"
    assert abs(best["params"]["x"] - 0.7) < 0.15
    assert best["params"]["kind"] == "fancy"
    assert outcome.verdict["valid"]["score"] > 0.95
    assert len({json.dumps(r["params"]) for r in runs(outcome)}) == len(runs(outcome)), "nothing is fitted twice"
    assert outcome.document["given_up"][-1]["key"] == "select.family-no-gain"


@pytest.mark.slow
def test_halving_fits_many_on_little_and_few_on_all(tmp_path):
    outcome = run(tmp_path, family("tuned", base=Tuned), rows=3300)
    shares = sorted({round(r["share"], 3) for r in runs(outcome)})
    assert shares == [0.333, 1.0]
    proposals = runs(outcome, origin="proposal")
    assert len(runs(outcome, origin="anchor")) == 1
    assert sum(r["share"] == 1 for r in proposals) * 2 <= sum(r["share"] < 1 for r in proposals)
    assert all(r["latency"] is None for r in runs(outcome) if r["share"] < 1)
    assert {c["name"] for c in outcome.verdict["candidates"]} <= {r["name"] for r in runs(outcome, share=1.0)}
    assert outcome.verdict["valid"]["score"] > 0.93


def test_the_budget_holds_among_proposals_too(tmp_path):
    tuned = family("tuned", TunedHyper(fit_s=0.4), base=Tuned)
    began = time.monotonic()
    outcome = run(tmp_path, tuned, budget_s=8.0)
    assert time.monotonic() - began < 8.0 * 1.3
    assert runs(outcome, origin="proposal")
    assert outcome.document["final"]["refit"]["key"] in {"verdict.refitted", "verdict.refit-no-time", "verdict.refit-cut"}


def test_a_family_that_stands_behind_is_not_searched(tmp_path):
    tuned = family("tuned", TunedHyper(x=0.0), base=Tuned)
    outcome = run(tmp_path, family("good", OracleHyper(error=0.01, salt="g"), rank=2), tuned)
    assert not runs(outcome, origin="proposal")
    assert any(g["key"] == "select.family-behind" and g["family"] == "tuned" for g in outcome.document["given_up"])


class LargeAndBetter(Oracle):
    """The better the larger."""

    tried = (OracleHyper(size_bytes=2000, error=0.3),)

    @classmethod
    def space(cls, shape):
        return {"size_bytes": Integer(1000, 100_000, log=True)}

    def _one(self, text):
        label = text.rsplit(" ", 1)[-1]
        wrong = luck(text, "large") < 0.5 - 0.1 * np.log10(self.hyper.size_bytes)
        return Output(label=next(name for name in self.labels_ if name != label) if wrong else label, score=0.5)


@pytest.mark.slow
def test_a_front_when_it_is_asked_for(tmp_path):
    outcome = run(tmp_path, family("large", base=LargeAndBetter), budget_s=10.0, plan={"objectives": ("score", "size")})
    assert outcome.document["objectives"] == ["score", "size"]
    on_front = [c for c in outcome.verdict["candidates"] if c["on_front"]]
    assert len(on_front) > 3
    assert all(r["latency"] for r in runs(outcome, state="done"))
    ordered = sorted(on_front, key=lambda c: c["size_bytes"])
    assert ordered[-1]["valid"]["score"] > ordered[0]["valid"]["score"] + 0.03


@pytest.mark.parametrize("wrong", [("latency",), ("score", "beauty"), ("score", "score")])
def test_unknown_objectives_are_refused(wrong):
    with pytest.raises(Invalid, match="unknown-objective"):
        Plan(10.0, objectives=wrong)


def test_the_search_stays_inside_the_limits(tmp_path):
    outcome = run(tmp_path, family("large", base=LargeAndBetter), budget_s=10.0, plan={"limits": Limits(max_size_bytes=20_000)})
    assert 10_000 < outcome.verdict["size_bytes"] <= 20_000
    assert outcome.document["choice"]["excluded"], "larger ones were tried and left out"


SCRIPT = """
import sys, json
sys.path.insert(0, {here!r})
from pathlib import Path
from selection_world import *
from wenfang.select.selection import Plan, Ports, select
tuned = family("tuned", base=Tuned)
host = InProcess(tuned)
o = select(examples(3000), examples(150, start=3000), examples(150, start=3150), families=dict(tuned=tuned), ports=Ports(host, host.write), plan=Plan(60), work=Path(sys.argv[1]))
print(json.dumps(dict(test=o.verdict["test"], runs=[(r["name"], r["state"], r["origin"], r["share"], r["params"], r["metrics"]) for r in o.document["runs"]], fits=len(tuned.fits))))
"""


def child(work, **environment):
    script = SCRIPT.format(here=str(Path(__file__).parent))
    return subprocess.run([sys.executable, "-c", script, str(work)], capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.slow
def test_a_search_killed_among_its_proposals_goes_on_to_the_same_end(tmp_path):
    log = tmp_path / "points"
    done = child(tmp_path / "whole", WENFANG_CRASH_LOG=str(log))
    assert done.returncode == 0, done.stderr
    whole, n = json.loads(done.stdout), len(log.read_text().splitlines())
    assert sum(r[2] == "proposal" for r in whole["runs"]) > 10
    for part in (3,):
        work = tmp_path / f"part-{part}"
        assert child(work, WENFANG_CRASH_AT=str(n - n // part)).returncode == -9
        again = child(work)
        assert again.returncode == 0, again.stderr
        found = json.loads(again.stdout)
        assert 0 < found["fits"] < whole["fits"]
        assert (found["runs"], found["test"]) == (whole["runs"], whole["test"])


def heavy(*modules):
    def libraries(self):
        return modules

    made = family("heavy", OracleHyper(error=0.1))
    made.libraries = libraries
    return made


def test_libraries_are_loaded_beside_the_first_fit(tmp_path, monkeypatch):
    (tmp_path / "a_slow_library.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_slow_library", raising=False)
    outcome = run(tmp_path / "work", heavy("a_slow_library"), budget_s=20.0)
    (only,) = runs(outcome)
    assert only["loading_s"] >= 0.5 > only["fit_s"]
    assert outcome.document["final"]["refit"]["fit_s"] < 0.5


def test_a_budget_without_time_for_one_fit_is_refused_and_the_least_is_told(tmp_path):
    slow = heavy(*[f"never_there_{i}" for i in range(30)])
    with pytest.raises(Invalid, match="budget-too-small") as e:
        run(tmp_path / "small", slow, budget_s=5.0)
    assert e.value.fields["least_s"] > 15
    assert "5.0 s is too small" in e.value.detail("en") and str(e.value.fields["least_s"]) in e.value.detail("en")
    outcome = run(tmp_path / "enough", slow, budget_s=10.0 * e.value.fields["least_s"])  # the machine may be busier by then
    assert [r["state"] for r in runs(outcome)] == ["done"]
    light = run(tmp_path / "mixed", slow, family("light", OracleHyper(error=0.2)), budget_s=5.0)
    assert [r["name"] for r in runs(light)] == ["light-1"]
    assert [g["key"] for g in light.document["given_up"] if g["family"] == "heavy"] == ["select.family-not-begun"]
