"""What surrounds the choice: the metric one chooses by, money, honesty, the story in words, the champion, the scenarios, the same again."""

import json

import numpy as np
import pytest
from selection_world import Constant, InProcess, Oracle, OracleHyper, Watcher, examples, family

from wenfang.core.errors import Invalid, NotFound
from wenfang.core.examples import Examples, Output
from wenfang.core.words import keys, say
from wenfang.models import families
from wenfang.select.champion import Duel, duel
from wenfang.select.choose import ALPHA, Candidate, Limits
from wenfang.select.cost import Price
from wenfang.select.earlier import Earlier, Meta, Recipe, describe, distance, earlier_from, nearest_recipes
from wenfang.select.explain import explain, explain_text
from wenfang.select.latency import measure_strictly, near
from wenfang.select.presets import presets, read_preset
from wenfang.select.rerun import rerun
from wenfang.select.robustness.suite import builtin
from wenfang.select.selection import Plan, Ports, select
from wenfang.select.trial import fit_here
from wenfang.select.wanted import judge, metrics_for
from wenfang.stats.paired import compare
from wenfang.stats.scores import Counts

TRAIN, VALID, TEST = examples(300), examples(200, start=300), examples(200, start=500)


def run(work, *found, plan=None, **more):
    host = InProcess(*found)
    parts = {"train": TRAIN, "valid": VALID, "test": TEST}
    return select(
        *parts.values(), families={f.__name__: f for f in found}, ports=Ports(host, host.write, progress=Watcher()), plan=Plan(20.0, **(plan or {})), work=work, **more
    ), host


GOOD, FAIR = OracleHyper(error=0.05, salt="g"), OracleHyper(error=0.2, salt="f")


# ---------------------------------------------------------------- the metric


class Blind(Oracle):
    """Often right, never about the rare labels."""

    def _one(self, text):
        label = text.rsplit(" ", 1)[-1]
        return Output(label="咨询" if label in {"退款", "表扬"} else label, score=0.9)


def rare(n, start=0):
    data = examples(n, start=start)
    keep = [i for i, label in enumerate(data.labels) if label not in {"退款", "表扬"} or i % 10 == 0]
    return data.take(keep)


def test_the_wanted_metric_decides(tmp_path):
    train, valid, test = rare(900), rare(900, 900), rare(900, 1800)
    blind = type("blind", (Blind,), {"name": "blind", "tried": [OracleHyper()], "fits": []})
    found = blind, family("even", OracleHyper(error=0.15, salt="e"), rank=2)
    chosen = {}
    for metric in (None, "macro_f1"):
        host = InProcess(*found)
        outcome = select(train, valid, test, families={f.__name__: f for f in found}, ports=Ports(host, host.write), plan=Plan(20.0, metric=metric), work=tmp_path / str(metric))
        chosen[metric] = (outcome.verdict["metric"], max(outcome.verdict["candidates"], key=lambda c: c["valid"]["score"])["family"])
        assert outcome.document["valid"]["accuracy" if metric else "macro_f1"] > 0
    assert chosen == {None: ("accuracy", "blind"), "macro_f1": ("macro_f1", "even")}


def test_a_metric_of_another_task_is_refused(tmp_path):
    with pytest.raises(Invalid, match=r"select\.unknown-metric") as e:
        run(tmp_path, family("good", GOOD), plan={"metric": "span_f1"})
    assert e.value.fields["known"] == ["accuracy", "macro_f1"]


def test_every_metric_of_every_task_can_lead():
    pairs = {
        "classification": (Examples("classification", ["a", "b"], labels=["x", "y"]), [Output(label="x"), Output(label="x")]),
        "multilabel": (Examples("multilabel", ["a", "b"], label_sets=[("x",), ("x", "y")]), [Output(labels=("x",)), Output(labels=("x",))]),
        "generation": (Examples("generation", ["a", "b"], targets=["你好世界", "再见"]), [Output(text="你好世人"), Output(text="再见")]),
        "chat": (Examples("chat", ["a", "b"], targets=["你好世界", "再见"]), [Output(text="你好世人"), Output(text="再见")]),
    }
    for data, answers in pairs.values():
        known = metrics_for(data)
        assert judge(answers, data, resamples=50).metric == known[0]
        for metric in known:
            found = judge(answers, data, metric=metric, resamples=50)
            assert (found.metric, found.counts.metric) == (metric, metric)
            assert 0 < found.score <= 1


