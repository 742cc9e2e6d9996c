"""The linear family: odd settings, many labels, calibration, damaged files, real titles."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples
from wenfang.models import Curve, families
from wenfang.models.bags import Bags
from wenfang.models.calibration import best_threshold, fit_sharpness, fit_slope, sigmoid, softmax
from wenfang.models.gold import Gold
from wenfang.models.ratios import contrast, label_counts, log_ratios

Linear = families.get("linear")
DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "thucnews_titles"


def noisy(n, classes=3, noise=0.3, seed=0):
    """Texts with one mark of their class, some of them mislabelled: the best possible accuracy is known."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(n):
        c = rng.randrange(classes)
        texts.append("".join(rng.choice("天地玄黄宇宙洪荒") for _ in range(8)) + chr(0x7530 + c))
        labels.append(str(rng.randrange(classes) if rng.random() < noise else c))
    return Examples("classification", texts, labels)


def many(labels, each=4, seed=0):
    rng = random.Random(seed)
    texts = [chr(0x5000 + i % 300) + chr(0x6000 + i // 300) + rng.choice("天地玄黄") for i in range(labels) for _ in range(each)]
    return Examples("classification", texts, [f"类 {i:05d}" for i in range(labels) for _ in range(each)])


def accuracy(model, data):
    return np.mean([o.label == y for o, y in zip(model.predict(data.texts), data.labels, strict=True)])


@pytest.mark.parametrize("valid", [True, False])
def test_scores_are_frequencies(valid):
    model = Linear(task="classification").fit(noisy(2000), noisy(600, seed=1) if valid else None)
    fresh = noisy(2000, seed=2)
    outputs = model.predict(fresh.texts)
    right = np.mean([o.label == y for o, y in zip(outputs, fresh.labels, strict=True)])
    assert right > 0.75  # 0.8 is the best possible
    assert np.mean([o.score for o in outputs]) == pytest.approx(right, abs=0.05)


def test_temperature_is_found():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5000, 4))
    p = softmax(scores, 2.5)
    targets = (p.cumsum(axis=1) > rng.random((5000, 1))).argmax(axis=1)
    assert fit_sharpness(scores, targets, default=1.0) == pytest.approx(2.5, rel=0.1)
    assert fit_sharpness(scores[:5], targets[:5], default=1.5) == 1.5


@pytest.mark.parametrize(
    "hyper",
    [
        {"blend": 0.0},
        {"counts": 0.0},
        {"contrast": 0.0, "counts": 1.0},
        {"balanced": 1.0},
        {"balanced": 0.5},
        {"ngram_min": 2, "ngram_max": 2},
        {"min_count": 10_000},
        {"sharpness": 2.0},
        {"epochs": 1},
    ],
)
def test_every_setting_gives_a_model(hyper, tmp_path):
    model = Linear(Linear.Hyper(**hyper), task="classification").fit(noisy(300))
    model.save(tmp_path)
    again = Linear.load(tmp_path, task="classification", hyper=model.hyper, labels=model.labels_)
    texts = [*noisy(50, seed=3).texts, ""]
    assert again.predict(texts, top_k=3) == model.predict(texts, top_k=3)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="ngram_min is above"):
        Linear.Hyper(ngram_min=3, ngram_max=2)
    with pytest.raises(ValueError, match="greater than 0"):
        Linear.Hyper(c=0)


def test_balanced_finds_the_rare():
    rng = random.Random(0)
    texts = ["".join(rng.choice("天地玄黄宇宙洪荒") for _ in range(6)) + ("稀" if rng.random() < 0.5 else "") for _ in range(2000)]
    labels = ["rare" if "稀" in t and rng.random() < 0.2 else "often" for t in texts]
    data = Examples("classification", texts, labels)
    found = [sum(o.label == "rare" for o in Linear(Linear.Hyper(balanced=b), task="classification").fit(data).predict(texts)) for b in (0.0, 0.5, 1.0)]
    assert found[2] > 2 * found[0] + 100
    assert found == sorted(found)
    assert Linear.Hyper(balanced=True).balanced == 1.0  # as recipes wrote it


def test_log_ratios_are_those_of_frequencies():
    bags = Bags(np.array([0, 2, 3, 4]), np.array([0, 1, 0, 1], np.int32), np.ones(4, np.float32))
    gold = Gold.of(Examples("classification", ["甲乙", "甲", "乙"], ["a", "a", "b"], weights=[1.0, 2.0, 1.0]), ["a", "b"])
    counts = label_counts(bags, gold, 2)
    assert counts.tolist() == [[3.0, 0.0], [1.0, 1.0]]
    shares, mass, lean = np.array([[0.6], [0.4]]), np.array([4.0, 1.0]), 0.2 * 2.5
    assert log_ratios(counts) == pytest.approx(np.log((counts + lean * shares) / (mass + lean) / shares), rel=1e-6)
    assert contrast(counts, bags, gold) == pytest.approx([np.log((4 / 6) / (1 / 3)), np.log((2 / 3) / (2 / 6))], rel=1e-6)


