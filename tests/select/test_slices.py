"""Slices and fairness in worlds where the weak part is known."""

import random
import re
import time

import numpy as np
import pytest
from selection_world import InProcess, Oracle, OracleHyper, examples, family

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Output, Span
from wenfang.core.words import say
from wenfang.select.checks import read_checks
from wenfang.select.cost import Price, cost_of_a_million
from wenfang.select.evaluate import evaluate
from wenfang.select.fairness import fairness
from wenfang.select.latency import Latency
from wenfang.select.patterns import matching
from wenfang.select.plan import Plan, Ports
from wenfang.select.scrutiny import look_closer
from wenfang.select.selection import select
from wenfang.select.slices import SliceRule, judge_slices, worst_slice
from wenfang.stats.scores import Counts

LATENCY = Latency(1.8, 3.0, 500_000_000, 500, 3, 0.2)


def named(slices):
    return {say(s.name["key"], "en", **s.name["fields"]): s for s in slices}


def accuracy(right):
    return Counts("accuracy", np.asarray(right, np.int64)[:, None])


def test_the_weak_part_is_named_and_no_other():
    rng = random.Random(4)
    texts = [("refund please now" if i % 4 == 0 else "请尽快给我退款") + "!" * (i % 7) for i in range(800)]
    latin = np.array([t[0] == "r" for t in texts])
    right = [rng.random() < (0.5 if x else 0.9) for x in latin]
    data = Examples("classification", texts, ["a" if i % 3 else "b" for i in range(800)], groups=["南" if i % 2 else "北" for i in range(800)])
    slices, masks = judge_slices(accuracy(right), data, train=data, columns={"group": data.groups}, rules={"three": SliceRule(pattern="!!!$")})
    told = named(slices)
    assert told["mostly Latin letters"].worse
    assert told["mostly Latin letters"].score == pytest.approx(np.mean(np.array(right)[latin]))
    assert told["mostly Latin letters"].rest == pytest.approx(np.mean(np.array(right)[~latin]))
    assert told["group = 南"].p_holm == 1 or not told["group = 南"].worse
    assert {"three", "group = 北", "mostly Chinese characters"} <= set(told)
    worst = worst_slice(slices)
    assert worst.n == latin.sum() or worst.kind == "length", "length tells the two languages apart as well"
    assert all(m.sum() == s.n for m, s in zip(masks, slices, strict=True))
    assert "refund" not in str([s.document() for s in slices])


def test_equal_parts_are_rarely_called_worse():
    rng, alarms = np.random.default_rng(0), 0
    data = Examples("classification", [("好" if i % 2 else "ok ") * (i % 9 + 1) for i in range(300)], ["a"] * 300)
    for seed in range(60):
        slices, _ = judge_slices(accuracy(rng.random(300) < 0.8), data, train=data, seed=seed)
        alarms += any(s.p_holm is not None and s.p_holm <= 0.05 for s in slices)
    assert alarms <= 8  # 5 % of 60 and two and a half standard errors


def test_head_torso_and_tail_follow_the_training_data():
    sizes = {"甲": 500, "乙": 300, "丙": 100, "丁": 60, "戊": 30, "己": 10}
    train = Examples("classification", ["x"] * 1000, [x for x, n in sizes.items() for _ in range(n)])
    labels = [x for x in sizes for _ in range(40)]
    slices, _ = judge_slices(accuracy([x not in {"戊", "己"} for x in labels]), Examples("classification", ["x"] * 240, labels), train=train)
    told = {s.name["key"]: s for s in slices}
    assert told["slice.head"].name["fields"]["labels_n"] == 1
    assert told["slice.torso"].name["fields"]["labels_n"] == 2
    assert told["slice.tail"].n == 120
    assert told["slice.tail"].score == pytest.approx(1 / 3)
    assert worst_slice(slices).name["key"] == "slice.tail"


def test_slices_of_spans_and_of_the_user():
    texts = ["来份鱼"] * 60 + ["来份很大很大很大的鱼"] * 60
    spans = [(Span(len(t) - 1, len(t), "菜"),) for t in texts]
    data = Examples("tagging", texts, spans=spans)
    told = evaluate([Output(spans=s if i < 60 else (), score=0.5) for i, s in enumerate(spans)], data, resamples=50)
    rules = {"short": SliceRule(max_length=3), "dish": SliceRule(label="菜", min_length=4), "none": SliceRule(label="店"), "vip": SliceRule(column="group", value="vip")}
    slices, _ = judge_slices(told.counts, data, train=data, rules=rules)
    found = named(slices)
    assert (found["short"].score, found["dish"].score) == (1.0, 0.0)
    assert "none" not in found and "vip" not in found, "nobody belongs to them"


