"""What every reader promises, whoever wrote it: found by its registry, tried on a file of its own format."""

import json

import numpy as np
import openpyxl
import polars as pl
import pytest

from wenfang.core.errors import Invalid
from wenfang.data.columns import Fields
from wenfang.data.formats import READERS, open_reader

TEXTS = ["快递三天没动了", "怎么开电子发票 🙂", 'Ｈｅｌｌｏ, "world"', "转人工", "退款没到账�"]
LABELS = ["物流", "发票", "其他", "人工 客服", "退款"]


def write(name, path, rows):
    """A file of the format ``name`` with ``rows`` of (text, label)."""
    if name == "csv":
        path.write_text("text,label\n" + "".join('"{}",{}\n'.format(t.replace('"', '""'), y) for t, y in rows))
    elif name in {"tsv", "plain"}:
        path.write_text(("text\tlabel\n" if name == "tsv" else "") + "".join(f"{t}\t{y}\n" for t, y in rows))
    elif name == "jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    elif name == "json":
        path.write_text(json.dumps([{"text": t, "label": y} for t, y in rows], indent=2))
    elif name == "parquet":
        pl.DataFrame({"text": [t for t, _ in rows], "label": [y for _, y in rows]}).write_parquet(path)
    elif name == "xlsx":
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        for row in (("text", "label"), *rows):
            sheet.append(row)
        book.save(path)
    elif name == "conll":
        path.write_text("".join("".join(f"{c}\tO\n" for c in t) + "\n" for t, _ in rows))
    else:
        pytest.skip(f"the contract knows no way to write {name}")


@pytest.fixture(params=READERS.names())
def kind(request):
    return READERS.get(request.param)


def opened(kind, tmp_path, rows):
    path = tmp_path / f"file{kind.suffixes[0]}"
    write(kind.name, path, rows)
    reader, differs = open_reader(path)
    assert type(reader) is kind
    assert not differs
    return reader


def fields_of(look):
    if look.spans:
        return Fields(look.columns[0], look.spans, task="tagging")
    return Fields(look.columns[0], look.columns[1])


def test_it_says_what_it_is(kind):
    assert kind.suffixes
    assert all(s.startswith(".") and s == s.lower() for s in kind.suffixes)
    assert kind.__doc__


def test_it_knows_its_own_files_and_gives_back_their_rows(kind, tmp_path):
    rows = list(zip(TEXTS, LABELS, strict=True))
    reader = opened(kind, tmp_path, rows)
    look = reader.look()
    batches = list(reader.read(fields_of(look)))
    assert [t for b in batches for t in b.frame["text"].to_list()] == TEXTS
    if not look.spans:
        assert [y for b in batches for y in b.frame["label"].to_list()] == LABELS
    assert set(look.columns) >= {look.columns[0]}


def test_lines_are_int64_one_per_row_and_ascend(kind, tmp_path):
    reader = opened(kind, tmp_path, list(zip(TEXTS, LABELS, strict=True)) * 300)
    look = reader.look()
    lines = [b.lines for b in reader.read(fields_of(look)) if len(b.lines)]
    assert all(part.dtype == np.int64 for part in lines)
    whole = np.concatenate(lines)
    assert len(whole) == 1500
    assert whole[0] in {1, 2}
    assert (np.diff(whole) > 0).all()


def test_many_rows_come_in_several_batches(kind, tmp_path, monkeypatch):
    if kind.name == "xlsx":
        rows = 3000
        monkeypatch.setattr("wenfang.data.readers.xlsx.ROWS", 1000)
    else:
        rows = 110_000
        monkeypatch.setattr("wenfang.data.source.Source.line_blocks.__defaults__", (1 << 20,))
    reader = opened(kind, tmp_path, [(f"样例{i}", str(i % 7)) for i in range(rows)])
    batches = [b.frame.height for b in reader.read(fields_of(reader.look()))]
    assert sum(batches) == rows
    assert len(batches) > 1


def test_half_a_file_is_refused_or_gives_the_rows_before_it(kind, tmp_path):
    whole = tmp_path / f"whole{kind.suffixes[0]}"
    write(kind.name, whole, [(f"样例文本{i}", str(i % 7)) for i in range(2000)])
    path = tmp_path / f"half{kind.suffixes[0]}"
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    try:
        reader, _ = open_reader(path)
        rows = sum(b.frame.height for b in reader.read(fields_of(reader.look())))
    except Invalid as e:
        assert e.code in {"dataset.damaged-file", "dataset.malformed", "dataset.undecodable", "dataset.conll-line"}  # noqa: PT017 either outcome is right
    else:
        assert 900 < rows < 1100
