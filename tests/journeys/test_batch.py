"""A whole file answered by a service: in place and by a job, killed and continued, beside online traffic."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import wenfang as wf
from wenfang.core.errors import WenfangError
from wenfang.core.home import Home
from wenfang.runtimes.local import LocalRuntime
from worlds import Tree, separable, wenfang, write_csv

pytestmark = pytest.mark.timeout(240)
ROWS = 80_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(home with the service ``tickets``, a file of many texts, their answers)."""
    folder = tmp_path_factory.mktemp("batch")
    home = folder / "home"
    write_csv(folder / "tickets.csv", separable(300))
    wenfang("run", folder / "tickets.csv", "--budget", "12s", "--family", "majority", "--family", "linear", "--json", home=home, check=0)
    wenfang("service", "deploy", "tickets", "--model-version", "tickets", "--replicas", "1", home=home, check=0)
    texts = [text for text, _ in separable(300, seed=5)]
    rows = [(f"r{i}", texts[i % 300]) for i in range(ROWS)]
    rows[17] = ("r17", "")
    asked = write_csv(folder / "asked.csv", rows, header=("编号", "内容"))
    done = json.loads(wenfang("predict", "tickets", "--input", asked, "--id", "编号", "--output", folder / "here.jsonl", "--json", home=home, check=0).stdout)
    assert (done["rows"], done["failed"], done["errors"], done["guessed"]["text"]) == (ROWS, 1, {"reader.empty-text": 1}, "内容")
    return home, asked, folder / "here.jsonl"


def state_of(output):
    try:
        return json.loads(output.with_name(f"{output.name}.part.json").read_bytes())["rows"]
    except FileNotFoundError:
        return 0