# ---------------------------------------------------------------- money


def test_the_limit_on_money(tmp_path):
    slow = family("slow", OracleHyper(error=0.01, salt="s", delay_ms=5), rank=2)
    limits = Limits(max_cost_per_million=0.9, price=Price(core_hour=1.0))  # an hour of a core is 3.6 million milliseconds
    outcome, _ = run(tmp_path, family("fair", FAIR), slow, plan={"limits": limits})
    assert outcome.verdict["family"] == "fair"
    told = dict(outcome.sentences)
    assert told["verdict.excluded-cost"]["value"] > 5 / 3.6
    assert outcome.document["limits"] == {"max_latency_ms": None, "max_size_bytes": None, "max_memory_bytes": None, "max_cost_per_million": 0.9}


def test_what_others_charge_counts():
    class Rented(Oracle):
        def charge_per_million(self):
            return 70.0

    rented = Rented(task="classification").charge_per_million()
    latency = {"p50_ms": 1.0, "p99_ms": 1.0, "memory_bytes": 1}
    candidate = Candidate("r-1", "r", 0.9, Counts("accuracy", np.ones((5, 1), np.int64)), latency, 1, charged=rented)
    assert Limits().money(candidate) == 70.0
    assert Limits(price=Price(core_hour=3.6)).money(candidate) == pytest.approx(71.0)
    assert [b.limit for b in Limits(max_cost_per_million=50).broken_by(candidate)] == ["max_cost_per_million"]


# ---------------------------------------------------------------- honesty


def twins(metric, seed):
    rng = np.random.default_rng(seed)
    n = 300
    chance = rng.beta(4, 0.6, n)
    gold = rng.poisson(2.0, n) if metric == "span_f1" else rng.choice(3, n, p=[0.6, 0.3, 0.1])
    found = []
    for _ in range(2):
        right = rng.random(n) < chance
        if metric == "accuracy":
            rows = right[:, None].astype(np.int64)
        elif metric == "macro_f1":
            rows = np.stack([gold, np.where(right, gold, rng.integers(0, 3, n))], axis=1)
        else:
            hit = rng.binomial(gold, chance)
            rows = np.stack([hit, hit + rng.poisson(0.25, n), gold], axis=1)
        found.append(Counts(metric, rows))
    return found


@pytest.mark.parametrize("metric, cases", [("accuracy", 1000), ("macro_f1", 250), ("span_f1", 250)])
def test_twins_are_rarely_called_different(metric, cases):
    """``bench verdict_honesty`` does the same 2,000 times."""
    wrong = sum(compare(*twins(metric, seed), resamples=400).p <= ALPHA for seed in range(cases))
    assert wrong / cases <= 0.05 + 2.6 * (0.05 * 0.95 / cases) ** 0.5


# ---------------------------------------------------------------- near the limit


class Wavering(InProcess):
    """Replicas of one bundle are quick twice and slow ever after."""

    def start(self, bundle):
        replica = super().start(bundle)
        nth = self.started.count(bundle.name)
        if bundle.name.startswith("slow") and nth > 1:
            replica.model.hyper = replica.model.hyper.model_copy(update={"delay_ms": 40.0})
        return replica


@pytest.mark.slow
def test_a_choice_near_the_limit_has_to_hold_again(tmp_path):
    best = family("slow", OracleHyper(error=0.01, salt="s", delay_ms=16.0))
    fair = family("fair", FAIR, rank=0)
    host = Wavering(best, fair)
    parts = TRAIN, examples(60, start=300), examples(60, start=500)
    outcome = select(*parts, families={"slow": best, "fair": fair}, ports=Ports(host, host.write), plan=Plan(40.0, Limits(max_latency_ms=25.0)), work=tmp_path / "w")
    assert outcome.verdict["family"] == "fair"
    told = next(c for c in outcome.document["candidates"] if c["family"] == "slow")
    assert told["role"] == "excluded"
    assert told["latency_ms"]["p99"] > 25


