"""Graphs behind a real gateway: through every protocol, with a step's replica killed, with steps that take too long, while the table changes."""

import json
import os
import signal
import threading
import time

import pytest

from dataplane import KEY, DataPlane, free_port, until
from wenfang.serve.graphs import Fallback, Graph, Step

MODELS = {
    "mv_kind": ("kind:1", "classification", 1, {}),
    "mv_slow": ("slow:1", "classification", 1, {"wait_ms": 100, "tag": "slow-", "batch_max": 2}),
    "mv_tags": ("tags:1", "tagging", 1, {"task": "tagging"}),
    "mv_says": ("says:1", "chat", 1, {"task": "chat"}),
    "mv_pair": ("pair:1", "matching", 1, {"task": "matching"}),
}
"""``KnownModel``: kind labels a text by its first character, tags marks digits, says repeats, pair says same or other."""
HELP = Graph(
    {
        "kind": Step("mv_kind", fallback=Fallback(answer={"label": "?", "score": 0})),
        "tag": Step("mv_tags", when="kind.label != 'x'"),
        "reply": Step("mv_says", text="{kind.label}:{tag.spans.NUM}", when="tag.spans != ()", parameters={"max_tokens": 50}),
        "plain": Step("mv_says", text="no {text}"),
    },
    ("reply", "plain"),
    ("tag",),
)
GRAPHS = {
    "help": HELP,
    "sort": Graph({"a": Step("mv_kind"), "b": Step("mv_kind", text="{a.label}!{text}", top_k=3)}, ("b",)),
    "patient": Graph({"slow": Step("mv_slow", timeout_s=0.04, fallback=Fallback(step="fast")), "fast": Step("mv_kind")}, ("slow",)),
    "late": Graph({"one": Step("mv_slow"), "two": Step("mv_slow", text="{one.label}{text}"), "three": Step("mv_slow", text="{two.label}{text}")}, ("three",)),
    "wide": Graph({**{f"s{i}": Step("mv_slow", text=f"{i}{{text}}", cache=False) for i in range(2)}, "end": Step("mv_kind", text="{s0.label}{s1.label}")}, ("end",)),
    "same": Graph({"pair": Step("mv_pair", text_b="{text_b}")}, ("pair",)),
    "alone": Graph({"a": Step("mv_kind", when="text != 'x'")}, ("a",)),
    "mean": Graph(
        {"a": Step("mv_kind", fallback=Fallback(step="b")), "b": Step("mv_kind", text="b{text}", fallback=Fallback(skip=True))}, ("a",), (), {"label": "none", "score": 0}
    ),
}
FIRST = {"help": "mv_says", "same": "mv_pair"}


@pytest.fixture(scope="module")
def plane():
    services = {name: ("pj_1", FIRST.get(name, "mv_kind")) for name in GRAPHS} | {"kind": ("pj_1", "mv_kind")}
    plane = DataPlane(MODELS, services, {"grpc_port": free_port(), "deadline_s": 3.0, "cache_bytes": 1 << 20, "trace_share": 0.0}, graphs=GRAPHS)
    yield plane
    plane.close()


def ask(plane, service, inputs, **more):
    status, _, body = plane.ask("POST", f"/predict/{service}", {"inputs": inputs, **more})
    return status, json.loads(body)


def test_each_text_is_answered_by_its_own_way(plane):
    status, told = ask(plane, "help", ["a1b2", "hi", "x9"])
    assert (status, told["model"]) == (200, "help-graph:1")
    assert [o["text"] for o in told["outputs"]] == ["a:1、2", "no hi", "no x9"]
    assert told["outputs"][0]["steps"]["tag"]["spans"][0] == {"start": 1, "end": 2, "label": "NUM", "text": "1"}
    assert "steps" in told["outputs"][1] and told["outputs"][2]["steps"] == {}  # tag was left out
    status, told = ask(plane, "help", "a1b2", steps=True)
    assert sorted(told["outputs"][0]["steps"]) == ["kind", "plain", "reply", "tag"]
    assert told["outputs"][0]["steps"]["kind"]["label"] == "a"


