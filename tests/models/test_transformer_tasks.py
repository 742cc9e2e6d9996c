"""Pairs, grades, label sets, long documents and low-rank training in the transformer family."""

import random
from dataclasses import replace

import pytest
from test_transformer_pretrained import folder  # noqa: F401 a fixture

from wenfang.core.errors import Invalid, Unsupported
from wenfang.core.examples import Examples
from wenfang.models import families

Transformer = families.get("transformer")
SMALL = {
    "hidden": 32, "heads": 2, "ff": 64, "layers": 1, "ngram_buckets": 0, "min_count": 1, "learning_rate": 0.01, "dropout": 0.0, "token_dropout": 0.0, "threads": 1, "width": "fp32",
    "precision": "fp32", "epochs": 15, "batch_tokens": 256,
}  # fmt: skip
LETTERS = "天地玄黄宇宙洪荒"


def pairs(n=400, seed=1, *, graded=False):
    """Whether both texts hold the same mark; graded: how near their marks are."""
    rng = random.Random(seed)
    one, two, labels, grades = [], [], [], []
    for _ in range(n):
        a, b = rng.randrange(3), rng.randrange(3)
        a = b if rng.random() < 0.3 else a
        noise = ["".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 6))) for _ in range(4)]
        one.append(noise[0] + "甲乙丙"[a] + noise[1])
        two.append(noise[2] + "子丑寅"[b] + noise[3])
        labels.append("same" if a == b else "other")
        grades.append(1 - abs(a - b) / 2)
    return Examples("matching", one, [] if graded else labels, texts_b=two, grades=grades if graded else [])


def fit(train, valid, **hyper):
    return Transformer(Transformer.Hyper(**(SMALL | hyper)), task=train.task).fit(train, valid)


def test_pairs_are_told_apart_and_survive_the_disk(tmp_path):
    model, fresh = fit(pairs(), pairs(80, 2)), pairs(200, 3)
    answers = model.match(fresh.texts, fresh.texts_b, top_k=2)
    assert sum(a.label == y for a, y in zip(answers, fresh.labels, strict=True)) / 200 > 0.9
    model.save(tmp_path)
    again = Transformer.load(tmp_path, task="matching", hyper=model.hyper, labels=model.labels_)
    assert again.match(fresh.texts, fresh.texts_b, top_k=2) == answers
    long = ["天地" * 300 + "甲", ""]
    assert model.match(long, ["子", "天" * 700])[0].label in {"same", "other"}
    with pytest.raises(Invalid, match=r"model\.pairs-wanted"):
        model.predict(["天"])
    assert model.predict([]) == []


def test_grades_between_nothing_and_one():
    train, fresh = pairs(graded=True), pairs(100, 3, graded=True)
    model = fit(train, pairs(80, 2, graded=True))
    answers = model.match(fresh.texts, fresh.texts_b)
    assert all(a.label is None and 0 <= a.score <= 1 for a in answers)
    assert sum(abs(a.score - g) for a, g in zip(answers, fresh.grades, strict=True)) / 100 < 0.2
    assert model.labels_ == []


def test_a_classifier_takes_no_pairs():
    data = Examples("classification", ["天好", "地坏"] * 20, ["a", "b"] * 20)
    with pytest.raises(Unsupported, match=r"model\.no-pairs"):
        fit(data, None, epochs=1).match(["天"], ["地"])


def sets(n=300, seed=1):
    rng = random.Random(seed)
    texts, label_sets = [], []
    for i in range(n):
        marks = [m for m, bit in (("甲", 1), ("乙", 2), ("丙", 4)) if i & bit]
        letters = [rng.choice(LETTERS) for _ in range(rng.randint(2, 8))] + marks
        rng.shuffle(letters)
        texts.append("".join(letters))
        label_sets.append(tuple(sorted(marks)))
    return Examples("multilabel", texts, label_sets=label_sets)


def test_label_sets_with_a_threshold_from_valid(tmp_path):
    model, fresh = fit(sets(), sets(80, 2)), sets(100, 3)
    answers = model.predict(fresh.texts, top_k=3)
    assert sum(set(a.labels) == set(y) for a, y in zip(answers, fresh.label_sets, strict=True)) / 100 > 0.9
    assert all(list(a.scores.values()) == sorted(a.scores.values(), reverse=True) for a in answers)
    assert 0 < model.threshold_ < 1
    assert model.refit_hyper().threshold == model.threshold_
    model.save(tmp_path)
    assert Transformer.load(tmp_path, task="multilabel", hyper=model.hyper, labels=model.labels_).predict(fresh.texts, top_k=3) == answers


def test_valid_may_hold_labels_of_a_set_never_seen():
    valid = replace(sets(20, 2), label_sets=[("new",)] * 20)
    assert fit(sets(40), valid, epochs=1).labels_ == ["丙", "乙", "甲"]


@pytest.mark.parametrize(("aggregate", "label"), [("mean", "b"), ("vote", "b"), ("max", None)])
def test_windows_of_long_documents(aggregate, label):
    data = Examples("classification", ["天地好", "玄黄坏"] * 60, ["a", "b"] * 60)
    model = fit(data, None, epochs=8, max_length=4, aggregate=aggregate)
    (answer,) = model.predict(["天地好天" + "玄黄坏玄" * 3], top_k=2)
    assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-4)
    assert label is None or answer.label == label


@pytest.mark.parametrize("task", ["classification", "tagging", "matching"])
def test_low_rank_training_is_merged_before_export(folder, task):  # noqa: F811 a fixture
    from test_transformer_pretrained import world

    data, valid = (pairs(80), pairs(20, 2)) if task == "matching" else (world(task), world(task, 40, 2))
    hyper = {"pretrained": str(folder), "lora_rank": 4, "epochs": 3, "learning_rate": 5e-3}
    if task == "matching":  # the vocabulary of the directory lacks the marks of this world
        data, valid = (Examples("matching", [t.translate(TRANSLATED) for t in e.texts], e.labels, texts_b=[t.translate(TRANSLATED) for t in e.texts_b]) for e in (data, valid))
    model = fit(data, valid, **hyper)
    assert model.found_["onnx_difference"] < 1e-4
    assert not any(b"lora" in part for part in (model.onnx_,))
    assert len(model.match(data.texts[:3], data.texts_b[:3]) if task == "matching" else model.predict(data.texts[:3])) == 3


TRANSLATED = str.maketrans("甲乙丙子丑寅", "天地玄黄宇宙")


def test_low_rank_training_needs_a_directory():
    with pytest.raises(Invalid, match=r"neural\.lora-unfit"):
        fit(pairs(20), None, lora_rank=4)
