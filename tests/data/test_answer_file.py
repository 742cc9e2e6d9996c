"""An answer file continues after a crash at any point, byte for byte; it never replaces or mixes what it should not."""

import csv
import json
import os
import subprocess
import sys

import pytest

from contracts.small_disk import small_disk
from wenfang.core.errors import Broken, Conflict, Invalid, NotFound
from wenfang.data.answers import AnswerFile, check_output

COLUMNS = ["row", "error", "label", "spans"]
WRITER = """
import sys
from pathlib import Path
from wenfang.data.answers import AnswerFile
answers = AnswerFile(Path(sys.argv[1]), "d", ["row", "error", "label", "spans"])
if not answers.finished:
    for n in range(answers.rows + 1, 41):
        answers.add({"row": n, "error": "x.y"} if n % 7 == 0 else {"row": n, "label": "退款,“\\n" + str(n), "spans": [{"start": 0}]})
        if n % 10 == 0:
            answers.step()
    answers.finish()
print(answers.rows, answers.failed.total())
"""


def write(path, **env):
    return subprocess.run([sys.executable, "-c", WRITER, str(path)], env={**os.environ, **env}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_killed_at_every_point_the_result_is_the_same(tmp_path, suffix):
    log = tmp_path / "points"
    assert write(tmp_path / f"whole.{suffix}", WENFANG_CRASH_LOG=str(log)).stdout == "40 5\n"
    expected = (tmp_path / f"whole.{suffix}").read_bytes()
    points = len(log.read_text().splitlines())
    assert points > 20
    for at in range(1, points + 1, 1 if suffix == "jsonl" else 4):
        path = tmp_path / f"{at}.{suffix}"
        assert write(path, WENFANG_CRASH_AT=str(at)).returncode == -9
        again = write(path)
        assert (again.stdout, path.read_bytes() == expected) == ("40 5\n", True), (at, again.stderr)


def test_rows_of_both_formats_say_the_same(tmp_path):
    for suffix in ("jsonl", "csv"):
        write(tmp_path / f"a.{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as f:
        table = list(csv.DictReader(f))
    assert [int(r["row"]) for r in table] == [r["row"] for r in lines] == list(range(1, 41))
    for row, line in zip(table, lines, strict=True):
        assert row["label"] == line.get("label", "") and row["error"] == line.get("error", "")
        assert (json.loads(row["spans"]) if row["spans"] else None) == line.get("spans")


def test_rows_of_another_request_are_thrown_away(tmp_path):
    path = tmp_path / "a.jsonl"
    first = AnswerFile(path, "one", COLUMNS)
    first.add({"row": 1, "label": "old"})
    first.step()
    first.close()
    second = AnswerFile(path, "two", COLUMNS)
    assert second.anew and second.rows == 0
    second.add({"row": 1, "label": "new"})
    second.finish()
    second.forget()
    assert path.read_text() == '{"row":1,"label":"new"}\n' and [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_what_is_there_stays_and_two_never_write_one_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("mine")
    with pytest.raises(Conflict, match="output-exists"):
        AnswerFile(path, "d", COLUMNS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    answers = AnswerFile(path, "d", COLUMNS, overwrite=True)
    with pytest.raises(Conflict, match="in-use"):
        AnswerFile(path, "e", COLUMNS, overwrite=True)
    answers.add({"row": 1})
    assert path.read_text() == "mine"
    answers.finish()
    assert path.read_text() == '{"row":1}\n'


def test_bad_outputs_are_refused(tmp_path):
    with pytest.raises(Invalid, match="output-format"):
        check_output(tmp_path / "a.xlsx")
    with pytest.raises(NotFound, match="no-folder"):
        check_output(tmp_path / "no" / "a.csv")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(Invalid, match="same-file"):
        check_output(tmp_path / "a.csv", inputs=tmp_path / "." / "a.csv")


def test_a_full_disk_is_told_and_what_was_durable_stays(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        path = disk / "a.jsonl"
        answers = AnswerFile(path, "d", COLUMNS)
        answers.add({"row": 1, "label": "a"})
        answers.step()
        with pytest.raises(Broken, match="write-failed"):
            for n in range(2, 4000):
                answers.add({"row": n, "label": "长" * 1000})
                answers.step()
        rows = answers.rows
        answers.close()
        assert 1 < rows < 4000 and not path.exists()
        (disk / "room").write_bytes(b"")
        again = AnswerFile(path, "d", COLUMNS)
        assert 0 < again.rows < rows
        again.close()