def test_the_same_through_every_protocol(plane):
    tensors = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a1b2"]}]}
    status, _, body = plane.ask("POST", "/v2/models/help/infer", tensors)
    assert (status, json.loads(body)["outputs"][0]["data"], json.loads(body)["model_version"]) == (200, ["a:1、2"], "1")
    status, _, body = plane.ask("POST", "/v1/chat/completions", {"model": "help", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == "n"  # what the request asks of generation goes to the step that answers
    status, _, body = plane.ask("POST", "/v1/chat/completions", {"model": "help", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    assert (status, json.loads(body)["error"]["code"]) == (501, "graph.no-stream")
    assert ask(plane, "help", ["hi"], stream=True)[1]["code"] == "graph.no-stream"
    status, _, body = plane.ask("POST", "/v2/models/sort/infer", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["qq"]}]})
    assert json.loads(body)["outputs"][0]["data"] == ["q"]
    assert plane.get("/v2/models/help/ready")[0] == 200
    assert {"help", "sort"} <= {m["id"] for m in json.loads(plane.get("/v1/models")[1])["data"]}
    triton = pytest.importorskip("tritonclient.grpc")
    import numpy as np

    with triton.InferenceServerClient(f"127.0.0.1:{plane.call('stats')['grpc_port']}") as client:
        tensor = triton.InferInput("text", [2], "BYTES")
        tensor.set_data_from_numpy(np.array([b"a1b2", b"hi"], dtype=object))
        assert list(client.infer("help", [tensor], headers={"x-api-key": KEY}).as_numpy("text")) == ["a:1、2".encode(), b"no hi"]


def test_pairs_and_wrong_questions(plane):
    status, told = ask(plane, "same", [{"text": "a", "text_b": "a"}, {"text": "a", "text_b": "b"}])
    assert [o["label"] for o in told["outputs"]] == ["same", "other"]
    for service, inputs, code in (("same", ["a"], "gateway.pairs-wanted"), ("sort", [{"text": "a", "text_b": "b"}], "gateway.no-pairs"), ("sort", [], "gateway.no-inputs")):
        assert ask(plane, service, inputs)[1]["code"] == code
    assert ask(plane, "alone", ["ok", "x"])[1]["code"] == "graph.no-answer"
    assert ask(plane, "kind", ["a"], steps=True)[1]["code"] == "graph.no-steps"
    assert ask(plane, "sort", ["a"], parameters={"top_k": 2})[0] == 200
    assert ask(plane, "sort", ["a"], parameters={"topk": 2})[1]["code"] == "gateway.bad-parameter"
    status, _, _ = plane.ask("POST", "/predict/sort", {"inputs": ["a"]}, key="wf_test-key-of-another-project")
    assert status == 404


def test_a_step_that_takes_too_long_is_stood_in_for(plane):
    began = time.monotonic()
    status, told = ask(plane, "patient", ["hello"], steps=True)
    assert (status, told["outputs"][0]["label"], told["outputs"][0]["steps"]["slow"]["by"]) == (200, "h", "fast")
    assert time.monotonic() - began < 5
    traced = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x-request-id": "patient-1"}
    plane.ask("POST", "/predict/patient", {"inputs": ["again"]}, traced)
    (trace,) = until(lambda: plane.call("traces", service="patient", limit=10, request_id="patient-1"), what="the trace")
    spans = {s["name"]: s for s in trace["spans"]}
    assert spans["slow"]["error"] == "serve.deadline-passed"
    assert spans["slow"]["parent_id"] == spans["fast"]["parent_id"] == spans["predict"]["span_id"]
    assert any(s["name"] == "model" and s["parent_id"] == spans["fast"]["span_id"] for s in trace["spans"])


def test_one_deadline_for_all_steps(plane):
    tensors = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["deadline"]}], "parameters": {"timeout": 150_000}}
    status, _, body = plane.ask("POST", "/v2/models/late/infer", tensors)
    assert (status, "late-graph:1" in json.loads(body)["error"] or "slow:1" in json.loads(body)["error"]) == (504, True)
    status, told = ask(plane, "late", ["enough"])  # three times 0.1 s of 3 s
    assert (status, told["outputs"][0]["label"]) == (200, "slow-s")