def test_counts_hear_a_label_with_few_examples():
    rng = random.Random(0)

    def rows(label, marks, n):
        return [("".join(rng.choice("天地玄黄宇宙洪荒" * 2 + marks) for _ in range(20)), label) for _ in range(n)]

    sizes = {"often": 400, "seldom": 6, "rare": 4}
    marks = {"often": "甲乙丙丁", "seldom": "子丑寅卯", "rare": "辰巳午未"}
    train = [pair for label, n in sizes.items() for pair in rows(label, marks[label], n)]
    fresh = [pair for label in sizes for pair in rows(label, marks[label], 100)]
    data, test = (Examples("classification", [t for t, _ in pairs], [y for _, y in pairs]) for pairs in (train, fresh))
    plain = {"ngram_max": 1, "contrast": 0.0, "blend": 0.0, "sharpness": 3.0}
    without, heard = (accuracy(Linear(Linear.Hyper(counts=w, **plain), task="classification").fit(data), test) for w in (0.0, 1.0))
    assert heard > without + 0.05


def test_all_machines_share_one_table():
    model = Linear(Linear.Hyper(blend=0.5, counts=0.2), task="classification").fit(noisy(300))
    assert model.head_.table.shape == (len(model.index_), 3)


def test_a_heavier_example_outweighs_a_lighter_one():
    data = Examples("classification", ["天"] * 20 + ["地"] * 20, ["a", "b"] * 10 + ["b"] * 20, weights=[5.0, 1.0] * 10 + [1.0] * 20)
    turned = Examples("classification", data.texts, data.labels, weights=[1.0, 5.0] * 10 + [1.0] * 20)
    said = [Linear(Linear.Hyper(sharpness=3.0), task="classification").fit(d).predict(["天"])[0].label for d in (data, turned)]
    assert said == ["a", "b"]
    whole = Examples("classification", data.texts, data.labels, weights=[1.0] * 40)
    assert Linear(task="classification").fit(whole).predict(["天", "地"]) == Linear(task="classification").fit(Examples("classification", data.texts, data.labels)).predict(
        ["天", "地"]
    )


