"""Evaluations of every task, against definitions and sklearn."""

import random

import numpy as np
import pytest

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Output, Reply
from wenfang.core.records import Task
from wenfang.core.words import keys
from wenfang.select.calibration import calibration, fit_temperature, softened
from wenfang.select.evaluate import evaluate

NAMES = ["物流", "退款", "发票", "质量"]


def label_sets(seed, n=60):
    rng = random.Random(seed)
    gold = [tuple(sorted(x for x in NAMES if rng.random() < 0.4)) for _ in range(n)]
    said = [tuple(x for x in NAMES if (x in g) != (rng.random() < 0.2)) for g in gold]
    return gold, said


@pytest.mark.parametrize("seed", range(5))
def test_several_labels_agree_with_sklearn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    gold, said = label_sets(seed)
    told = evaluate([Output(labels=s, score=0.9) for s in said], Examples("multilabel", ["x"] * len(gold), label_sets=gold), resamples=50)
    g, s = (np.array([[x in labels for x in NAMES] for labels in column]) for column in (gold, said))
    assert told.metric == "micro_f1"
    assert told.score == pytest.approx(metrics.f1_score(g, s, average="micro"))
    assert told.figures["macro_f1"] == pytest.approx(metrics.f1_score(g, s, average="macro"))
    assert told.figures["subset_accuracy"] == pytest.approx(metrics.accuracy_score(g, s))
    assert told.figures["precision"] == pytest.approx(metrics.precision_score(g, s, average="micro"))
    assert {c.label for c in told.classes} == set(NAMES)
    assert told.errors_n == sum(set(a) != set(b) for a, b in zip(gold, said, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_one_label_agrees_with_sklearn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(seed)
    gold = [rng.choice(NAMES) for _ in range(80)]
    said = [g if rng.random() < 0.7 else rng.choice(NAMES) for g in gold]
    told = evaluate([Output(label=s, score=0.5) for s in said], Examples("classification", ["x"] * 80, gold), resamples=50)
    assert told.score == pytest.approx(metrics.accuracy_score(gold, said))
    assert told.figures["macro_f1"] == pytest.approx(metrics.f1_score(gold, said, average="macro"))
    assert told.figures["micro_f1"] == pytest.approx(metrics.f1_score(gold, said, average="micro"))


def test_pairs_with_labels_have_a_histogram():
    data = Examples("matching", ["a"] * 6, ["0", "0", "0", "0", "1", "1"], texts_b=["b"] * 6)
    told = evaluate([Output(label=x, score=0.88) for x in "000110"], data, resamples=50)
    assert (told.task, told.metric, told.score) == ("matching", "accuracy", pytest.approx(4 / 6))
    assert told.picture["positive"] == "1"
    assert {k: sum(v) for k, v in told.picture["counts"].items()} == {"0": 4, "1": 2}
    assert told.picture["counts"]["0"][2] == 3  # three sure zeros lie at 0.12
    assert told.picture["counts"]["0"][17] == 1


@pytest.mark.parametrize("task", ["matching", "embedding"])
def test_graded_pairs_are_judged_by_order(task):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    gold = np.round(rng.random(200), 1)
    said = gold + rng.normal(0, 0.3, 200)
    data = Examples(task, ["a"] * 200, texts_b=["b"] * 200, grades=gold.tolist(), ids=[f"e{i}" for i in range(200)])
    told = evaluate([Output(score=float(s)) for s in said], data, resamples=200)
    assert told.metric == "spearman"
    assert told.score == pytest.approx(stats.spearmanr(gold, said).statistic)
    assert told.figures["pearson"] == pytest.approx(stats.pearsonr(gold, said).statistic, abs=1e-4)
    assert told.low < told.score < told.high
    assert told.figures["pearson_low"] < told.figures["pearson"] < told.figures["pearson_high"]
    assert len(told.picture["points"]) == 200
    assert evaluate([Output(score=0.5)] * 200, data, resamples=50).constant


def test_vectors_may_be_judged_by_two_labels():
    data = Examples("embedding", ["a"] * 4, ["0", "1", "0", "1"], texts_b=["b"] * 4)
    assert evaluate([Output(score=s) for s in (0.1, 0.9, 0.2, 0.8)], data, resamples=50).score == pytest.approx(0.894, abs=1e-3)
    for labels in ([], ["x"] * 4, ["x", "y", "z", "z"]):
        with pytest.raises(Invalid, match=r"select\.no-gold"):
            evaluate([Output(score=0.5)] * 4, Examples("embedding", ["a"] * 4, labels, texts_b=["b"] * 4))


def test_written_texts():
    wanted = ["文房四宝是笔墨纸砚", "今天天气好", "退款三天到账"]
    data = Examples("generation", ["x"] * 3, targets=wanted, ids=["a", "b", "c"])
    told = evaluate([Output(text=t) for t in ("文房四宝是笔墨纸砚", "今天天气不好", "完全无关")], data, resamples=100)
    assert told.metric == "rouge_l"
    assert told.score == pytest.approx((1 + 2 * 5 / 11 + 0) / 3, abs=1e-6)
    assert told.figures["rouge_1_low"] <= told.figures["rouge_1"] <= told.figures["rouge_1_high"]
    assert {"rouge_2", "bleu", "chrf", "distinct_1", "distinct_2", "empty", "length_ratio"} <= set(told.figures)
    assert [(e.id, e.score) for e in told.errors] == [("c", 0.0)]
    assert "退款" not in str(told.document()) and "无关" not in str(told.document())
    chat = evaluate([Output(text=t) for t in wanted], Examples("chat", ["x"] * 3, targets=wanted), resamples=50)
    assert (chat.metric, chat.score, chat.figures["rouge_l"]) == ("chrf", pytest.approx(1), 1.0)
    assert evaluate([Output()] * 3, data, resamples=50).figures["empty"] == 1.0


def test_ranked_replies():
    data = Examples("chat", ["x"] * 2, targets=["好", "在"])
    told = evaluate([Output(text="好", replies=(Reply("好", 0.9), Reply("在", 0.1))), Output(text="好", replies=(Reply("好", 0.6), Reply("在", 0.3)))], data, resamples=50)
    assert (told.figures["mrr"], told.figures["recall_at_1"], told.figures["recall_at_5"]) == (0.75, 0.5, 1.0)


def test_every_task_and_figure_has_words():
    known = keys()
    for task in Task.__args__:
        assert f"report.task-{task}" in known
    gold, said = label_sets(0)
    told = [
        evaluate([Output(labels=s) for s in said], Examples("multilabel", ["x"] * 60, label_sets=gold), resamples=20),
        evaluate([Output(text="a")], Examples("chat", ["x"], targets=["b"]), resamples=20),
        evaluate([Output(score=0.1)] * 2, Examples("matching", ["x"] * 2, texts_b=["x"] * 2, grades=[0.1, 0.2]), resamples=20),
    ]
    names = {m for t in told for m in [t.metric, *t.figures] if not m.endswith(("_low", "_high")) and m not in {"classes", "labels_mean"}}
    assert {n for n in names if f"report.metric-{n}" not in known} == set()


def test_temperature_finds_how_far_a_model_is_too_sure():
    rng = np.random.default_rng(3)
    honest = rng.uniform(0.5, 1, 5000)
    right = rng.random(5000) < honest
    shown = softened(honest, 1 / 2.5)  # log-odds stretched by 2.5
    found = fit_temperature(shown, right)
    assert found == pytest.approx(2.5, rel=0.12)
    assert calibration(softened(shown, found), right)[0] < calibration(shown, right)[0] / 3
    assert fit_temperature(honest, right) == pytest.approx(1, rel=0.1)
    assert fit_temperature(honest[:10], right[:10]) is None
    assert fit_temperature(honest, np.ones(5000, bool)) is None
