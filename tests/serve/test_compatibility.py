"""What breaks callers and what is merely new, on pairs of interfaces whose difference is known."""

from dataclasses import replace

import pytest

from wenfang.core.words import say
from wenfang.serve.compatibility import changes_between
from wenfang.serve.interface import LABELS_LISTED, Many, Part, Scalar, interface_of


def between(old, new):
    """(breaking, added) of two (task, labels)."""
    interfaces = [interface_of("s", model=f"m:{n}", task=task, labels=labels) for n, (task, labels) in enumerate((old, new), 1)]
    return told(changes_between(*interfaces, old[1], new[1]))


def told(changes):
    for key, fields in [*changes.breaking, *changes.added]:
        assert say(key, "zh", **fields) != say(key, "en", **fields)
    return [key.partition(".")[2] for key, _ in changes.breaking], [key.partition(".")[2] for key, _ in changes.added]


@pytest.mark.parametrize(
    ("old", "new", "breaking", "added"),
    [
        (("classification", ["a", "b"]), ("classification", ["a", "b"]), [], []),
        (("classification", ["a", "b"]), ("multilabel", ["a", "b"]), ["task-changed"], []),
        (("generation", []), ("chat", []), ["task-changed"], []),
        (("classification", ["a", "b"]), ("classification", ["a"]), ["labels-gone"], []),
        (("classification", ["a", "b"]), ("classification", ["a", "b", "c"]), [], ["labels-new"]),
        (("classification", ["a", "c"]), ("classification", ["a", "b", "c"]), [], ["labels-new", "labels-moved"]),
        (("classification", ["a", "b"]), ("classification", ["b", "a"]), [], ["labels-moved"]),
        (("tagging", ["LOC", "PER"]), ("tagging", ["LOC", "ORG"]), ["labels-gone"], ["labels-new", "labels-moved"]),
        (("matching", ["same", "other"]), ("matching", []), ["field-gone", "field-gone"], []),
        (("matching", []), ("matching", ["same", "other"]), ["field-unsure"], ["field-new", "field-new"]),
        (("embedding", []), ("embedding", []), [], []),
        (("chat", []), ("chat", []), [], []),
    ],
)
def test_known_pairs(old, new, breaking, added):
    assert between(old, new) == (breaking, added)


def test_labels_that_are_too_many_to_list_are_compared_all_the_same():
    many = [f"l{i}" for i in range(LABELS_LISTED + 5)]
    assert between(("classification", many), ("classification", many[:-1])) == (["labels-gone"], [])
    assert between(("classification", many), ("classification", [*many, "x"])) == ([], ["labels-new"])
    assert between(("classification", many), ("classification", many)) == ([], [])


def changed(**parts):
    """Interfaces of a chat service before and after: parameters, question or answer replaced."""
    old = interface_of("s", model="m:1", task="chat", labels=[])
    return told(changes_between(old, replace(old, **{name: replace(getattr(old, name), parts=change(getattr(old, name).parts)) for name, change in parts.items()}), [], []))


def test_fields_of_questions_and_parameters():
    more = Part("lang", 20, Scalar("string"), "of the answer")
    assert changed(parameters=lambda p: p[1:]) == (["field-gone"], [])
    assert changed(parameters=lambda p: (*p, more)) == ([], ["field-new"])
    assert changed(question=lambda p: (*p, replace(more, required=True))) == (["field-wanted"], [])
    assert changed(question=lambda p: (replace(p[0], required=True), *p[1:])) == (["field-wanted"], [])
    assert changed(parameters=lambda p: (replace(p[0], number=99), *p[1:])) == (["number-changed"], [])
    assert changed(parameters=lambda p: (replace(p[0], kind=Scalar("string")), *p[1:])) == (["kind-changed"], [])
    assert changed(parameters=lambda p: (replace(p[0], kind=Many(p[0].kind)), *p[1:])) == (["kind-changed"], [])


def test_ranges_narrow_in_questions_and_wide_in_answers_break():
    def bounded(least, most):
        return lambda parts: tuple(replace(p, kind=Scalar("integer", least=least, most=most)) if p.name in {"max_tokens", "tokens_in"} else p for p in parts)

    assert changed(parameters=bounded(1, 100)) == (["range-narrower"], [])
    assert changed(parameters=bounded(2, None)) == (["range-narrower"], [])
    assert changed(parameters=bounded(0, None)) == ([], ["range-changed"])
    assert changed(answer=bounded(None, None)) == (["range-wider"], [])
    assert changed(answer=bounded(-1, None)) == (["range-wider"], [])
    assert changed(answer=bounded(1, 5)) == ([], ["range-changed"])


def test_fields_of_answers():
    assert changed(answer=lambda p: p[1:]) == (["field-gone"], [])
    assert changed(answer=lambda p: (*p, Part("lang", 20, Scalar("string"), "of the answer", required=True))) == ([], ["field-new"])
    assert changed(answer=lambda p: (replace(p[0], required=True), *p[1:])) == ([], [])
