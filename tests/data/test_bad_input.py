"""Every kind of bad file gets a clear error with its place, or its bad rows are set aside and counted."""

import json
import os
import zipfile

import openpyxl
import polars as pl
import pytest

from wenfang.core.errors import Invalid
from wenfang.core.ports import Quiet
from wenfang.core.words import LANGS
from wenfang.data.importing import import_file, import_splits
from wenfang.data.version import load_examples


@pytest.fixture
def imported(tmp_path, blobs):
    def go(name, content, **wishes):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_file(path, blobs=blobs, progress=Quiet(), **wishes)

    return go


@pytest.fixture
def refused(imported):
    """Import must fail with this code; returns the fields."""

    def go(code, name, content, **wishes):
        with pytest.raises(Invalid) as e:
            imported(name, content, **wishes)
        assert e.value.code == code, e.value
        for lang in LANGS:
            assert e.value.detail(lang)
            assert e.value.hint(lang)
        return e.value.fields

    return go


def reasons(got):
    return got.card_document["splits"]["all"]["quarantined"]["reasons"]


def test_wrong_column(refused):
    fields = refused("dataset.column-missing", "a.csv", "text,label\n好,1\n坏,0\n", text="texts", label="label")
    assert fields == {"file": "a.csv", "column": "texts", "found": ["text", "label"], "near": "text"}


def test_column_that_cannot_be_guessed(refused):
    fields = refused("dataset.column-unclear", "a.jsonl", '{"text": "好"}\n{"text": "坏"}\n')
    assert fields["role"] == "label"


def test_empty_file(refused):
    refused("dataset.file-empty", "a.csv", b"")
    refused("dataset.file-empty", "a.csv", b"\xef\xbb\xbf")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.conll", "a.json", "a.tsv"])
def test_only_blank_lines(refused, name):
    refused("dataset.file-blank", name, b"\n\r\n  \n\n")


@pytest.mark.parametrize("name, content", [("a.csv", "text,label\n"), ("a.csv", "text,label"), ("a.tsv", "text\tlabel\r\n\r\n"), ("a.csv", "\n\ntext,label\n\n\n")])
def test_header_only(refused, name, content):
    refused("dataset.no-rows", name, content)


def test_missing_file_and_folder(tmp_path, blobs):
    for path, code in ((tmp_path / "no.csv", "dataset.file-missing"), (tmp_path, "dataset.not-a-file")):
        with pytest.raises(Invalid) as e:
            import_file(path, blobs=blobs, progress=Quiet())
        assert e.value.code == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path, blobs):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,b\n")
    path.chmod(0)
    with pytest.raises(Invalid) as e:
        import_file(path, blobs=blobs, progress=Quiet())
    assert e.value.code == "dataset.file-unreadable"


def test_a_text_of_100k_characters_is_kept_and_counted(imported, blobs):
    long = "很长的文本，" * 20_000
    for name, content in (("a.csv", f"text,label\n{long},1\n短,0\n"), ("a.jsonl", json.dumps({"text": long, "label": 1}) + "\n" + json.dumps({"text": "短", "label": 0}) + "\n")):
        got = imported(name, content)
        assert load_examples(got.manifest, blobs).texts == [long, "短"]
        assert got.card_document["splits"]["all"]["over_long"]["rows"] == 1
        assert got.card_document["splits"]["all"]["length"]["max"] == 120_000
        assert "card.over-long" in dict(got.warnings)


def test_lone_surrogates_are_set_aside_with_their_line(imported, blobs):
    got = imported("a.jsonl", '{"text":"好","label":"a"}\n{"text":"坏\\ud800","label":"b"}\n{"text":"笑\\ud83d\\ude00","label":"b"}\n{"text":"x","label":"\\udfff"}\n')
    assert load_examples(got.manifest, blobs).texts == ["好", "笑😀"]
    assert reasons(got) == {"lone-surrogate": 2}
    assert got.card_document["splits"]["all"]["quarantined"]["first_lines"] == [2, 4]


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", "text,label\n好,1\n坏\0事,0\n行,1\n"),
        ("a.txt", "好\t1\n坏\0事\t0\n行\t1\n"),
        ("a.jsonl", '{"text":"好","label":"1"}\n{"text":"坏\\u0000事","label":"0"}\n{"text":"行","label":"1"}\n'),
    ],
)
def test_nul_characters_are_set_aside(imported, blobs, name, content):
    got = imported(name, content)
    assert load_examples(got.manifest, blobs).texts == ["好", "行"]
    assert reasons(got) == {"nul-character": 1}


