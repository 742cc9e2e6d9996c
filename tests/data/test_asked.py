"""Rows to be asked about: every format and encoding, without labels; what cannot be asked keeps its place."""

import json

import openpyxl
import polars as pl
import pytest

from wenfang.core.conversation import conversation
from wenfang.core.errors import Invalid
from wenfang.data.asked import TEXT_MAX, asked_of_file, asked_of_version

TEXTS = ["退款什么时候到账，谢谢", "快递到哪里了，三天没动", "电子发票在哪里下载呢？", "包裹破损了怎么办啊"]


def asked(path, task="classification", **columns):
    got = asked_of_file(path, task, **columns)
    rows = list(got.rows)
    assert got.total == len(rows) and [r.number for r in rows] == list(range(1, len(rows) + 1))
    return got, rows


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_encodings_are_told_apart_and_said(tmp_path, encoding):
    path = written(tmp_path / "a.csv", "编号,内容\n" + "".join(f"{i},{t}\n" for i, t in enumerate(TEXTS)), encoding)
    got, rows = asked(path, id="编号")
    assert [(r.id, r.text, r.error) for r in rows] == [(str(i), t, "") for i, t in enumerate(TEXTS)]
    assert got.guessed["text"] == "内容" and got.guessed["format"] == "csv" and got.fields == {"text": "内容", "id": "编号"}


def test_every_format_gives_the_same_rows(tmp_path):
    frame = pl.DataFrame({"id": ["a", "b", "c", "d"], "text": TEXTS})
    frame.write_parquet(tmp_path / "f.parquet")
    written(tmp_path / "f.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in frame.to_dicts()))
    written(tmp_path / "f.json", json.dumps(frame.to_dicts(), ensure_ascii=False))
    written(tmp_path / "f.tsv", "id\ttext\n" + "".join(f"{r['id']}\t{r['text']}\n" for r in frame.to_dicts()))
    book = openpyxl.Workbook()
    for line in (("id", "text"), *frame.rows()):
        book.active.append(line)
    book.save(tmp_path / "f.xlsx")
    for suffix in ("parquet", "jsonl", "json", "tsv", "xlsx"):
        _, rows = asked(tmp_path / f"f.{suffix}", id="id")
        assert [(r.id, r.text) for r in rows] == list(zip("abcd", TEXTS, strict=True)), suffix
    _, rows = asked(written(tmp_path / "f.txt", "\n".join(TEXTS)))
    assert [r.text for r in rows] == TEXTS
    _, rows = asked(written(tmp_path / "f.conll", "北 B-LOC\n京 I-LOC\n\n好 O\n"), "tagging")
    assert [r.text for r in rows] == ["北京", "好"]


def test_rows_that_cannot_be_asked_keep_their_places(tmp_path):
    path = written(tmp_path / "a.csv", f'id,text\n1,{TEXTS[0]}\n2,\n3,"x",y,z\n4,{TEXTS[1]}\n5,{"长" * (TEXT_MAX + 1)}\n')
    _, rows = asked(path, id="id")
    assert [(r.id, r.text, r.error) for r in rows] == [
        ("1", TEXTS[0], ""),
        ("2", "", "reader.empty-text"),
        (None, "", "reader.too-many-fields"),
        ("4", TEXTS[1], ""),
        ("5", "", "service.text-too-long"),
    ]
    lone = written(tmp_path / "b.jsonl", '{"text": "好好好"}\n{"text": "\\ud800"}\n{"text": ["a"]}\n{"text": "坏坏坏"}\n')
    assert [(r.text, r.error) for r in asked(lone)[1]][1] == ("", "reader.lone-surrogate")


def test_pairs_conversations_and_tokens(tmp_path):
    pairs = written(tmp_path / "p.csv", "sentence1,sentence2\n怎么退款,如何退钱\n几点开门,\n")
    got, rows = asked(pairs, "matching")
    assert [(r.text, r.text_b, r.error) for r in rows] == [("怎么退款", "如何退钱", ""), ("", "", "reader.empty-text")]
    assert (got.guessed["text"], got.guessed["text_b"]) == ("sentence1", "sentence2")
    assert asked(pairs, "matching", text="sentence2")[1][0][2:4] == ("如何退钱", "怎么退款")
    assert asked(written(tmp_path / "q.csv", "甲,乙\n怎么退款呀,如何退钱\n"), "matching", text="乙")[1][0][2:4] == ("如何退钱", "怎么退款呀")
    turns = [{"role": "user", "content": "在吗"}, {"role": "assistant", "content": "在"}, {"role": "user", "content": "开门没"}]
    chat = written(
        tmp_path / "c.jsonl", json.dumps({"id": "x", "messages": turns}, ensure_ascii=False) + "\n" + json.dumps({"id": "y", "messages": turns[:1]}) + '\n{"messages": [1]}\n'
    )
    _, rows = asked(chat, "chat", id="id")
    assert [m.content for m in conversation(rows[0].text)] == ["在吗", "在", "开门没"] and [m.role for m in conversation(rows[1].text)] == ["user"]
    assert rows[2].error == "reader.bad-conversation"
    tokens = written(tmp_path / "t.jsonl", '{"tokens": ["北", "京"], "ner_tags": ["B-LOC", "I-LOC"]}\n{"tokens": ["好"]}\n')
    assert [r.text for r in asked(tokens, "tagging")[1]] == ["北京", "好"]


def test_faults_of_files_are_told_before_the_first_row(tmp_path):
    path = written(tmp_path / "a.csv", f"id,content\n1,{TEXTS[0]}\n")
    with pytest.raises(Invalid, match="column-missing") as e:
        asked_of_file(path, "classification", text="contents")
    assert "content" in e.value.hint("en")
    with pytest.raises(Invalid, match="same-column"):
        asked_of_file(path, "classification", text="content", id="content")
    with pytest.raises(Invalid, match="column-unclear"):
        asked_of_file(written(tmp_path / "one.csv", "text\n一句话\n"), "matching")
    for text, code in (("", "file-empty"), ("  \n\n", "file-blank"), ("id,text\n", "no-rows")):
        with pytest.raises(Invalid, match=code):
            asked_of_file(written(tmp_path / "b.csv", text), "classification")
    with pytest.raises(Invalid, match="malformed"):
        asked_of_file(written(tmp_path / "b.jsonl", '{"text": "好"}\n' * 3 + "{broken\n"), "classification")


def test_examples_of_a_version(tmp_path):
    from folder_blobs import FolderBlobs

    from wenfang.core.ports import Quiet
    from wenfang.data.importing import import_splits

    blobs = FolderBlobs(tmp_path / "blobs")
    files = {name: written(tmp_path / f"{name}.csv", "text,label\n" + "".join(f"{t}{name},{'ab'[i % 2]}\n" for i, t in enumerate(TEXTS))) for name in ("train", "test")}
    version = import_splits(files, blobs=blobs, progress=Quiet())
    more = {"content_hash": version.content_hash, "rows": version.rows}
    got = asked_of_version(version.manifest, blobs, pairs=False, **more)
    rows = list(got.rows)
    assert got.total == 8 and [r.text for r in rows] == [t + name for name in ("train", "test") for t in TEXTS] and rows[0].id == "train:2"
    assert [r.text for r in asked_of_version(version.manifest, blobs, pairs=False, split="test", **more).rows] == [f"{t}test" for t in TEXTS]
    with pytest.raises(Invalid, match="no-pairs"):
        asked_of_version(version.manifest, blobs, pairs=True, **more)