def begun(output, process):
    until = time.monotonic() + 60
    while not state_of(output):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def started(*words, home):
    env = {**os.environ, "WENFANG_HOME": str(home), "WENFANG_LANG": "en"}
    return subprocess.Popen([sys.executable, "-m", "wenfang.doors.cli", *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_rows_say_what_single_requests_say(trained):
    home, asked, answers = trained
    with open(asked, encoding="utf-8", newline="") as f:
        texts = [r["内容"] for r in csv.DictReader(f)][:300]
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [(x["row"], x["id"]) for x in lines] == [(i + 1, f"r{i}") for i in range(ROWS)]
    assert lines[17] == {"row": 18, "id": "r17", "error": "reader.empty-text"}
    single = json.loads(wenfang("predict", "tickets", "--json", *texts[:17], home=home, check=0).stdout)["outputs"]
    assert [{"label": x["label"], "score": x["score"]} for x in lines[:17]] == single


def test_killed_in_place_it_continues_and_says_the_same(trained, tmp_path):
    home, asked, answers = trained
    words = ["predict", "tickets", "--input", asked, "--id", "编号", "--output", tmp_path / "a.jsonl", "--json"]
    process = started(*words, home=home)
    begun(tmp_path / "a.jsonl", process)
    process.kill()
    process.communicate()
    done = json.loads(wenfang(*words, home=home, check=0).stdout)
    assert 0 < done["resumed"] < ROWS == done["rows"] and done["failed"] == 1
    assert (tmp_path / "a.jsonl").read_bytes() == answers.read_bytes() and [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_another_request_begins_anew_and_outputs_are_kept(trained, tmp_path):
    home, asked, _ = trained
    output = tmp_path / "a.csv"
    words = ["predict", "tickets", "--input", asked, "--output", output]
    process = started(*words, home=home)
    begun(output, process)
    process.kill()
    process.communicate()
    small = write_csv(tmp_path / "small.csv", [(t,) for t, _ in separable(20, seed=9)], header=("text",))
    said = wenfang("predict", "tickets", "--input", small, "--output", output, home=home, check=0).stderr
    assert "beginning anew" in said
    with open(output, encoding="utf-8", newline="") as f:
        assert [r["row"] for r in csv.DictReader(f)] == [str(i) for i in range(1, 21)]
    before = output.read_bytes()
    assert "batch.output-exists" in wenfang("predict", "tickets", "--input", small, "--output", output, home=home, check=1).stderr
    wenfang("predict", "tickets", "--input", "tickets:1", "--split", "all", "--top-k", "2", "--output", output, "--overwrite", home=home, check=0)
    assert output.read_bytes() != before and len(output.read_text().splitlines()) == 301


def test_bad_requests_are_told(trained, tmp_path):
    home, asked, _ = trained
    out, file = {"output": str(tmp_path / "x.jsonl")}, {"file": str(asked)}
    empty = str(write_csv(tmp_path / "empty.csv", [], header=("text",)))
    with wf.open(home) as studio:
        for fields, code in (
            ({**file, **out, "text": "内溶"}, "dataset.column-missing"),
            ({**file, **out, "text_b": "编号"}, "gateway.no-pairs"),
            ({**file, **out, "split": "train"}, "batch.split-of-dataset"),
            ({**out, "dataset": "tickets", "id": "id"}, "batch.columns-of-files"),
            ({**out}, "batch.one-input"),
            ({**out, "file": empty}, "dataset.no-rows"),
            ({**file, "output": str(tmp_path / "x.xlsx")}, "batch.output-format"),
            ({**file, "output": str(tmp_path / "no" / "x.csv")}, "batch.no-folder"),
            ({**file, "output": str(asked)}, "batch.same-file"),
        ):
            with pytest.raises(WenfangError) as e:
                studio.service.batch(service="tickets", **fields)
            assert e.value.code == code
    for words, said, status in (
        (["--input", tmp_path / "none.csv", "--output", out["output"]], "data.no-file", 1),
        (["--input", "ticket", "--output", out["output"]], "record.not-found", 1),
        (["--input", asked], "--output", 2),
        (["一条文本", "--id", "x"], "--input", 2),
        (["--input", asked, "--output", out["output"], "--server", "http://127.0.0.1:1"], "batch.output-is-local", 1),
    ):
        assert said in wenfang("predict", "tickets", *words, home=home, check=status).stderr
    assert [p.name for p in tmp_path.iterdir()] == ["empty.csv"]


def test_a_job_is_killed_continues_and_online_requests_are_answered(trained, tmp_path):
    home, asked, answers = trained
    with Tree(home) as tree:
        statuses, stop = [], threading.Event()

        def online():
            while not stop.is_set():
                statuses.append(tree.call("POST", "/predict/tickets", {"inputs": ["快递到哪里了"]})[0])
                time.sleep(0.03)

        caller = threading.Thread(target=online)
        caller.start()
        process = started("predict", "tickets", "--input", asked, "--id", "编号", "--output", tmp_path / "a.jsonl", "--json", home=home)
        begun(tmp_path / "a.jsonl", process)
        job = tree.call("GET", "/api/v1/jobs")[1]["jobs"][0]
        assert (job["operation"], job["state"]) == ("service.batch", "running")
        os.kill(LocalRuntime(Home(home)).processes()[f"job-{job['id']}"]["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=180)
        stop.set()
        caller.join()
        assert process.returncode == 0, err
        done = json.loads(out)
        assert 0 < done["resumed"] < ROWS == done["rows"]
        assert (tmp_path / "a.jsonl").read_bytes() == answers.read_bytes()
        assert set(statuses) == {200} and len(statuses) > 20
        body = {"file": str(asked), "output": str(tmp_path / "b.jsonl")}
        status, job, _ = tree.call("POST", "/api/v1/services/tickets/batch", body)
        assert status == 202
        until = time.monotonic() + 60
        while (shown := tree.call("GET", f"/api/v1/jobs/{job['id']}")[1]["job"])["state"] not in {"done", "failed"} and time.monotonic() < until:
            time.sleep(0.1)
        assert shown["error"]["code"] == "batch.output-is-local" and not (tmp_path / "b.jsonl").exists()