def test_far_from_the_limit_one_measurement_is_enough(tmp_path):
    good = family("good", GOOD)
    host = InProcess(good)
    host.write(tmp_path / "good", good(GOOD, task="classification").fit(TRAIN), {})
    assert not near(1.0, 1000.0)
    measure_strictly(host, tmp_path / "good", VALID, max_p99_ms=1000.0)
    measure_strictly(host, tmp_path / "good", VALID, max_p99_ms=None)
    assert len(host.started) == 2


# ---------------------------------------------------------------- the story


def test_the_story_says_why_what_limits_did_what_was_tried_and_what_more_time_would_bring(tmp_path):
    slow = family("slow", OracleHyper(error=0.01, salt="s", delay_ms=4), rank=2)
    endless = family("endless", *[OracleHyper(error=0.3, salt=str(i), fit_s=1000) for i in range(3)], rank=3)
    bad = family("bad", OracleHyper(crash="memory"), rank=4)
    outcome, _ = run(tmp_path, family("fair", FAIR), slow, endless, bad, Constant, plan={"limits": Limits(max_latency_ms=3.0, max_size_bytes=10**7)})
    told = explain(json.loads(json.dumps(outcome.document)))
    said = {section: [key for key, _ in sentences] for section, sentences in told.items()}
    assert said["why"][0] == "verdict.chosen"
    assert said["limits"] == ["explain.limit-latency", "explain.loosen-buys", "explain.limit-size-kept"]
    assert said["tried"].count("explain.family") == 4
    assert {"explain.failed", "explain.family-nothing"} <= set(said["tried"])
    assert "select.family-no-time" in said["given-up"]
    assert said["more-time"][-1] == "explain.budget"
    assert dict(told["more-time"])["explain.budget"]["budget_s"] > 20
    for lang in ("zh", "en"):
        text = explain_text(outcome.document, lang)
        assert "{" not in text
        assert "explain." not in text
        assert "select." not in text, "a failed run is told by its sentence"
        assert "slow-1" in text
        assert say("explain.origin-guess", lang) in text
        assert "select.run-crashed" not in text
    for key in (key for sentences in told.values() for key, _ in sentences):
        assert key in keys()


def test_a_family_that_was_never_fitted_has_no_invented_figures():
    given_up = [{"key": "select.family-not-begun", "family": "slow", "need_s": 0.0, "left_s": 0.0}]
    told = explain({"verdict": [], "limits": {}, "candidates": [], "choice": {"loosening": []}, "runs": [], "given_up": given_up, "spent_s": 9.0, "budget_s": 10.0, "final": {"refit": {"key": "verdict.refitted"}}})  # fmt: skip
    assert told["more-time"] == [("explain.would-begin", {"family": "slow"}), ("explain.budget", {"budget_s": 22.0})]


def test_without_limits_and_with_time_there_is_nothing_left(tmp_path):
    outcome, _ = run(tmp_path, family("fair", FAIR))
    told = explain(outcome.document)
    assert told["limits"] == [("explain.no-limits", {})]
    assert told["more-time"] == [("explain.nothing-left", {})]
    assert say("explain.nothing-left", "zh").startswith("没有")


# ---------------------------------------------------------------- warm starts


def test_recipes_of_like_data_come_right_after_the_first_guess(tmp_path):
    here = describe(TRAIN)
    assert (here.rows, here.labels, here.task, here.han > 0.9) == (300, 5, "classification", True)
    far = Meta("classification", 10**6, 300, 900.0, 2000, 0.0, 1.0, 0.5)
    assert distance(here, far) > 3 * distance(here, describe(examples(600)))
    wild = Recipe("good", OracleHyper(error=0.03, salt="w").model_dump())
    earlier = [
        Earlier(far, (Recipe("good", OracleHyper(error=0.5).model_dump()),)),
        Earlier(describe(examples(350)), (wild, Recipe("good", {"no": "more"}), Recipe("good", {**OracleHyper().model_dump(), "pretrained": "/gone"}))),
    ]
    recipes = nearest_recipes(here, earlier)
    assert recipes[0] == wild
    good = family("good", GOOD, OracleHyper(error=0.3, salt="h"))
    outcome, _ = run(tmp_path, good, plan={"earlier": recipes})
    runs = outcome.document["runs"]
    assert [r["origin"] for r in runs] == ["guess", "earlier", "guess"]
    assert runs[1]["params"]["error"] == 0.03
    learned = earlier_from(json.loads(json.dumps(outcome.document)))
    assert learned.meta == here
    assert learned.recipes[0].params["error"] == 0.03
    assert earlier_from({"runs": []}) is None
    resumed, _ = run(tmp_path, good, plan={})
    assert [r["origin"] for r in resumed.document["runs"]] == ["guess", "earlier", "guess"], "a resumed selection keeps the recipes it began with"


