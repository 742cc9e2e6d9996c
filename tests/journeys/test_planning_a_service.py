"""A plan through every face of a running studio: what gateways counted is what it reckons with; the service that serves is left alone."""

import json
import time
import xml.etree.ElementTree as ET

import pytest

import wenfang as wf
from worlds import Tree, separable, wenfang, write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
QUICK = ("--measure-s", "1", "--followed", "500")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    home = folder / "home"
    write_csv(folder / "tickets.csv", separable(200))
    wenfang("run", folder / "tickets.csv", "--budget", "10s", "--family", "linear", "--json", home=home, check=0)
    wenfang("service", "deploy", "tickets", "--model-version", "tickets", "--replicas", "1", home=home, check=0)
    tree = Tree(home).start()
    yield tree
    tree.stop()


def test_over_http_it_is_a_job_and_before_anything_came_the_model_says_what_it_learned_from(tree):
    status, begun, _ = tree.call("POST", "/api/v1/services/tickets/plan", {"rps": 5, "p99": 2000, "measure_s": 1, "followed": 500})
    assert status == 202, begun
    until = time.monotonic() + 180
    while (job := tree.call("GET", f"/api/v1/jobs/{begun['id']}")[1]["job"])["state"] not in {"done", "failed"}:
        assert time.monotonic() < until
        time.sleep(0.3)
    assert job["state"] == "done", job
    assert [key for key, _ in job["answer"]["says"]].count("plan.texts-lineage") == 1
    status, error, _ = tree.call("POST", "/api/v1/services/tickets/plan", {"rps": -5, "p99": "50ms"})
    assert status == 422 and error["code"]


def test_on_the_command_line_it_reckons_with_what_came(tree, tmp_path):
    for _ in range(6):
        texts = ["一二三四五六七八"] * 50 + ["长" * 30] * 50
        assert tree.call("POST", "/predict/tickets", {"inputs": texts}, headers={"Cache-Control": "no-cache"})[0] == 200
    words = ["service", "plan", "tickets", "--rps", "5", "--p99", "2s", *QUICK, "--plot", tmp_path / "plan.svg"]
    told = wenfang(*words, "--json", home=tree.home, check=0)
    answer = json.loads(told.stdout)
    assert answer["met"] and [key for key, _ in answer["says"]].count("plan.texts-recent") == 1
    assert answer["measured"]["traffic"]["texts_each"] == 100
    assert set(answer["measured"]["times"]["lengths"]) <= {9, 10, 11, 31, 32, 33}
    ET.fromstring((tmp_path / "plan.svg").read_text(encoding="utf-8"))
    shown = wenfang(*words, home=tree.home, check=0).stdout
    assert "requests/s within p99 2000 ms" in shown and "counted lately" in shown and "rate_per_s" in shown
    assert wenfang("service", "plan", "tickets", "--rps", "5", "--p99", "soon", home=tree.home).returncode == 1
    assert tree.call("POST", "/predict/tickets", {"inputs": ["还在"]})[0] == 200


def test_from_python(tree):
    with wf.connect(f"http://127.0.0.1:{tree.port}", api_key=Tree.KEY) as studio:
        answer = studio.service.plan(service="tickets", rps=5, p99="2s", measure_s=1, followed=500)
        assert answer.replicas >= 1 and answer.cores >= 1
