"""The data card counts what a brute-force count finds."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.ports import Quiet
from wenfang.core.text import fold, script_of
from wenfang.core.words import LANGS, say
from wenfang.core.words import keys as catalogue
from wenfang.data.codepoints import SCRIPTS, folded, lengths_of, points_of, scripts_of_rows
from wenfang.data.importing import import_file, import_splits


def test_counts_equal_brute_force(tmp_path, blobs, monkeypatch):
    draw = random.Random(5)
    pool = ["好", "很好用", "hello world", "これはペンです", "Привет", "123", "坏�了", "안녕하세요 세계", "مرحبا", "长" * 200, "ok 好"] + [f"文本{i}" for i in range(30)]
    rows = [(draw.choice(pool), draw.choice("abc")) for _ in range(400)]
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{t}\t{y}\n" for t, y in rows))
    import wenfang.data.source as source

    monkeypatch.setattr(source.Source.line_blocks, "__defaults__", (512,))
    card = import_file(path, blobs=blobs, progress=Quiet(), long_at=100).card_document["splits"]["all"]
    counts, by_text = Counter(t for t, _ in rows), {}
    for t, y in rows:
        by_text.setdefault(t, set()).add(y)
    assert card["rows"] == 400
    assert card["duplicates"]["rows"] == 400 - len(counts)
    assert card["duplicates"]["texts"] == sum(n > 1 for n in counts.values())
    assert card["conflicts"]["texts"] == sum(len(v) > 1 for v in by_text.values())
    assert card["conflicts"]["rows"] == sum(counts[t] for t, v in by_text.items() if len(v) > 1)
    assert card["labels"] == dict(sorted(Counter(y for _, y in rows).items(), key=lambda kv: (-kv[1], kv[0])))
    assert card["scripts"] == dict(Counter(script_of(t) for t, _ in rows))
    assert card["replacement_character_rows"] == sum("�" in t for t, _ in rows)
    assert card["over_long"]["rows"] == counts["长" * 200]
    lengths = sorted(len(t) for t, _ in rows)
    assert (card["length"]["min"], card["length"]["max"], card["length"]["p50"]) == (lengths[0], 200, lengths[199])
    for example in card["conflicts"]["examples"]:
        texts = {rows[line - 1][0] for line in example["lines"]}
        assert len(texts) == 1
        assert [rows[line - 1][1] for line in example["lines"]] == example["labels"]
    for lines in card["duplicates"]["example_lines"]:
        assert len({rows[line - 1][0] for line in lines}) == 1


def test_partitioned_counting_equals_counting_at_once(tmp_path, blobs, monkeypatch):
    from wenfang.data.tally import Tally

    path = tmp_path / "a.txt"
    path.write_text("".join(f"文本{i % 700}\t{i % 3}\n" for i in range(1000)))
    other = tmp_path / "b.txt"
    other.write_text("".join(f"文本{i}\t{i % 3}\n" for i in range(600, 900)))
    whole = import_splits({"train": path, "test": other}, text=None, label=None, task=None, blobs=blobs, progress=Quiet()).card_document
    parts = Tally._parts

    def sixteen(self):
        rows, self.rows = self.rows, 2_000_000
        try:
            yield from parts(self)
        finally:
            self.rows = rows

    monkeypatch.setattr(Tally, "_parts", sixteen)
    again = import_splits({"train": path, "test": other}, text=None, label=None, task=None, blobs=blobs, progress=Quiet()).card_document
    assert again == whole
    assert whole["leaks"][0]["exact"]["count"] == 100


def test_leaks_between_three_splits(tmp_path, blobs):
    for name, texts in {
        "train": ["蓝牙耳机坏了", "怎么开电子发票给公司报销", "快递没到"],
        "valid": ["快递没到", "怎么退款"],
        "test": ["怎么开电子发票给公司报销用", "怎么退款", "快递没到", "转人工"],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{t}", "label": "{i % 2}"}}\n' for i, t in enumerate(texts)))
    got = import_splits({s: tmp_path / f"{s}.jsonl" for s in ("test", "train", "valid")}, text=None, label=None, task=None, blobs=blobs, progress=Quiet())
    found = {(x["split"], x["against"]): (x["exact"]["lines"], x["near"]["lines"]) for x in got.card_document["leaks"]}
    assert found == {("valid", "train"): ([1], []), ("test", "train"): ([3], [1]), ("test", "valid"): ([2, 3], [])}


def test_warnings_are_sentences_in_both_languages(tmp_path, blobs):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"同一条文本,标签{i}\n" for i in range(150)) + ",空\n坏�,x\n")
    (tmp_path / "b.csv").write_text("text,label\n同一条文本,没见过\n别的,没见过\n")
    got = import_splits({"train": tmp_path / "a.csv", "test": tmp_path / "b.csv"}, text=None, label=None, task=None, blobs=blobs, progress=Quiet(), long_at=4)
    told = dict(got.warnings)
    assert {
        "card.duplicates",
        "card.conflicts",
        "card.quarantined",
        "card.leak",
        "card.over-long",
        "card.replacement-characters",
        "card.rare-labels",
        "card.labels-like-texts",
        "card.unseen-labels",
    } <= set(told)
    for key, fields in got.warnings:
        for lang in LANGS:
            assert key in catalogue()
            assert "{" not in say(key, lang, **fields)


def test_every_quarantine_reason_has_words():
    assert {
        "empty-text",
        "bad-conversation",
        "missing-label",
        "missing-id",
        "nul-character",
        "lone-surrogate",
        "too-many-fields",
        "several-labels",
        "bad-span",
        "span-outside",
        "span-overlap",
        "span-text-differs",
    } == {k.removeprefix("reader.") for k in catalogue() if k.startswith("reader.")}


def test_one_label_only_is_told_not_refused(tmp_path, blobs):
    (tmp_path / "a.csv").write_text("text,label\n好,1\n坏,1\n")
    assert "card.one-label" in dict(import_file(tmp_path / "a.csv", blobs=blobs, progress=Quiet()).warnings)


@given(st.lists(st.text(max_size=12), max_size=8))
def test_columns_of_code_points_agree_with_the_words_of_core(texts):
    points, lengths = points_of(texts), lengths_of(texts)
    assert [SCRIPTS[i] for i in scripts_of_rows(texts, points, lengths)] == [script_of(t) for t in texts]
    assert "".join(map(chr, folded(points).tolist())) == fold("".join(texts))


@pytest.mark.parametrize(
    "code", [0x1F600, 0x20000, 0x2A6DF, 0x2FFFF, 0x30000, 0x323AF, 0x323B0, 0x3400, 0x9FFF, 0xA000, 0xAC00, 0xD7A3, 0xD7A4, 0xF900, 0xFAFF, 0xFB00, 0x10FFFF, 0x40, 0x41]
)
def test_borders_of_scripts(code):
    texts = [chr(code)]
    assert SCRIPTS[scripts_of_rows(texts, points_of(texts), lengths_of(texts))[0]] == script_of(chr(code))