def test_binary_file(refused):
    refused("dataset.binary-file", "a.csv", bytes(range(256)) * 40)
    refused("dataset.binary-file", "a.txt", b"\x89PNG\r\n\x1a\n" + bytes(200))


def test_duplicate_ids_name_both_lines(imported, refused):
    content = "id,text,label\n1,好,a\n2,坏,b\n3,行,a\n2,差,b\n"
    fields = refused("dataset.duplicate-id", "a.csv", content, id="id")
    assert (fields["line"], fields["again_line"], fields["column"]) == (3, 5, "id")
    assert imported("a.csv", content).rows == {"all": 4}  # only a declared id must be unique


def test_labels_with_spaces_and_emoji(imported):
    got = imported("a.csv", 'text,label\n好,"good news 😀"\n坏, 差评 \n行,👩‍👩‍👧 家\n')
    assert got.labels == sorted(["good news 😀", "差评", "👩‍👩‍👧 家"])


def test_ten_thousand_classes(imported, blobs):
    got = imported("a.csv", "text,label\n" + "".join(f"样例 {i},类别 {i % 10_000}\n" for i in range(20_000)))
    assert len(got.labels) == 10_000
    assert load_examples(got.manifest, blobs).labels[12_345] == "类别 2345"


@pytest.mark.parametrize(
    "line, content", [(3, "北 B-LOC\n京 I-LOC\n坏行\n\n上 B-LOC\n"), (4, "北\tB-LOC\n京\tI-LOC\n\n海\tQ-LOC\n"), (5, "北 B-LOC\r\n京 I-LOC\r\n\r\n上 B-LOC\r\n海 一 二\r\n")]
)
def test_malformed_conll_is_told_with_its_line(refused, line, content):
    assert refused("dataset.conll-line", "a.conll", content)["line"] == line


