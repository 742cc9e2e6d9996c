"""Damaged bytes of every format end in rows or in one of our errors, never in anything else."""

import json
import random

import openpyxl
import polars as pl
import pytest
from folder_blobs import FolderBlobs

from wenfang.core.errors import WenfangError
from wenfang.core.ports import Quiet
from wenfang.data.importing import import_file
from wenfang.data.version import load_examples

ROWS = [(f'第{i}条,"引号" 🙂', f"类{i % 3}") for i in range(30)]
SPANS = [{"text": t, "label": {"x": {t[:2]: [[0, 1]]}}} for t, _ in ROWS]
SEEDS = 25


def originals(folder):
    pl.DataFrame({"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]}).write_parquet(folder / "a.parquet")
    book = openpyxl.Workbook()
    for row in (("text", "label"), *ROWS):
        book.active.append(row)
    book.save(folder / "a.xlsx")
    texts = {
        "a.csv": "text,label\n" + "".join('"{}",{}\n'.format(t.replace('"', '""'), y) for t, y in ROWS), "a.tsv": "text\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in ROWS),
        "a.txt": "".join(f"{t}\t{y}\n" for t, y in ROWS), "a.jsonl": "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS), "b.jsonl": "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in SPANS),
        "a.json": json.dumps([{"text": t, "label": y} for t, y in ROWS], indent=1), "a.conll": "".join("".join(f"{c} {'B-x' if j == 0 else 'O'}\n" for j, c in enumerate(t) if c != " ") + "\n" for t, _ in ROWS),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "g.csv").write_bytes(texts["a.csv"].replace("🙂", "").encode("gb18030"))
    (folder / "u.csv").write_bytes(texts["a.csv"].encode("utf-16"))


def damaged(data, draw):
    out = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(out))
        match draw.randrange(5):
            case 0:
                out[at] = draw.randrange(256)
            case 1:
                del out[at : at + draw.randint(1, 9)]
            case 2:
                out[at:at] = draw.choice([b'"', b"\n", b"\0", b"{", b"]", b",", b"\t", b"\\ud800", b"\xff", b"\r", b"\xe2\x80\xa8"])
            case 3:
                out = out[: max(1, at)]
            case _:
                out[at:at] = out[at : at + 30]
    return bytes(out)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "b.jsonl", "a.json", "a.conll", "a.parquet", "a.xlsx", "g.csv", "u.csv"])
def test_damage_is_told_or_survived(tmp_path, name):
    originals(tmp_path)
    data = (tmp_path / name).read_bytes()
    blobs = FolderBlobs(tmp_path / "blobs")
    assert import_file(tmp_path / name, blobs=blobs, progress=Quiet()).rows == {"all": 30}
    told = 0
    for seed in range(SEEDS):
        (tmp_path / name).write_bytes(damaged(data, random.Random(seed)))
        try:
            got = import_file(tmp_path / name, blobs=blobs, progress=Quiet())
        except WenfangError as e:
            told += e.detail("zh") != e.code
            continue
        examples = load_examples(got.manifest, blobs)
        assert len(examples) == got.rows["all"]
        for text, spans in zip(examples.texts, examples.spans, strict=False):
            assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert told < SEEDS or name == "a.xlsx"  # a zip checks itself