def outside(n, share, seed):
    """Two topics and a few texts of neither, which look half like a topic."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(n):
        label = "other" if rng.random() < share else rng.choice(["a", "b"])
        marks = "丙丁" if label == "other" else "甲乙"[label == "b"] * 3 + "丙"
        texts.append("".join(rng.choice("天地玄黄宇宙洪荒" + marks) for _ in range(8)))
        labels.append(label)
    return Examples("classification", texts, labels)


def test_a_declared_prior_finds_more_of_the_outside_texts(tmp_path):
    train, valid, fresh = outside(1500, 0.03, 0), outside(500, 0.03, 1), outside(1000, 0.3, 2)
    plain = Linear(task="classification").fit(train, valid)
    told = Linear(Linear.Hyper(prior={"other": 0.3}), task="classification").fit(train, valid)
    recall = [np.mean([o.label == "other" for o, y in zip(m.predict(fresh.texts), fresh.labels, strict=True) if y == "other"]) for m in (plain, told)]
    assert recall[1] > recall[0] + 0.1
    assert accuracy(told, fresh) > accuracy(plain, fresh)
    again = Linear(told.refit_hyper(), task="classification").fit(train + valid)
    again.save(tmp_path)
    assert Linear.load(tmp_path, task="classification", hyper=again.hyper, labels=again.labels_).predict(fresh.texts) == again.predict(fresh.texts)
    assert accuracy(again, fresh) > accuracy(plain, fresh)


def test_a_prior_of_an_unknown_label_is_refused():
    with pytest.raises(Invalid, match=r"model\.unknown-label"):
        Linear(Linear.Hyper(prior={"elsewhere": 0.3}), task="classification").fit(noisy(50))
    with pytest.raises(ValueError, match="shares are above 0"):
        Linear.Hyper(prior={"a": 0.7, "b": 0.7})


def tagged(n, seed=0):
    """Each of three marks is there or not, and is the label."""
    rng = random.Random(seed)
    sets = [tuple(label for label in "abc" if rng.random() < 0.4) for _ in range(n)]
    texts = ["".join(rng.sample([*"天地玄黄宇宙", *("甲乙丙"["abc".index(label)] for label in labels)], 6 + len(labels))) for labels in sets]
    return Examples("multilabel", texts, label_sets=sets)


@pytest.mark.parametrize("valid", [True, False])
def test_several_labels_are_found_each_for_itself(valid):
    model = Linear(task="multilabel").fit(tagged(600), tagged(200, 1) if valid else None)
    fresh = tagged(300, 2)
    answers = model.predict(fresh.texts, top_k=3)
    assert np.mean([set(a.labels) == set(labels) for a, labels in zip(answers, fresh.label_sets, strict=True)]) > 0.97
    for a in answers[:50]:
        assert [a.scores[label] for label in a.labels] == sorted((a.scores[label] for label in a.labels), reverse=True)
        assert a.score == pytest.approx(min(p if label in a.labels else 1 - p for label, p in a.scores.items()))
    refit = Linear(model.refit_hyper(), task="multilabel").fit(tagged(600) + tagged(200, 1))
    assert (refit.sharpness_, refit.threshold_) == (model.sharpness_, model.threshold_)


def test_slope_offset_and_threshold_are_found():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3))
    p = sigmoid(scores, 2.0, -1.0)
    gold = rng.random(p.shape) < p
    slope, offset = fit_slope(scores, gold, default=3.0)
    assert (slope, offset) == (pytest.approx(2.0, rel=0.1), pytest.approx(-1.0, abs=0.1))
    assert fit_slope(scores[:5], gold[:5], default=3.0) == (3.0, 0.0)
    threshold = best_threshold(p, gold)
    f1 = [2 * (gold & (p >= t)).sum() / (gold.sum() + (p >= t).sum()) for t in (threshold, 0.1, 0.3, 0.5, 0.7)]
    assert f1[0] >= max(f1) - 1e-9


def test_unseen_texts_get_an_answer_that_is_not_sure():
    model = Linear(task="classification").fit(noisy(500))
    (answer,) = model.predict(["zzzz"])
    assert answer.score < 0.6


@pytest.mark.slow
def test_ten_thousand_labels_stay_small(tmp_path):
    data = many(10_000, each=3)
    model = Linear(Linear.Hyper(epochs=1, min_count=1), task="classification").fit(data)
    model.save(tmp_path)
    assert (tmp_path / "prototypes.safetensors").stat().st_size < 60e6
    again = Linear.load(tmp_path, task="classification", hyper=model.hyper, labels=model.labels_)
    some = data.take(range(0, 30_000, 101))
    assert accuracy(again, some) > 0.95
    odd = [*some.texts[:20], "", "天" * 10_000, "zzz"]
    together = again.predict(odd, top_k=5)
    assert together == [again.predict([t], top_k=5)[0] for t in odd]
    assert all(len(o.scores) == 5 for o in together)


def test_prototypes_sum_in_pieces_alike(monkeypatch):
    data = many(300, each=6)
    model = Linear(Linear.Hyper(epochs=2, min_count=1), task="classification").fit(data)
    long = "".join(data.texts[:400])
    whole = model.predict([long, "天", *data.texts[:5]], top_k=3)
    monkeypatch.setattr("wenfang.models.heads._EXPANDED_MAX", 100)
    pieces = model.predict([long, "天", *data.texts[:5]], top_k=3)
    assert [o.score for o in pieces] == pytest.approx([o.score for o in whole], rel=1e-3)
    assert [model.predict([t], top_k=3)[0] for t in [long, "天", *data.texts[:5]]] == pieces


def test_time_over_stops_between_epochs():
    curve = Curve(deadline=0.0)
    model = Linear(Linear.Hyper(epochs=200, sharpness=1.0), task="classification").fit(noisy(500), noisy(100), curve)
    assert [s.step for s in curve.steps if s.loss is not None] == [1]
    assert accuracy(model, noisy(200, seed=5)) > 0.5


def test_damaged_weights_are_refused(tmp_path):
    model = Linear(task="classification").fit(noisy(300))
    model.save(tmp_path)
    path = tmp_path / "dense.safetensors"
    good = path.read_bytes()

    def load(labels=model.labels_):
        return Linear.load(tmp_path, task="classification", hyper=model.hyper, labels=labels)

    for bad in (b"", good[: len(good) // 2], b"\xff" * 100, b"{}" + good):
        path.write_bytes(bad)
        with pytest.raises(Broken, match=r"model\.damaged"):
            load()
    path.write_bytes(good)
    with pytest.raises(Broken, match=r"model\.damaged"):
        load([*model.labels_, "more"])
    path.unlink()
    with pytest.raises(Broken, match=r"model\.damaged"):
        load()


def test_an_unfitted_model_says_so():
    with pytest.raises(Invalid, match=r"model\.not-fitted"):
        Linear(task="classification").predict(["天"])


@pytest.mark.skipif(not DATA.is_dir(), reason="no THUCNews titles: set WENFANG_TEST_DATA")
def test_real_titles():
    def read(name, n):
        rows = [line.split("\t") for line in (DATA / name).read_text(encoding="utf-8").splitlines()[:n]]
        return Examples("classification", [r[0] for r in rows], [r[1] for r in rows])

    model = Linear(Linear.Hyper(sharpness=3.0), task="classification").fit(read("dev.txt", 8000))
    assert accuracy(model, read("train_part.txt", 5000)) > 0.84