def test_truncated_parquet(tmp_path, refused):
    pl.DataFrame({"text": ["好", "坏"] * 500, "label": ["a", "b"] * 500}).write_parquet(tmp_path / "whole.parquet")
    data = (tmp_path / "whole.parquet").read_bytes()
    for cut in (8, len(data) // 2, len(data) - 3):
        assert refused("dataset.damaged-file", "a.parquet", data[:cut])["format"] == "Parquet"
    middle = len(data) // 4
    flipped = data[:60] + bytes(b ^ 0xFF for b in data[60:middle]) + data[middle:]
    refused("dataset.damaged-file", "a.parquet", flipped)


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx"])
def test_binary_suffix_over_a_text_file(refused, name):
    refused("dataset.damaged-file", name, "text,label\n好,1\n")


def test_xlsx_that_is_a_damaged_or_foreign_zip(tmp_path, refused):
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    book.active.append(["好", "1"])
    book.save(tmp_path / "whole.xlsx")
    data = (tmp_path / "whole.xlsx").read_bytes()
    refused("dataset.damaged-file", "a.xlsx", data[: len(data) // 2])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as z:
        z.writestr("readme.txt", "hello")
    refused("dataset.damaged-file", "a.xlsx", (tmp_path / "other.zip").read_bytes())


@pytest.mark.parametrize(
    "content, line",
    [('text,label\n好,1\n"坏,0\n行,1\n', 3), ('text,label\n好,1\n"坏,0\n行,1\n"差",0\n', 3), ("text,label\n" + "好,1\n" * 300_000 + '"坏,0\n' + "行,1\n" * 5, 300_002)],
)
def test_unbalanced_quotes_name_the_line_they_begin_on(refused, content, line):
    assert refused("dataset.quotes-unbalanced", "a.csv", content)["line"] == line


def test_rows_with_too_many_or_too_few_fields(imported, blobs):
    got = imported("a.csv", 'text,label\n好,1\n坏,0,多\n少\n"有,逗号",1\n')
    assert load_examples(got.manifest, blobs).texts == ["好", "有,逗号"]
    assert reasons(got) == {"too-many-fields": 1, "missing-label": 1}
    assert load_examples(got.manifest, blobs).ids == ["all:2", "all:5"]


def test_quotes_inside_unquoted_fields_are_letters(imported, blobs):
    got = imported("a.csv", 'text,label\n屏幕 15" 的,1\n他说"好"吧,0\n"引号 ""内"" 的",1\n')
    assert load_examples(got.manifest, blobs).texts == ['屏幕 15" 的', '他说"好"吧', '引号 "内" 的']


def test_half_written_json_lines(refused):
    assert refused("dataset.malformed", "a.jsonl", '{"text":"好","label":"a"}\n{"text":"坏","la')["line"] == 2


def test_half_written_json_array(refused):
    assert refused("dataset.malformed", "a.json", '[{"text":"好","label":"a"},\n{"text":"坏","label":"b"},\n{"text":')["line"] == 3
    refused("dataset.malformed", "a.json", '[{"text":"好","label":"a"},\n 17]')


def test_deep_json(refused):
    assert refused("dataset.malformed", "a.jsonl", '{"text":"好","label":"a"}\n{"text":' + "[" * 100_000 + "]" * 100_000 + "}\n")["line"] == 2


def test_no_usable_row(refused):
    fields = refused("dataset.no-usable-row", "a.csv", "text,label\n,1\n  ,0\n好,\n", text="text", label="label")
    assert fields["rows"] == 3
    assert fields["line"] == 2


def test_crlf_files(imported, blobs):
    for name, content in (
        ("a.csv", 'text,label\r\n好,1\r\n"两\r\n行",0\r\n\r\n行,1\r\n'),
        ("a.tsv", "text\tlabel\r\n好\t1\r\n两\t0\r\n\r\n行\t1\r\n"),
        ("a.txt", "好\t1\r\n两\t0\r\n\r\n行\t1\r\n"),
        ("a.jsonl", '{"text":"好","label":1}\r\n{"text":"两","label":0}\r\n\r\n{"text":"行","label":1}\r\n'),
    ):
        got = load_examples(imported(name, content).manifest, blobs)
        assert got.labels == ["1", "0", "1"]
        assert [t.replace("\r\n行", "") for t in got.texts] == ["好", "两", "行"]
    tagged = load_examples(imported("a.conll", "北 B-LOC\r\n京 I-LOC\r\n\r\n人 O\r\n").manifest, blobs)
    assert tagged.texts == ["北京", "人"]


def test_tagging_asked_of_a_file_without_spans(refused):
    refused("dataset.no-spans", "a.csv", "text,label\n好,1\n", task="tagging")


def test_two_columns_of_one_name(refused):
    assert refused("dataset.column-twice", "a.csv", "text,label,label\n好,1,2\n", text="text")["columns"] == ["label"]


def test_wrong_suffix_is_told(imported):
    got = imported("a.csv", '{"text":"好","label":"a"}\n{"text":"坏","label":"b"}\n')
    assert got.guessed["format"] == "jsonl"
    assert ("card.suffix-differs", {"file": "a.csv", "format": "jsonl"}) in got.warnings


def test_no_files(blobs):
    with pytest.raises(Invalid) as e:
        import_splits({}, blobs=blobs, progress=Quiet())
    assert e.value.code == "dataset.no-files"


def test_quarantine_lists_the_first_thousand_and_counts_all(imported, blobs):
    got = imported("a.csv", "text,label\n好,1\n" + ",1\n" * 3000)
    told = got.card_document["splits"]["all"]["quarantined"]
    assert told["rows"] == 3000
    listed = json.loads(blobs.get(told["blob"]))
    assert len(listed["rows"]) == 1000
    assert listed["rows"][0] == {"line": 3, "reason": "empty-text"}
