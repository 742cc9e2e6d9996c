"""Whole selections in a world with known answers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from selection_world import Constant, InProcess, Oracle, OracleHyper, Watcher, examples, family

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Quiet
from wenfang.core.words import keys, say
from wenfang.select.report import report
from wenfang.select.selection import Limits, Plan, Ports, select

TRAIN, VALID, TEST = examples(400), examples(300, start=400), examples(300, start=700)


def run(tmp_path, *families, train=TRAIN, valid=VALID, test=TEST, budget_s=15.0, host=None, limits=None, progress=None, plan=None, **more):
    host = host or InProcess(*families)
    ports, wanted = Ports(host, host.write, progress=progress or Quiet()), Plan(budget_s, limits or Limits(), **(plan or {}))
    outcome = select(train, valid, test, families={f.__name__: f for f in families}, ports=ports, plan=wanted, work=tmp_path / "work", **more)
    assert host.running == 0, "every replica that was started was stopped"
    return outcome


def state(outcome):
    return {r["name"]: r["state"] for r in outcome.document["runs"]}


GOOD = OracleHyper(error=0.05, salt="good")
FAIR = OracleHyper(error=0.2, salt="fair")


def test_the_better_family_wins_is_refitted_and_tested(tmp_path):
    good, fair = family("good", GOOD), family("fair", FAIR)
    watcher = Watcher()
    outcome = run(tmp_path, good, fair, Constant, progress=watcher, leaked_test_rows=[0, 1, 2], command="wenfang run x.csv")
    verdict = outcome.verdict
    assert list(verdict) == ["dataset_version", "model_version", "family", "metric", "valid", "test", "latency_ms", "size_bytes", "service", "report", "candidates"]
    assert (verdict["family"], verdict["metric"]) == ("good", "accuracy")
    assert verdict["valid"]["low"] < verdict["valid"]["score"] < verdict["valid"]["high"]
    assert set(verdict["test"]) == {"score", "low", "high", "n"}
    assert verdict["test"]["n"] == 300
    assert 0 < verdict["latency_ms"]["p50"] <= verdict["latency_ms"]["p99"]
    assert {c["name"] for c in verdict["candidates"]} == {"good-1", "fair-1", "Constant-1"}
    assert good.fits == ["good:400:fit", "good:700:refit"]
    assert json.loads((outcome.bundle / "card.json").read_text())["card"]["refit"] is True
    assert outcome.bundle.is_relative_to(tmp_path / "work")
    assert outcome.document["final"]["leaks"]["n"] == 3
    assert outcome.document["final"]["leaks"]["without"]["n"] == 297
    assert outcome.document["final"]["paired"]["runner_up"] == "fair-1"
    assert outcome.document["final"]["paired"]["p"] < 0.01
    assert watcher.stages == ["fit", "refit", "measure", "test", "robustness", "report"]
    json.dumps(outcome.document)
    json.dumps(outcome.verdict)


def test_all_words_exist_in_both_languages_and_are_filled(tmp_path):
    outcome = run(tmp_path, family("good", GOOD), family("slow", OracleHyper(error=0.01, salt="s", delay_ms=3), rank=2), limits=Limits(max_latency_ms=2.0), leaked_test_rows=[1])
    for lang in ("zh", "en"):
        for key, fields in outcome.sentences:
            assert key in keys()
            assert "{" not in say(key, lang, **fields)


def test_no_significant_difference_the_cheaper_one_wins(tmp_path):
    fast = family("fast", OracleHyper(error=0.10, salt="f"))
    slow = family("slow", OracleHyper(error=0.09, salt="s", delay_ms=2), rank=2)
    outcome = run(tmp_path, fast, slow)
    best = outcome.document["choice"]["best"]
    assert outcome.verdict["family"] == "fast"
    told = [k for k, _ in outcome.sentences]
    assert ("verdict.cheaper-wins" in told) == best.startswith("slow")


def test_the_floor_never_wins_by_being_cheap(tmp_path):
    """Twenty rows of valid cannot tell 45 % from 20 %, yet a constant answer is not chosen for its speed."""
    weak = family("weak", OracleHyper(error=0.75, salt="w", delay_ms=0.5), rank=2)
    outcome = run(tmp_path, Constant, weak, valid=examples(20, start=400))
    assert outcome.verdict["family"] == "weak"


def test_a_slow_model_is_left_out_by_the_limit_and_the_price_is_told(tmp_path):
    fast, slow = family("fast", FAIR), family("slow", OracleHyper(error=0.01, salt="s", delay_ms=4), rank=2)
    outcome = run(tmp_path, fast, slow, limits=Limits(max_latency_ms=3.0))
    assert outcome.verdict["family"] == "fast"
    told = dict(outcome.sentences)
    assert told["verdict.excluded-latency"]["run"] == "slow-1"
    assert told["verdict.loosening-buys"]["points"] > 10
    assert next(c for c in outcome.document["candidates"] if c["family"] == "slow")["role"] == "excluded"


def test_within_a_family_a_cheaper_candidate_survives_the_limit(tmp_path):
    """The best of the family breaks the limit; a later, worse one keeps it and must not be lost."""
    both = family("both", OracleHyper(error=0.01, salt="s", delay_ms=4), OracleHyper(error=0.15, salt="t"))
    outcome = run(tmp_path, both, limits=Limits(max_latency_ms=3.0))
    assert next(c for c in outcome.document["candidates"] if c["role"] == "chosen")["name"] == "both-2"


def test_limits_on_size_and_memory(tmp_path):
    big, small = family("big", OracleHyper(error=0.01, size_bytes=500_000)), family("small", FAIR)
    assert run(tmp_path / "1", big, small, limits=Limits(max_size_bytes=100_000)).verdict["family"] == "small"
    assert run(tmp_path / "2", big, small, limits=Limits(max_memory_bytes=1_100_000)).verdict["family"] == "small"
    assert run(tmp_path / "3", big, small).verdict["family"] == "big"


def test_nobody_meets_the_limits(tmp_path):
    with pytest.raises(Invalid) as e:
        run(tmp_path, family("slow", OracleHyper(delay_ms=4)), limits=Limits(max_latency_ms=1.0, max_size_bytes=10_000_000))
    assert e.value.code == "select.no-candidate-meets-limits"
    assert e.value.fields["nearest"] == "slow-1"
    assert e.value.fields["limit"] == "max_latency_ms"
    assert e.value.fields["times"] > 3.5
    assert "slow-1" in str(e.value)


@pytest.mark.parametrize("crash, note", [("memory", "select.run-crashed"), ("secret", "select.run-crashed"), ("nan", "select.not-a-number")])
def test_a_candidate_that_breaks_is_a_failed_run_and_the_others_go_on(tmp_path, crash, note):
    bad = family("bad", OracleHyper(crash=crash, salt="b"), OracleHyper(error=0.02, salt="c"))
    outcome = run(tmp_path, bad, family("fair", FAIR, rank=2))
    assert state(outcome) == {"bad-1": "failed", "bad-2": "done", "fair-1": "done"}
    broken = next(r for r in outcome.document["runs"] if r["name"] == "bad-1")
    assert broken["note"] == note
    assert outcome.verdict["family"] == "bad"
    assert TRAIN.texts[0] not in json.dumps(outcome.document, ensure_ascii=False), "no text of the user in a failure"


def test_a_bundle_that_cannot_be_served_fails_its_run(tmp_path):
    good, fair = family("good", GOOD), family("fair", FAIR)
    outcome = run(tmp_path, good, fair, host=InProcess(fair))  # the host does not know `good`: its replica dies at the start
    assert state(outcome) == {"good-1": "failed", "fair-1": "done"}
    assert outcome.verdict["family"] == "fair"


def test_everything_fails(tmp_path):
    with pytest.raises(Invalid, match="no-run-succeeded") as e:
        run(tmp_path, family("bad", OracleHyper(crash="memory"), OracleHyper(crash="memory"), OracleHyper(crash="memory")))
    assert e.value.fields["runs_n"] == 2, "two failures in a row end a family"
    assert "The run ended with MemoryError" in e.value.detail("en") or "memory" in e.value.detail("en")
    assert "select." not in e.value.detail("en")


def test_families_of_other_tasks_stay_out(tmp_path):
    tagger, chooser = family("tagger", tasks=["tagging"]), family("chooser", tasks=["classification"])
    split = [examples(n, start=s, task="tagging") for n, s in ((100, 0), (80, 100), (80, 180))]
    outcome = run(tmp_path, tagger, chooser, train=split[0], valid=split[1], test=split[2])
    assert (outcome.verdict["family"], outcome.verdict["metric"]) == ("tagger", "span_f1")
    with pytest.raises(Invalid, match="no-family-for-task"):
        run(tmp_path / "other", chooser, train=split[0], valid=split[1], test=split[2])


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_an_empty_split_is_refused(tmp_path, part):
    with pytest.raises(Invalid, match=r"select\.no-examples"):
        run(tmp_path, Oracle, **{part: examples(0)})


def test_a_tiny_budget_is_refused(tmp_path):
    with pytest.raises(Invalid, match="budget-too-small"):
        run(tmp_path, Oracle, budget_s=0.1)


def test_a_refit_that_fails_keeps_the_judged_model(tmp_path):
    outcome = run(tmp_path, family("one", OracleHyper(error=0.1, crash="refit")))
    assert outcome.document["final"]["refitted"] is False
    assert "verdict.refit-failed" in dict(outcome.sentences)
    assert outcome.bundle.name == "one-1"


def test_the_budget_holds_and_leaves_time_for_the_refit(tmp_path):
    greedy = family("greedy", *[OracleHyper(error=0.3 - i / 50, salt=str(i), fit_s=0.6) for i in range(12)], rank=1)
    endless = family("endless", *[OracleHyper(error=0.05, salt=str(i), fit_s=1000) for i in range(3)], rank=2)
    began = time.monotonic()
    outcome = run(tmp_path, greedy, endless, budget_s=6.0)
    assert time.monotonic() - began < 6.0 * 1.15
    states = state(outcome)
    assert states["endless-1"] == "stopped"
    assert "endless-3" not in states
    assert any(g["family"] == "endless" and g["key"] == "select.family-no-time" for g in outcome.document["given_up"])
    assert outcome.document["final"]["refit"]["key"] in {"verdict.refit-cut", "verdict.refit-no-time", "verdict.refitted"}


def test_early_end_when_candidates_are_exhausted(tmp_path):
    began = time.monotonic()
    run(tmp_path, family("good", GOOD), Constant, budget_s=600.0)
    assert time.monotonic() - began < 20


def test_a_family_that_brings_nothing_more_is_given_up(tmp_path):
    flat = family("flat", *[OracleHyper(error=0.1 + i / 20, salt="x") for i in range(8)])
    outcome = run(tmp_path, flat, limits=Limits(max_latency_ms=1000))
    assert list(state(outcome)) == ["flat-1", "flat-2", "flat-3"]
    assert outcome.document["given_up"][0]["key"] == "select.family-no-gain"
    assert len(list((tmp_path / "work" / "bundles").iterdir())) <= 5


def test_few_bundles_stay_on_disk(tmp_path):
    rising = family("rising", *[OracleHyper(error=0.4 - i / 20, salt="x", size_bytes=1000 + i) for i in range(8)])
    outcome = run(tmp_path, rising)
    assert len(state(outcome)) == 8
    assert len(list((tmp_path / "work" / "bundles").iterdir())) <= 5
    assert outcome.document["final"]["run"] == "rising-8"


def test_same_request_same_figures(tmp_path):
    def figures(outcome):
        return [(r["name"], r["metrics"], r["params"]) for r in outcome.document["runs"]], outcome.document["final"]["test"]

    families = family("good", GOOD), family("fair", FAIR)
    assert figures(run(tmp_path / "1", *families)) == figures(run(tmp_path / "2", *families))


SCRIPT = """
import sys, json
sys.path.insert(0, {here!r})
from pathlib import Path
from selection_world import *
from wenfang.select.selection import Plan, Ports, select
a = family("a", OracleHyper(error=0.05, salt="1"), OracleHyper(error=0.3, salt="2"))
b = family("b", OracleHyper(error=0.2, salt="3"), rank=2)
host = InProcess(a, b)
o = select(examples(200), examples(150, start=200), examples(150, start=350), families=dict(a=a, b=b), ports=Ports(host, host.write), plan=Plan(60), work=Path(sys.argv[1]))
print(json.dumps(dict(chosen=o.verdict["family"], test=o.verdict["test"], runs=[(r["name"], r["state"], r["metrics"]) for r in o.document["runs"]], refit=o.document["final"]["refitted"],
                      fits=a.fits + b.fits)))