# ---------------------------------------------------------------- the champion


def test_better_equal_and_worse_than_the_champion(tmp_path):
    host = InProcess(first := family("first", FAIR))
    host.write(tmp_path / "champion", first(FAIR, task="classification").fit(TRAIN), {})

    def against(hyper, **more):
        counts = judge(first(hyper, task="classification").fit(TRAIN), TEST).counts
        return duel(host, tmp_path / "champion", TEST, counts, name="m:1", **more)

    assert against(OracleHyper(error=0.02, salt="x")).verdict == "better"
    assert against(FAIR).verdict == "equal"
    assert against(OracleHyper(error=0.02, salt="x")).short_of(0.0) is None
    assert against(FAIR).short_of(0.02) is None, "the same answers to 200 examples: 1.5 points are left open"
    key, fields = against(FAIR).short_of(0.01)
    assert (key, fields["points"], fields["n"]) == ("verdict.champion-unproven", 1.5, 200)
    near = against(OracleHyper(error=0.22, salt="z"))
    assert near.verdict == "equal"
    assert near.short_of(0.02)[0] == "verdict.champion-unproven"
    worse = against(OracleHyper(error=0.6, salt="y"), learned_rows=range(40))
    assert worse.short_of(1.0)[0] == "verdict.champion-kept"
    assert (worse.verdict, worse.n, worse.learned_n, worse.learned_out) == ("worse", 160, 40, True)
    most = against(FAIR, learned_rows=range(190))
    assert (most.n, most.learned_out) == (200, False)
    (tmp_path / "champion" / "card.json").write_text('{"family": "gone"}')
    assert Duel("m:1", "incomparable", reason="bundle.bad-signature").short_of(1.0)[0] == "verdict.champion-unproven-at-all"
    for found in (worse, most, near):
        said = [*found.sentences(), *filter(None, [found.short_of(0.0)])]
        assert all("{" not in say(key, lang, **fields) for key, fields in said for lang in ("zh", "en"))


# ---------------------------------------------------------------- scenarios


def test_scenarios_name_what_exists():
    assert set(presets()) == {"customer-service", "finance-news", "medical-records", "ecommerce-reviews", "short-text-moderation"}
    gold = {"classification": Examples("classification", ["a"], labels=["x"]), "tagging": Examples("tagging", ["a"], spans=[()])}
    for preset in presets().values():
        assert preset.metric in metrics_for(gold[preset.task])
        assert set(preset.robustness) <= set(builtin())
        assert set(preset.families) <= set(families.names())
        assert set(preset.title) == set(preset.why) == {"zh", "en"}
        assert preset.fills()["metric"] == preset.metric
    with pytest.raises(NotFound, match=r"select\.unknown-preset") as e:
        read_preset("finance")
    assert "finance-news" in e.value.fields["near"]


# ---------------------------------------------------------------- the same again


def test_the_chosen_recipe_gives_the_same_again(tmp_path):
    good = family("good", GOOD)
    outcome, _ = run(tmp_path, good, family("fair", FAIR))
    splits = {"train": TRAIN, "valid": VALID, "test": TEST}
    again = rerun(json.loads(json.dumps(outcome.document)), splits, family=good, fit=fit_here, progress=Watcher())
    assert (again.same, again.run, again.note) == (True, "good-1", "")
    assert [f["split"] for f in again.figures] == ["valid", "test"]
    other = rerun(outcome.document, {**splits, "test": VALID}, family=good, fit=fit_here, progress=Watcher())
    assert not other.same
