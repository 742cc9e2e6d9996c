"""Any text of Unicode comes back code point by code point, and so do offsets."""

import csv
import io
import json
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from folder_blobs import FolderBlobs
from hypothesis import given, settings
from hypothesis import strategies as st

from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Quiet
from wenfang.data.corpus import write_corpus
from wenfang.data.importing import import_file
from wenfang.data.tagging import decode, join_tokens
from wenfang.data.version import load_examples

LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROWS = st.lists(LETTERS.map(lambda t: "字" + t), min_size=1, max_size=8)


def through(name, data, **wishes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        blobs = FolderBlobs(Path(folder) / "blobs")
        got = import_file(path, blobs=blobs, progress=Quiet(), **wishes)
        return load_examples(got.manifest, blobs)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.sampled_from(["\n", "\r\n"]))
def test_csv(texts, encoding, end):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["text", "label"], *([t, "a"] for t in texts)])
    assert through("a.csv", out.getvalue().encode(encoding), text="text", label="label").texts == texts


@settings(max_examples=60, deadline=None)
@given(ROWS, st.booleans())
def test_jsonl(texts, ascii_only):
    data = "".join(json.dumps({"text": t, "label": "a"}, ensure_ascii=ascii_only) + "\n" for t in texts)
    assert through("a.jsonl", data.encode()).texts == texts


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_json(texts):
    data = json.dumps([{"text": t, "label": "a", "x": {"y": [t]}} for t in texts], ensure_ascii=False, indent=1)
    assert through("a.json", data.encode(), text="text", label="label").texts == texts


@settings(max_examples=60, deadline=None)
@given(st.lists(LETTERS.map(lambda t: "字" + t.replace("\t", "").replace("\n", "").replace("\r", "")), min_size=1, max_size=8), st.sampled_from(["utf-8", "utf-16"]))
def test_plain_lines(texts, encoding):
    data = "".join(f"{t}\ta\n" for t in texts)
    assert through("a.txt", data.encode(encoding), text="column_1", label="column_2", task="classification").texts == texts


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_spans(texts, data):
    rows = []
    for t in texts:
        start = data.draw(st.integers(0, len(t) - 1))
        rows.append((t, start, data.draw(st.integers(start + 1, len(t)))))
    lines = "".join(json.dumps({"text": t, "label": [[a, b, "x"]]}) + "\n" for t, a, b in rows)
    examples = through("a.jsonl", lines.encode())
    assert examples.texts == texts
    assert [(s[0].start, s[0].end) for s in examples.spans] == [(a, b) for _, a, b in rows]


TOKENS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=5), min_size=1, max_size=12)


@given(TOKENS, st.booleans())
def test_joined_tokens_keep_their_places(tokens, characters):
    text, starts, ends = join_tokens(tokens, characters=characters)
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == tokens
    assert text.replace(" ", "") == "".join(tokens).replace(" ", "")


TAGS = st.lists(st.sampled_from(["O", "B-x", "I-x", "E-x", "S-x", "M-x", "B-y", "I-y", "L-y", "U-y"]), max_size=15)


@given(TAGS, st.booleans())
def test_any_tags_give_sorted_spans_that_do_not_overlap(tags, loose):
    spans, repairs = decode(tags, list(range(len(tags))), list(range(1, len(tags) + 1)), loose=loose)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    covered = {i for a, b, _ in spans for i in range(a, b)}
    assert covered == {i for i, t in enumerate(tags) if t != "O"}
    assert repairs >= 0


@pytest.mark.parametrize("rows", [60, 3000])
def test_the_demo_corpus_imports_and_its_spans_hold(tmp_path, rows):
    files = write_corpus(tmp_path, rows=rows)
    again = write_corpus(tmp_path / "again", rows=rows)
    assert all(files[k].read_bytes() == again[k].read_bytes() for k in files)
    assert write_corpus(tmp_path / "other", rows=rows, seed=8)["tickets"].read_bytes() != files["tickets"].read_bytes()
    blobs = FolderBlobs(tmp_path / "blobs")
    tickets = import_file(files["tickets"], blobs=blobs, progress=Quiet())
    assert (tickets.task, tickets.guessed["text"], tickets.guessed["label"]) == ("classification", "text", "label")
    entities = import_file(files["entities"], blobs=blobs, progress=Quiet())
    assert entities.task == "tagging"
    assert set(entities.labels) == {"订单号", "商品", "日期", "人名", "地址"}
    if rows == 3000:
        card = tickets.card_document["splits"]["all"]
        assert len(tickets.labels) >= 20
        assert card["quarantined"]["reasons"].keys() <= {"empty-text"}
        assert card["duplicates"]["rows"] > 50
        assert card["conflicts"]["texts"] > 0
        counts = list(card["labels"].values())
        assert counts[0] > 8 * counts[-1]
    examples = load_examples(entities.manifest, blobs)
    orders = [t[s.start : s.end] for t, spans in zip(examples.texts, examples.spans, strict=True) for s in spans if s.label == "订单号"]
    assert orders
    assert all(o[-9:].isdecimal() for o in orders)


def test_examples_without_ids_get_the_lines_of_their_file():
    examples = through("a.csv", b"text,label\na,1\n,1\nb,0\n", text="text", label="label")
    assert examples == Examples("classification", ["a", "b"], ["1", "0"], [], ["all:2", "all:4"])
    assert isinstance(Span(0, 1, "x"), Span)
