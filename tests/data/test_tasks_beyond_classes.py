"""Pairs, label sets, target texts and conversations: from files to examples and back."""

import json

import pytest

from wenfang.core.conversation import Message, conversation
from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Quiet
from wenfang.data.importing import import_splits
from wenfang.data.leaks import leaked_rows
from wenfang.data.split import split_rows
from wenfang.data.version import load_examples, save_splits


def taken(tmp_path, blobs, text, name="f.jsonl", **more):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    got = import_splits({"all": path}, blobs=blobs, progress=Quiet(), **more)
    return got, load_examples(got.manifest, blobs)


def lines(*rows):
    return "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)


def test_pairs_by_the_names_of_their_columns(tmp_path, blobs):
    got, examples = taken(tmp_path, blobs, lines({"sentence1": "a", "sentence2": "b", "label": "1"}, {"sentence1": "c", "sentence2": "d", "label": "0"}))
    assert (got.task, got.labels, got.guessed["text_b"]) == ("matching", ["0", "1"], "sentence2")
    assert (examples.texts, examples.texts_b, examples.labels) == (["a", "c"], ["b", "d"], ["1", "0"])


def test_pairs_without_names_are_two_texts_alike_and_a_third_of_few_values(tmp_path, blobs):
    rows = "\n".join(f"第{i}个问题怎么办\t第{i}个怎么处理\t{i % 2}" for i in range(40))
    assert taken(tmp_path, blobs, rows, "f.txt")[0].task == "matching"
    rows = "\n".join(f"题{i}\t第{i}条正文比标题长得多得多得多得多\t{i % 2}" for i in range(40))
    assert taken(tmp_path, blobs, rows, "g.txt")[0].task == "classification"


@pytest.mark.parametrize(
    ("labels", "graded", "grades"),
    [("0 1 2 3 4 5", None, [0, 0.2, 0.4, 0.6, 0.8, 1]), ("0 0.5 1", None, [0, 0.5, 1]), ("0 1", None, None), ("0 1 2", True, [0, 0.2, 0.4]), ("0 1 2 3 4 5", False, None)],
)
def test_numbers_of_pairs_are_grades_or_classes(tmp_path, blobs, labels, graded, grades):
    rows = [{"text_a": f"甲{i}", "text_b": f"乙{i}", "score": label} for i, label in enumerate(labels.split())]
    _, examples = taken(tmp_path, blobs, lines(*rows), graded=graded)
    assert examples.grades == pytest.approx(grades or [])
    assert examples.labels == ([] if grades else labels.split())


def test_grades_that_are_none_are_refused(tmp_path, blobs):
    with pytest.raises(Invalid, match="grades-wanted"):
        taken(tmp_path, blobs, lines({"text_a": "a", "text_b": "b", "label": "yes"}), graded=True)


def test_label_sets_from_lists_and_from_cells(tmp_path, blobs):
    got, examples = taken(tmp_path, blobs, lines({"text": "a", "labels": ["y", "x"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["x,1"]}))
    assert (got.task, examples.label_sets, got.labels) == ("multilabel", [("x", "y"), (), ("x,1",)], ["x", "x,1", "y"])
    _, examples = taken(tmp_path, blobs, "text,label\na,y|x\nb,x\n", "f.csv", task="multilabel")
    assert examples.label_sets == [("x", "y"), ("x",)]


def test_texts_to_generate(tmp_path, blobs):
    got, examples = taken(tmp_path, blobs, lines({"content": "很长的正文", "summary": "短"}, {"content": "另一篇正文", "summary": " "}))
    assert (got.task, examples.targets, got.card_document["splits"]["all"]["quarantined"]["reasons"]) == ("generation", ["短"], {"missing-target": 1})


def test_every_turn_of_the_assistant_is_an_example(tmp_path, blobs):
    turns = [
        {"role": "system", "content": "短"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "4"},
    ]
    got, examples = taken(tmp_path, blobs, lines({"messages": turns}, {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}))
    assert (got.task, examples.targets, examples.groups) == ("chat", ["2", "4"], ["1", "1"])
    assert conversation(examples.texts[1]) == [Message("system", "短"), Message("user", "1"), Message("assistant", "2"), Message("user", "3")]
    assert got.card_document["splits"]["all"]["quarantined"]["reasons"] == {"no-reply": 1}


def test_turns_without_roles_alternate(tmp_path, blobs):
    _, examples = taken(tmp_path, blobs, lines({"conversation": ["在吗", "在", "几点了"]}))
    assert examples.targets == ["在", "几点了"]
    assert [m.role for m in conversation(examples.texts[1])] == ["assistant", "user"]


def test_replies_in_columns(tmp_path, blobs):
    got, examples = taken(tmp_path, blobs, "question,answer\n几点开门,九点\n在哪,东门\n", "f.csv")
    assert (got.task, examples.texts, examples.targets) == ("chat", ["几点开门", "在哪"], ["九点", "东门"])


def test_weights_are_positive_numbers(tmp_path, blobs):
    got, examples = taken(tmp_path, blobs, "text,label,w\na,x,2\nb,y,0\nc,x,nan\nd,y,0.5\n", "f.csv", weight="w")
    assert examples.weights == [2.0, 0.5]
    assert got.card_document["splits"]["all"]["quarantined"]["reasons"] == {"bad-weight": 2}


@pytest.mark.parametrize("examples", [
    Examples("matching", ["a", "b"], ["0", "1"], texts_b=["c", "d"]),
    Examples("matching", ["a", "b"], texts_b=["c", "d"], grades=[0.25, 1.0]),
    Examples("multilabel", ["a", "b"], label_sets=[("x", "y"), ()]),
    Examples("generation", ["a", "b"], targets=["c", "d"], weights=[1.0, 2.0]),
    Examples("embedding", ["a", "b"]),
], ids=lambda e: e.task)  # fmt: skip
def test_examples_come_back_as_they_were_kept(blobs, examples):
    kept = save_splits({"train": examples}, blobs=blobs, progress=Quiet())
    back = load_examples(kept.manifest, blobs)
    assert {k: v for k, v in back.columns().items() if k != "ids"} == {k: v for k, v in examples.columns().items() if k != "ids"}


def test_pairs_leak_as_pairs_and_are_divided():
    pairs = Examples("matching", ["a"] * 20, [str(i % 2) for i in range(20)], texts_b=[f"{i}" for i in range(20)])
    assert leaked_rows(pairs.take(range(3)), pairs.take([1, 7])) == [0]
    shares = split_rows(pairs, shares={"train": 0.8, "test": 0.2}, seed=0, near_threshold=2.0)
    assert len(shares["train"]) + len(shares["test"]) == 20
    assert len(split_rows(Examples("generation", [f"第{i}篇" for i in range(20)], targets=["x"] * 20), shares={"train": 0.8, "test": 0.2}, near_threshold=2.0, seed=0)["test"]) == 4


def test_nothing_is_said_of_classes_where_labels_are_grades(tmp_path, blobs):
    rows = [{"text": f"甲{i}", "text_b": f"乙{i}", "score": i / 7} for i in range(20)] + [{"text": "甲1", "text_b": "乙1", "score": 0.9}]
    got, examples = taken(tmp_path, blobs, lines(*rows))
    assert got.task == "matching"
    assert examples.grades
    assert [key for key, _ in got.warnings] == ["card.duplicates"]