"""


def child(work, **environment):
    script = SCRIPT.format(here=str(Path(__file__).parent))
    return subprocess.run([sys.executable, "-c", script, str(work)], capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def crash_points(tmp_path):
    log = tmp_path / "points"
    done = child(tmp_path / "whole", WENFANG_CRASH_LOG=str(log))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), len(log.read_text().splitlines())


def check_resumes(tmp_path, whole, at):
    work = tmp_path / f"at-{at}"
    assert child(work, WENFANG_CRASH_AT=str(at)).returncode == -9
    again = child(work)
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert {k: v for k, v in found.items() if k != "fits"} == {k: v for k, v in whole.items() if k != "fits"}
    return found["fits"]


def test_a_killed_selection_goes_on(tmp_path):
    whole, n = crash_points(tmp_path)
    late = check_resumes(tmp_path, whole, n)
    assert late == [], "after the last step nothing is fitted again"
    middle = check_resumes(tmp_path, whole, n // 2)
    assert 0 < len(middle) < len(whole["fits"])


@pytest.mark.slow
def test_killed_at_every_step_the_result_is_the_same(tmp_path):
    whole, n = crash_points(tmp_path)
    for at in range(1, n + 1):
        check_resumes(tmp_path, whole, at)


def test_another_request_starts_anew(tmp_path):
    good = family("good", GOOD)
    run(tmp_path, good)
    run(tmp_path, good, plan={"seed": 1})
    assert len(good.fits) == 4
    run(tmp_path, good, plan={"seed": 1})
    assert len(good.fits) == 4


def test_the_report_is_self_contained_and_escapes(tmp_path):
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "普通", "a&b", "长" * 60]
    split = [examples(n, start=s, labels=hostile) for n, s in ((200, 0), (150, 200), (150, 350))]
    outcome = run(
        tmp_path, family("good", GOOD), family("fair", FAIR), train=split[0], valid=split[1], test=split[2], card={"<b>": "<i>x</i>", "rows": 3}, command="wenfang run '<x>'"
    )
    for lang in ("zh", "en"):
        page = report(outcome.document, lang=lang)
        assert "<script" not in page
        assert "<img" not in page
        assert "<i>" not in page
        assert "http" not in page.replace("http-equiv", ""), "nothing is fetched"
        assert "nan" not in page.lower().replace("finance", "")
        assert f'lang="{lang}"' in page
    assert outcome.html.startswith("<!doctype html>")


def test_pairs_without_anything_to_judge_by_are_refused_before_a_fit(tmp_path):
    pairs = Examples("embedding", ["a", "b"], texts_b=["c", "d"])
    host = InProcess(Oracle)
    with pytest.raises(Invalid, match=r"select\.no-gold"):
        select(pairs, pairs, pairs, families={"oracle": Oracle}, ports=Ports(host, host.write), plan=Plan(budget_s=5), work=tmp_path)
    assert not (tmp_path / "journal.jsonl").exists()
