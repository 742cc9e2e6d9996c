"""The command line: exit codes, errors, languages, speed of starting."""

import json
import subprocess
import sys
import time

import pytest

from wenfang.doors.cli.terminal import answer_cells, print_answer
from worlds import separable, wenfang, write_csv


def test_it_starts_in_under_a_second_without_heavy_libraries():
    code = "import sys; from wenfang.doors.cli.tree import create_cli; create_cli(); print([m for m in ('torch','ray','fastapi','starlette','transformers','sklearn','numba','polars','pyarrow','sqlalchemy','onnxruntime','scipy','uvicorn','httpx') if m in sys.modules])"
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - began)
        assert done.stdout.strip() == "[]"
    assert min(took) < 1.0


def test_help_is_in_both_languages():
    zh = wenfang("--help", env={"WENFANG_LANG": "zh"}, check=0).stdout
    en = wenfang("--lang", "en", "--help", check=0).stdout
    assert "文房" in zh and "数据集" in zh and "Datasets" in en


@pytest.mark.parametrize("words", [["nope"], ["datset", "list"], ["dataset", "lst"], ["run"], ["run", "x.csv", "--nope"], ["key", "create", "a", "--role", "king"]])
def test_wrong_usage_exits_with_2(words, tmp_path):
    assert wenfang(*words, home=tmp_path / "home").returncode == 2


def test_a_near_command_is_offered(tmp_path):
    assert "dataset" in wenfang("datset", "list", home=tmp_path).stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "missing.csv"], "data.no-file"),
        (["run", "."], "data.not-a-file"),
        (["run", "x.csv", "--label", "nope"], "dataset.column-missing"),
        (["service", "show", "nope"], "record.not-found"),
        (["predict", "nope", "text"], "record.not-found"),
        (["service", "deploy", "a", "--model-version", "nope"], "record.not-found"),
    ],
)
def test_failures_exit_with_1_and_say_their_code(words, code, tmp_path):
    write_csv(tmp_path / "x.csv", separable(30))
    done = subprocess.run([sys.executable, "-m", "wenfang.doors.cli", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"[{code}]" in done.stderr, done.stderr
    done = subprocess.run([sys.executable, "-m", "wenfang.doors.cli", *words, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stderr.strip().splitlines()[-1])["code"] == code and done.stdout == ""


def test_a_home_without_write_permission_is_told(tmp_path):
    file = tmp_path / "home"
    file.write_text("not a folder")
    done = wenfang("dataset", "list", home=file)
    assert done.returncode == 1 and "home.not-writable" in done.stderr


def test_a_taken_port_is_told(tmp_path):
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        done = wenfang("up", "--home", tmp_path / "home", "--port", s.getsockname()[1])
    assert done.returncode == 1 and "cli.port-in-use" in done.stderr


def test_input_can_be_a_json_file_or_standard_input(tmp_path):
    (tmp_path / "r.json").write_text('{"name": "finance"}')
    wenfang("project", "create", "--input", tmp_path / "r.json", home=tmp_path / "home", check=0)
    listed = json.loads(wenfang("project", "list", "--json", home=tmp_path / "home", check=0).stdout)
    assert {p["name"] for p in listed["projects"]} == {"default", "finance"}


def test_settings_are_explained_and_unknown_ones_refused(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "wenfang.toml").write_text("[serve]\nport = 9000\n")
    lines = {x["key"]: x for x in json.loads(wenfang("config", "--json", home=home, env={"WENFANG_SERVE__BATCH_MAX": "4"}, check=0).stdout)}
    assert lines["serve.port"]["value"] == 9000 and lines["serve.port"]["origin"] == "wenfang.toml"
    assert lines["serve.batch_max"]["value"] == 4 and lines["serve.batch_max"]["origin"] == "WENFANG_SERVE__BATCH_MAX"
    (home / "wenfang.toml").write_text("[serve]\nprot = 9000\n")
    done = wenfang("config", home=home)
    assert done.returncode == 1 and "serve.port" in done.stderr


def test_doctor_finds_a_private_key_that_others_can_read(tmp_path):
    home = tmp_path / "home"
    wenfang("project", "list", home=home, check=0)
    assert wenfang("doctor", home=home).returncode == 0
    secret = next(p for p in (home / "keys").iterdir() if p.suffix != ".pub")
    secret.chmod(0o644)
    done = wenfang("doctor", "--json", home=home)
    assert done.returncode == 1 and any(f["key"] == "doctor.keys-loose" for f in json.loads(done.stdout))


@pytest.mark.parametrize(
    ("output", "cells"),
    [
        ({"label": "好", "score": 0.5}, ["好", "0.5000"]),
        ({"label": "好", "score": 0.5, "scores": {"好": 0.5, "坏": 0.25}}, ["好 0.5000  坏 0.2500"]),
        ({"labels": ["a", "b"], "score": 0.5}, ["a, b", "0.5000"]),
        ({"labels": [], "score": 0.5}, ["—", "0.5000"]),
        ({"spans": [{"start": 0, "end": 2, "label": "LOC", "text": "北京"}], "score": 0.5}, ["LOC:北京[0,2)"]),
        ({"score": 0.25}, ["0.2500"]),
        ({"vector": [1.0, 0, 0, 0, 0]}, ["5 [1.0000, 0.0000, 0.0000, 0.0000, …]"]),
        ({"text": "一\n二", "finish": "stop", "tokens_out": 3}, ["一⏎二"]),
        ({"text": "", "finish": "none", "score": 0.1}, ["—", "0.1000"]),
    ],
)
def test_an_answer_of_every_task_has_a_line(output, cells):
    assert answer_cells(output) == cells


def test_nested_fields_of_an_answer_keep_their_lines(tmp_path):
    write_csv(tmp_path / "x.csv", separable(30))
    done = wenfang("dataset", "import", tmp_path / "x.csv", home=tmp_path / "home", check=0)
    assert "�" not in done.stdout
    (tmp_path / "grey.csv").write_text("text,label\na,x\na,y\nb,x\nc,y\n")
    done = wenfang("--lang", "en", "dataset", "import", tmp_path / "grey.csv", home=tmp_path / "home", check=0)
    assert "have more than one label" in done.stdout and "card.conflicts" not in done.stdout.partition("card ")[0]


def test_a_report_goes_out_as_it_is(capsys):
    from wenfang.studio import operations
    from wenfang.studio.selections import Report

    page = "<p>[b]" + "long words " * 40 + "</p>"
    print_answer(operations()["selection.report"], Report(html=page))
    assert capsys.readouterr().out == page + "\n"