def test_fairness_of_two_classes():
    gold = ["过", "拒"] * 200
    groups = ["甲"] * 200 + ["乙"] * 190 + ["丙"] * 10
    said = [g if group == "甲" or i % 4 else "拒" for i, (g, group) in enumerate(zip(gold, groups, strict=True))]
    (found,) = fairness(accuracy([g == s for g, s in zip(gold, said, strict=True)]), {"who": groups, "one": ["x"] * 400, "ids": [str(i) for i in range(400)]}, gold=gold, said=said)
    by = {g.value: g for g in found.groups}
    assert (found.column, found.positive) == ("who", "拒")
    assert by["甲"].score == 1
    assert by["甲"].alarm_rate == 0
    assert by["乙"].hit_rate == 1
    assert by["乙"].alarm_rate == pytest.approx(0.5, abs=0.02)
    assert found.odds_gap == found.alarm_gap == pytest.approx(0.5, abs=0.02)
    assert found.hit_gap == 0
    assert found.positive_gap == pytest.approx(0.25, abs=0.02)
    assert by["丙"].n == 10


def test_fairness_without_two_classes_compares_scores():
    counts = accuracy([True] * 50 + [False] * 50)
    (found,) = fairness(counts, {"g": ["a"] * 50 + ["b"] * 50}, gold=["x", "y", "z", "x"] * 25, said=["x"] * 100)
    assert (found.score_gap, found.odds_gap, found.positive) == (1.0, None, None)


def test_cost():
    plain = cost_of_a_million(3.6, 10**9)
    assert (plain.core_hours, plain.money) == (1.0, None)
    assert plain.requests_per_core_s == pytest.approx(277.8, abs=0.1)
    assert cost_of_a_million(7.2, 10**9, Price(core_hour=0.4, currency="CNY")).money == pytest.approx(0.8)


def test_a_closer_look_marks_the_slices_of_errors_and_softens():
    data = examples(400)
    valid = Oracle(OracleHyper(error=0.3), task="classification").fit(data)
    outputs = valid.predict(data.texts)
    told = evaluate(outputs, data, resamples=50)
    found = look_closer(told, outputs, data, train=data, valid=told, latency=LATENCY, checks=read_checks('[slices.even]\npattern="[24680] "\n'))
    assert len(found.members) == told.errors_n
    for error, members in zip(told.errors, found.members, strict=True):
        own = [found.slices[i].name["fields"].get("name") for i in members]
        assert ("even" in own) == bool(re.search("[24680] ", data.texts[error.row]))
    assert found.temperature is None or found.temperature.temperature > 0
    assert found.cost.core_hours == pytest.approx(0.5)


def test_it_all_stands_in_the_document(tmp_path):
    """A model that errs on odd numbers only."""

    class OddOnes(Oracle):
        def _one(self, text):
            output = super()._one(text)
            number = int(text[1 : text.index("条")]) if text[1:2].isdigit() and "条" in text else 0
            return Output(label="表扬" if number % 2 else output.label, score=output.score)

    odd = family("odd", OracleHyper(error=0.02), base=OddOnes)
    host = InProcess(odd)
    checks = read_checks('[slices.odd]\npattern = "[13579]条"\n[price]\ncore_hour = 0.5\ncurrency = "CNY"\n')
    outcome = select(
        examples(300), examples(200, start=300), examples(300, start=500), families={"odd": odd}, ports=Ports(host, host.write), plan=Plan(15.0, checks=checks), work=tmp_path / "w"
    )
    final = outcome.document["final"]
    assert {"slices", "fairness", "temperature", "robustness", "cost", "error_slices"} <= set(final)
    sentences = dict(outcome.sentences)
    worst = sentences["verdict.worst-slice"]
    assert worst["slice"]["fields"] == {"name": "odd"}
    assert worst["score"] < 0.4
    assert "：odd（" in say("verdict.worst-slice", "zh", **worst)
    assert final["cost"]["money"] == pytest.approx(final["latency"]["p50_ms"] / 3.6 * 0.5)
    assert {t["name"] for t in final["robustness"] if t["n"]} >= {"homophones", "known-texts", "more-punctuation"}
    assert "verdict.brittle-invariance" in sentences, "punctuation after the label changes what this oracle reads"


def test_a_pattern_that_never_ends_is_refused_by_name():
    checks = read_checks('[slices.fast]\npattern = "a+b"\n[slices.endless]\npattern = "(a|aa)+$"\n')
    begun = time.monotonic()
    with pytest.raises(Invalid, match=r"checks\.pattern-too-slow") as e:
        matching("endless", checks.slices["endless"].pattern, ["x", "a" * 60 + "!"], limit_s=0.5)
    assert time.monotonic() - begun < 2.0
    assert (e.value.fields["slice"], e.value.fields["done_n"]) == ("endless", 1)
    assert "a" * 60 not in e.value.detail("en")
    assert read_checks('[slices.fast]\npattern = "a+b"\n').on(["aab", "b"]).matched == {"fast": (True, False)}
    with pytest.raises(Invalid, match=r"checks\.bad-slice"):
        read_checks('[slices.broken]\npattern = "("\n')
