"""From a CSV to a served model, as a person does it, with real processes and real HTTP."""

import base64
import json
import os
import re
import signal
import time

import pytest

from wenfang.core.home import Home, HomeLock
from worlds import Tree, alive, descendants, separable, wenfang, write_csv

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A home in which ``wenfang run`` has chosen a model and put it behind the service ``tickets``."""
    folder = tmp_path_factory.mktemp("trained")
    home = folder / "home"
    write_csv(folder / "tickets.csv", separable(400))
    done = wenfang("run", folder / "tickets.csv", "--budget", "12s", "--family", "majority", "--family", "linear", "--json", home=home, check=0)
    verdict = json.loads(done.stdout)
    wenfang("service", "deploy", "tickets", "--model-version", verdict["model_version"], "--replicas", "1", home=home, check=0)
    return home, verdict


@pytest.fixture(scope="module")
def tree(trained):
    with Tree(trained[0]) as tree:
        yield tree


def predict(tree, text="快递到哪里了", **more):
    return tree.call("POST", "/predict/tickets", {"inputs": [text]}, **more)


def test_run_json_is_the_documented_object(trained):
    _, verdict = trained
    assert {"dataset_version", "model_version", "family", "metric", "valid", "test", "latency_ms", "size_bytes", "service", "report", "candidates"} <= verdict.keys()
    assert verdict["family"] == "linear" and verdict["metric"] == "accuracy"
    assert verdict["test"]["low"] <= verdict["test"]["score"] <= verdict["test"]["high"] and verdict["test"]["score"] > 0.95
    assert 0 < verdict["latency_ms"]["p50"] <= verdict["latency_ms"]["p99"] and verdict["size_bytes"] > 0
    assert {c["family"] for c in verdict["candidates"]} == {"majority", "linear"}
    with open(verdict["report"], encoding="utf-8") as f:
        page = f.read()
    assert "<svg" in page and not re.search(r"(src|href)=[\"']?https?:", page)


def test_predictions_are_equal_in_place_over_http_and_from_the_command_line(tree):
    status, body, _ = predict(tree)
    assert status == 200 and body["outputs"][0]["label"] == "物流" and body["model"].startswith("tickets:")
    status, v2, _ = tree.call("POST", "/v2/models/tickets/infer", {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["快递到哪里了"]}]})
    assert status == 200 and v2["outputs"][0]["data"] == ["物流"]
    status, control, _ = tree.call("POST", "/api/v1/services/tickets/predict", {"inputs": ["快递到哪里了"]})
    assert status == 200 and control["outputs"] == body["outputs"]
    local = json.loads(wenfang("predict", "tickets", "快递到哪里了", "--json", home=tree.home, check=0).stdout)
    far = json.loads(wenfang("predict", "tickets", "快递到哪里了", "--json", "--server", f"http://127.0.0.1:{tree.port}", "--api-key", Tree.KEY, check=0).stdout)
    assert local == far == control


def test_a_model_is_chosen_over_http_from_an_uploaded_file(tree, tmp_path):
    path = write_csv(tmp_path / "more.csv", separable(200, seed=3))
    server = ["--server", f"http://127.0.0.1:{tree.port}", "--api-key", Tree.KEY]
    done = wenfang("run", path, "--budget", "8s", "--family", "majority", "--family", "linear", "--serve", "--json", *server, check=0)
    verdict = json.loads(done.stdout)
    assert verdict["service"] == "more"
    until = time.monotonic() + 20
    while (status := tree.call("POST", "/predict/more", {"inputs": ["怎么开发票"]})[0]) != 200 and time.monotonic() < until:
        time.sleep(0.1)
    assert status == 200
    assert json.loads(wenfang("job", "list", "--json", *server, check=0).stdout)["jobs"][0]["state"] == "done"


def test_every_route_but_the_probes_needs_a_key(tree):
    for method, path in (("GET", "/api/v1/models"), ("POST", "/predict/tickets"), ("GET", "/v2/models/tickets"), ("GET", "/api/v1/audit")):
        status, _, headers = tree.call(method, path, {} if method == "POST" else None, key=None)
        assert status == 401, (method, path, status)
        assert "www-authenticate" in headers
    assert tree.call("GET", "/docs", key=None)[0] == tree.call("GET", "/openapi.json", key=None)[0] == 401
    by_browser = base64.b64encode(f"anyone:{Tree.KEY}".encode()).decode()
    assert tree.call("GET", "/docs", key=None, headers={"Authorization": f"Basic {by_browser}"})[0] == 200
    for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
        assert tree.call("GET", path, key=None)[0] == 200


def test_a_revoked_key_is_refused_at_once_by_the_gateway(tree):
    _, made, _ = tree.call("POST", "/api/v1/keys", {"name": "short", "role": "caller"})
    assert predict(tree, key=made["key"])[0] == 200
    assert tree.call("GET", "/api/v1/models", key=made["key"])[0] == 403
    tree.call("POST", f"/api/v1/keys/{made['id']}/revoke", {})
    assert predict(tree, key=made["key"])[0] == 401


def test_openapi_names_every_operation_and_the_page_needs_nothing_from_outside(tree):
    from wenfang.studio import operations

    _, document, _ = tree.call("GET", "/openapi.json")
    named = {item["operationId"] for methods in document["paths"].values() for item in methods.values()}
    assert set(operations()) <= named and document["openapi"].startswith("3.1")
    page = tree.call("GET", "/docs")[1]
    assert "selection" in page and "http://" not in page and "https://" not in page


def test_problems_are_documents_in_the_callers_language(tree):
    status, zh, headers = tree.call("GET", "/api/v1/models/mv_nope", headers={"Accept-Language": "zh-CN"})
    assert status == 404 and headers["content-type"] == "application/problem+json" and zh["code"] == "record.not-found" and "没有" in zh["detail"]
    _, en, _ = tree.call("GET", "/api/v1/models/mv_nope")
    assert "There is no" in en["detail"] and en["request_id"]


def test_a_second_up_on_the_same_home_is_refused(tree):
    done = wenfang("up", "--home", tree.home, "--port", "0")
    assert done.returncode == 1 and "home.in-use" in done.stderr


def test_killed_processes_come_back_and_nothing_acknowledged_is_lost(trained):
    home, _ = trained
    home_copy = home.with_name("killed")
    import shutil

    shutil.copytree(home, home_copy, ignore=shutil.ignore_patterns("run"))
    tree = Tree(home_copy).start()
    try:
        assert predict(tree)[0] == 200
        made = tree.call("POST", "/api/v1/keys", {"name": "kept", "role": "caller"})[1]
        pids = {p["pid"]: name for name, p in _processes(home_copy).items() if p["state"] == "running"}
        for pid, name in pids.items():
            os.kill(pid, signal.SIGKILL)
            _until(lambda: predict(tree, key=made["key"])[0] == 200, f"prediction after kill of {name}")
            _until(lambda: tree.call("GET", "/api/v1/keys")[0] == 200, f"control after kill of {name}")
        children = descendants(tree.process.pid)
        tree.process.send_signal(signal.SIGKILL)
        tree.process.wait()
        _until(lambda: not any(alive(p) for p in children), "orphans")
        tree.process.stdout.close()
        tree.start()
        _until(lambda: predict(tree, key=made["key"])[0] == 200, "prediction after the whole tree was killed")
        assert tree.call("GET", "/api/v1/audit/verify")[1]["ok"]
    finally:
        assert tree.stop() == 0
    HomeLock(Home(home_copy)).release()


def _processes(home):
    from wenfang.runtimes.local import LocalRuntime

    return LocalRuntime(Home(home)).processes()


def _until(is_so, what, timeout=30):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            if is_so():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(what)


@pytest.mark.parametrize(("noun", "name"), [("service", "tickets"), ("project", "default")])
def test_a_limit_holds_as_soon_as_it_is_set(tree, noun, name):
    wenfang(noun, "limit", name, "--requests-per-s", "1", home=tree.home, check=0)
    statuses = [predict(tree)[0] for _ in range(6)]
    assert statuses[0] == 200 and 429 in statuses
    wenfang(noun, "limit", name, home=tree.home, check=0)
    assert [predict(tree)[0] for _ in range(10)] == [200] * 10
