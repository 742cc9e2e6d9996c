"""What a language model is asked, and how its words are read."""

import json

import pytest

from wenfang.core.examples import Examples, Output, Span
from wenfang.models.forms import Form, form_of, located, spread

PEOPLE = Form("tagging", ("人", "地"))


def spans(*found):
    return [(s.start, s.end, s.label) for s in found]


def test_quotes_are_found_where_they_stand():
    text = "张三对张三说：ＡＰＰＬE 在 北京"
    assert spans(*located(text, [("张三", "人"), ("张三", "人")])) == [(0, 2, "人"), (3, 5, "人")]
    assert spans(*located(text, [("张三", "人")])) == [(0, 2, "人")]
    assert spans(*located(text, [("北京", "地"), ("张三", "人")])) == [(0, 2, "人"), (15, 17, "地")], "out of order: the first free place"
    assert spans(*located(text, [("apple", "人"), (" 北京　", "地")])) == [(7, 12, "人"), (15, 17, "地")], "width, case and blanks do not matter"
    assert spans(*located(text, [("张三", "人"), ("三对", "地"), ("", "人"), ("李四", "人")])) == [(0, 2, "人")], "no overlap, nothing that is not there"
    assert spans(*located("啊啊啊啊", [("啊啊", "人")] * 3)) == [(0, 2, "人"), (2, 4, "人")]


@pytest.mark.parametrize(
    "said, wanted, lost",
    [
        ('{"spans": [{"text": "张三", "label": "人"}]}', [(0, 2, "人")], 0),
        ('```json\n{"spans": [{"text": "张三", "label": "人"}]}\n```', [(0, 2, "人")], 0),
        ('Here they are: {"spans": [{"text": "北京", "label": "地"}, {"text": "上海", "label": "地"}]}. Done', [(3, 5, "地")], 1),
        ('[{"text": "张三", "label": "人"}, {"text": "北京", "label": "组织"}, 7]', [(0, 2, "人")], 2),
        ('{"spans": []}', [], 0),
    ],
)
def test_spans_are_read_also_among_words(said, wanted, lost):
    read = PEOPLE.read(said, "张三在北京")
    assert (spans(*read.output.spans), read.lost) == (wanted, lost)


@pytest.mark.parametrize("said", ["", "none", '{"people": []}', '{"spans": "张三"}', "[" * 5000, '{"spans": [', "null"])
def test_what_says_nothing_is_not_understood(said):
    assert PEOPLE.read(said, "张三在北京") is None


def test_labels_and_grades():
    several = Form("multilabel", ("A", "B", "C"))
    assert several.read('{"labels": ["b", "C", "b", "D"]}', "x").output == Output(labels=("B", "C"))
    assert several.read('{"labels": ["b", "C", "b", "D"]}', "x").lost == 1
    assert several.read("B and C", "x") is None
    grade = form_of("matching", [])
    assert grade.graded
    assert [grade.read(said, "").output.score for said in ('{"grade": 0.75}', "0.5", '{"grade": 7}')] == [0.75, 0.5, 1.0]
    assert [grade.read(said, "") for said in ('{"grade": "high"}', "true", '{"grade": NaN}x')] == [None] * 3
    pair = form_of("matching", ["no", "yes"])
    assert pair.read("Yes.", "").output.label == "yes"
    assert form_of("chat", []) is None


def test_answers_shown_are_answers_that_can_be_read():
    tagged = Examples("tagging", ["张三在北京", "无"], spans=[(Span(3, 5, "地"), Span(0, 2, "人")), ()])
    for row in (0, 1):
        read = PEOPLE.read(PEOPLE.answer(tagged, row), tagged.texts[row])
        assert PEOPLE.right(read.output, tagged, row)
    sets = Examples("multilabel", ["x"], label_sets=[("B", "A")])
    several = Form("multilabel", ("A", "B"))
    assert several.right(several.read(several.answer(sets, 0), "x").output, sets, 0)
    assert json.loads(several.answer(sets, 0)) == {"labels": ["A", "B"]}


def test_what_is_shown_covers_the_labels():
    data = Examples("multilabel", [str(i) for i in range(50)], label_sets=[("A", "B") if i == 30 else ("C",) if i == 41 else ("A",) for i in range(50)])
    assert set(spread(range(50), data, 2)) == {30, 41}
    single = Examples("classification", [str(i) for i in range(9)], labels=list("aaaaaaabc"))
    assert [single.labels[i] for i in spread(range(9), single, 4)] == ["a", "b", "c", "a"]