def test_steps_that_do_not_need_each_other_share_a_batch(plane):
    before = plane.get("/metrics")[1].decode()
    assert ask(plane, "wide", ["w"])[0] == 200
    after = plane.get("/metrics")[1].decode()
    figure = lambda text, name: next((int(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(f'wenfang_{name}{{gateway="0",model="slow:1"}}')), 0)
    assert figure(after, "texts_total") - figure(before, "texts_total") == 2
    assert figure(after, "batch_size_count") - figure(before, "batch_size_count") == 1
    assert 'wenfang_graph_steps_total{gateway="0",graph="wide-graph:1",step="s0",outcome="answered"} 1' in after


def test_one_bad_text_does_not_spoil_its_neighbours(plane):
    status, told = ask(plane, "mean", ["RAISE", "ok"], steps=True)
    assert (status, [o["label"] for o in told["outputs"]]) == (200, ["b", "o"])
    assert told["outputs"][0]["steps"]["a"]["by"] == "b"
    assert "by" not in told["outputs"][1]["steps"]["a"]


def test_kept_answers_of_steps_are_used(plane):
    before = plane.get("/metrics")[1].decode()
    for _ in range(3):
        assert ask(plane, "sort", ["kept?"])[0] == 200
    after = plane.get("/metrics")[1].decode()
    hits = lambda text: sum(int(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith('wenfang_cache_hits_total{gateway="0",model="kind:1"}'))
    assert hits(after) - hits(before) == 4


def test_a_killed_replica_is_stood_in_for(plane):
    pid = plane.pid("replica-mv_kind-0")
    os.kill(pid, signal.SIGSTOP)
    try:
        status, told = ask(plane, "help", ["killed 7"], steps=True)
        assert (status, told["outputs"][0]["text"]) == (200, "?:7")
        assert told["outputs"][0]["steps"]["kind"] == {"label": "?", "score": 0.0, "by": "given"}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGCONT)
    until(lambda: ask(plane, "help", ["killed 8"])[1]["outputs"][0]["text"] == "k:8", what="the replica is back")


def test_no_request_fails_while_graphs_change(plane):
    stop = threading.Event()
    found = {}

    def load():
        statuses = []
        while not stop.is_set():
            statuses.append(ask(plane, "sort", [f"text {len(statuses)}"])[0])
        found["statuses"] = statuses

    other = Graph({"a": Step("mv_tags"), "b": Step("mv_kind", text="{text}{a.spans}")}, ("b",))
    loader = threading.Thread(target=load)
    loader.start()
    for graph in [other, GRAPHS["sort"]] * 4:
        plane.graphs = {**GRAPHS, "sort": graph, "help": Graph({"only": Step("mv_says")}, ("only",)) if graph is other else HELP}
        plane.write_routes()
        plane.call("routes", epoch=plane.epoch, drained=True)
    stop.set()
    loader.join()
    assert len(found["statuses"]) > 5
    assert set(found["statuses"]) == {200}
    broken = Graph({"a": Step("mv_kind", when="open('f')")}, ("a",))
    plane.graphs = {**GRAPHS, "sort": broken}
    plane.write_routes()
    time.sleep(1.5)
    assert ask(plane, "sort", ["still"])[0] == 200  # the table before stays
    plane.graphs = GRAPHS
    plane.write_routes()
    plane.call("routes", epoch=plane.epoch, drained=True)
