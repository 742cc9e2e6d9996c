"""Examples in columns, conversations, and answers as JSON shows them."""

import struct

import msgspec
import pytest

from wenfang.core.conversation import Generation, Message, conversation, written
from wenfang.core.examples import Alternative, Examples, Output, Reply, Span, ask
from wenfang.core.plain import plain


def test_taking_and_adding_keep_every_column():
    pairs = Examples("matching", ["a", "b", "c"], ["0", "1", "0"], texts_b=["x", "y", "z"], ids=["1", "2", "3"])
    assert pairs.take([2, 0]) == Examples("matching", ["c", "a"], ["0", "0"], texts_b=["z", "x"], ids=["3", "1"])
    assert (pairs + pairs).texts_b == ["x", "y", "z"] * 2
    assert [len(b) for b in pairs.batches(2)] == [2, 1]


def test_weights_are_filled_where_one_side_has_none():
    a, b = Examples("classification", ["a"], ["0"], weights=[2.0]), Examples("classification", ["b"], ["1"])
    assert (a + b).weights == [2.0, 1.0]
    assert (b + a).weights == [1.0, 2.0]
    assert (b + b).weights == []


def test_label_names_of_every_task():
    assert Examples("multilabel", ["a", "b"], label_sets=[("y", "x"), ()]).label_names() == ["x", "y"]
    assert Examples("tagging", ["ab"], spans=[(Span(0, 1, "P"),)]).label_names() == ["P"]
    assert Examples("generation", ["a"], targets=["b"]).label_names() == []


def test_pairs_are_asked_as_pairs():
    class Both:
        def predict(self, texts):
            return [Output(label=t) for t in texts]

        def match(self, texts, texts_b):
            return [Output(label=a + b) for a, b in zip(texts, texts_b, strict=True)]

    assert ask(Both(), Examples("matching", ["a"], texts_b=["b"]))[0].label == "ab"
    assert ask(Both(), Examples("classification", ["a"]))[0].label == "a"


@pytest.mark.parametrize("text", ["", "你好", '[{"role":"nobody","content":""}]', '[{"role"', "[1]", "\ud800", '[{"role":"user"}]', '[{"role":"\ud800'])
def test_any_text_is_a_conversation(text):
    assert conversation(text) == [Message("user", text)]


def test_a_conversation_survives():
    turns = [Message("system", "简短"), Message("user", "第一行\n第二行\x1e"), Message("assistant", "")]
    assert conversation(written(turns)) == turns


def test_generation_options_have_bounds():
    decode = msgspec.json.Decoder(Generation).decode
    assert decode(b'{"max_tokens":3,"temperature":0}').max_tokens == 3
    for bad in (b'{"max_tokens":0}', b'{"temperature":-1}', b'{"top_p":0}', b'{"beams":99}'):
        with pytest.raises(msgspec.ValidationError):
            decode(bad)


def test_answers_as_json_shows_them():
    assert plain(Output(label="a", score=0.5, scores={"b": 0.2, "a": 0.5, "c": 0.3}), "", 2) == {"label": "a", "score": 0.5, "scores": {"a": 0.5, "c": 0.3}}
    assert plain(Output(spans=(Span(0, 1, "X"),), span_scores=(0.25,)), "好的")["spans"] == [{"start": 0, "end": 1, "label": "X", "text": "好", "score": 0.25}]
    assert plain(Output(vector=struct.pack("<2f", 0.5, -1.0)), "") == {"vector": [0.5, -1.0]}
    assert plain(Output(text="好", finish="stop", replies=(Reply("好", 0.9),)), "") == {"text": "好", "finish": "stop", "replies": [{"text": "好", "score": 0.9}]}
    assert plain(Output(labels=(), score=0.9), "") == {"labels": (), "score": 0.9}


def test_other_ways_to_read_a_text_are_shown_when_asked_for():
    here = (Span(0, 2, "LOC"),)
    output = Output(spans=here, score=0.5, alternatives=(Alternative(here, 0.5), Alternative((), 0.25)))
    told = [{"spans": [{"start": 0, "end": 2, "label": "LOC", "text": "北京"}], "score": 0.5}, {"spans": [], "score": 0.25}]
    assert plain(output, "北京好", 2)["alternatives"] == told
    assert "alternatives" not in plain(output, "北京好")
