"""A teacher's opinion as weighted examples."""

import numpy as np
import pytest

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples, Output, Span
from wenfang.models import families
from wenfang.models.distilling import taught


class Teacher:
    """Knows what it is told to know."""

    def __init__(self, task, answers, labels=("bad", "good")):
        self.task, self.answers, self.labels_ = task, answers, list(labels)

    def probabilities(self, texts, texts_b=()):
        return np.array([self.answers[t] for t in texts], np.float32)

    def predict(self, texts):
        return [
            self.answers[t] if isinstance(self.answers[t], Output) else Output(label=self.labels_[int(np.argmax(self.answers[t]))], score=float(max(self.answers[t])))
            for t in texts
        ]


def test_an_example_stands_once_for_each_label_that_has_a_share():
    train = Examples("classification", ["a", "b"], ["good", "bad"], weights=[2.0, 1.0])
    got = taught(train, Teacher("classification", {"a": [0.4, 0.6], "b": [0.98, 0.02]}), share=0.5)
    assert list(zip(got.texts, got.labels, got.weights, strict=True)) == [("a", "bad", 0.4), ("a", "good", 1.6), ("b", "bad", 1.0)]
    assert taught(train, Teacher("classification", {}), share=0).weights == [2.0, 1.0]


def test_unlabelled_texts_get_the_answers_the_teacher_is_sure_of():
    train = Examples("classification", ["a", "b"], ["good", "bad"])
    teacher = Teacher("classification", {"a": [0, 1], "b": [1, 0], "c": [0.1, 0.9], "d": [0.55, 0.45]})
    got = taught(train, teacher, unlabelled=["c", "c", "a", "d"], sure_min=0.6)
    assert (got.texts, got.labels, got.weights) == (["a", "b", "c"], ["good", "bad", "good"], [1.0, 1.0, 0.9])


def test_taggers_and_writers_teach_by_their_answers():
    spans = Examples("tagging", ["x"], spans=[(Span(0, 1, "P"),)])
    got = taught(spans, Teacher("tagging", {"y": Output(spans=(Span(0, 1, "P"),), score=0.8), "z": Output(spans=(), score=0.2)}, ["P"]), unlabelled=["y", "z"])
    assert (got.texts, got.spans, got.weights) == (["x", "y"], [(Span(0, 1, "P"),)] * 2, [1.0, 0.8])
    texts = Examples("generation", ["x"], targets=["t"])
    assert taught(texts, Teacher("generation", {"y": Output(text="u")}, []), unlabelled=["y"]).targets == ["t", "u"]


def test_what_cannot_be_taught_is_refused():
    train = Examples("classification", ["a", "b"], ["good", "other"])
    with pytest.raises(Invalid, match=r"distil\.labels-unknown"):
        taught(train, Teacher("classification", {}))
    with pytest.raises(Invalid, match=r"distil\.tasks-differ"):
        taught(train, Teacher("tagging", {}))
    with pytest.raises(Invalid, match=r"distil\.no-pairs"):
        taught(Examples("matching", ["a"], ["good"], texts_b=["b"]), Teacher("matching", {}), unlabelled=["c"])


def test_a_student_learns_more_from_a_teacher_than_from_few_labels():
    rng = np.random.default_rng(0)

    def world(n):
        texts = ["".join(rng.choice(list("天地玄黄宇宙洪荒日月盈昃辰宿列张"), 6)) for _ in range(n)]
        value = dict(zip("天地玄黄宇宙洪荒日月盈昃辰宿列张", np.linspace(-1, 1, 16), strict=True))
        return Examples("classification", texts, ["good" if sum(value[c] for c in t) > 0 else "bad" for t in texts])

    linear = families.get("linear")
    teacher = linear(task="classification").fit(world(3000))
    few, raw, test = world(40), world(1500), world(500)

    def score(model):
        return np.mean([o.label == y for o, y in zip(model.predict(test.texts), test.labels, strict=True)])

    alone = score(linear(task="classification").fit(few))
    student = score(linear(task="classification").fit(taught(few, teacher, unlabelled=raw.texts)))
    assert student > alone + 0.05
