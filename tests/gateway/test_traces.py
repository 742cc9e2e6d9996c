"""A caller's trace goes through gateway, replica and a server of others, comes back, and can be looked at."""

import json
import re

import pytest

from dataplane import KEY, DataPlane, free_port, until
from openai_server import KnownServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def server():
    server = KnownServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def plane(server):
    models = {
        "mv_first": ("first:1", "classification", 1, {"wait_ms": 5}),
        "mv_texts": ("texts:1", "chat", 1, {"task": "chat"}),
        "mv_other": ("other:1", "chat", 1, {"task": "chat", "base_url": server.base_url}),
    }
    plane = DataPlane(models, {"intent": ("pj_1", "mv_first"), "talk": ("pj_1", "mv_texts"), "afar": ("pj_1", "mv_other")}, {"grpc_port": free_port(), "trace_share": 0.0})
    yield plane
    plane.close()


def kept(plane, service, **wanted):
    return plane.call("traces", service=service, limit=100, **wanted)


def predict(plane, headers, service="intent"):
    status, answered, _ = plane.ask("POST", f"/predict/{service}", {"inputs": ["今天"]}, headers)
    assert status == 200
    return answered


def test_a_trace_is_continued_answered_and_kept(plane):
    answered = predict(plane, {"traceparent": PARENT, "tracestate": "a=1", "x-request-id": "mine-1"})
    said = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", answered["traceresponse"])
    assert said
    (trace,) = until(lambda: kept(plane, "intent", request_id="mine-1"), what="the trace")
    assert (trace["trace_id"], trace["request_id"], trace["model"], trace["service"], trace["status"]) == (TRACE, "mine-1", "first:1", "intent", 200)
    root, *parts = trace["spans"]
    assert (root["span_id"], root["parent_id"], root["name"]) == (said[1], "00f067aa0ba902b7", "predict")
    assert [p["name"] for p in parts] == ["queue", "model", "write"]
    assert parts[1]["ms"] >= 5.0
    assert root["ms"] >= sum(p["ms"] for p in parts) - 1
    assert kept(plane, "intent", trace_id=TRACE)[0]["request_id"] == "mine-1"


def test_without_a_trace_nothing_is_said_or_kept(plane):
    before = kept(plane, "intent")
    assert "traceresponse" not in predict(plane, {})
    assert kept(plane, "intent") == before


def test_what_the_caller_does_not_keep_is_not_kept_here(plane):
    answered = predict(plane, {"traceparent": PARENT[:-2] + "00", "x-request-id": "unsampled"})
    assert answered["traceresponse"].startswith(f"00-{TRACE}") and answered["traceresponse"].endswith("-00")
    assert kept(plane, "intent", request_id="unsampled") == []


@pytest.mark.parametrize("bad", ["", "00-zz", PARENT.upper(), PARENT + "-x", f"00-{'0' * 32}-00f067aa0ba902b7-01", "x" * 5000])
def test_a_bad_trace_is_replaced(plane, bad):
    answered = predict(plane, {"traceparent": bad, "tracestate": "a=1"})
    said = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-01", answered["traceresponse"])
    assert said
    assert said[1] not in {TRACE, "0" * 32}
    assert until(lambda: kept(plane, "intent", trace_id=said[1]), what="the trace")[0]["request_id"] == answered["x-request-id"]


def test_errors_and_streams_are_traced_too(plane):
    status, answered, _ = plane.ask("POST", "/predict/intent", {"inputs": ["RAISE"]}, {"traceparent": PARENT, "x-request-id": "mine-2"})
    assert (status, answered["traceresponse"][:35]) == (500, f"00-{TRACE}")
    assert until(lambda: kept(plane, "intent", request_id="mine-2"), what="the trace")[0]["status"] == 500
    assert f"of traces {TRACE}" in plane.log("replica-mv_first-0")
    body = {"model": "talk", "stream": True, "messages": [{"role": "user", "content": "你好吗"}]}
    status, answered, _ = plane.ask("POST", "/v1/chat/completions", body, {"traceparent": PARENT, "x-request-id": "mine-3"})
    assert (status, answered["traceresponse"][:35]) == (200, f"00-{TRACE}")
    (trace,) = until(lambda: kept(plane, "talk", request_id="mine-3"), what="the trace")
    assert {"queue", "model"} <= {s["name"] for s in trace["spans"]}


def test_a_server_of_others_is_told(plane, server):
    for stream in (False, True):
        server.asked.clear()
        body = {"model": "afar", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
        status, answered, _ = plane.ask("POST", "/v1/chat/completions", body, {"traceparent": PARENT, "tracestate": "a=1,b=2"})
        assert status == 200
        ((_, headers, _),) = server.asked
        assert headers["traceparent"] == answered["traceresponse"]
        assert headers["tracestate"] == "a=1,b=2"
    server.asked.clear()
    status, _, _ = plane.ask("POST", "/v1/chat/completions", body)
    assert status == 200
    assert "traceparent" not in server.asked[0][1]


def test_grpc_carries_it_as_metadata(plane):
    pytest.importorskip("grpc")
    import grpc
    from google.protobuf import descriptor_pb2  # noqa: F401 the library is there

    from wenfang.doors.gateway.rpc.messages import SERVICE, Messages

    messages = Messages()
    asked = messages.ModelInferRequest(model_name="intent")
    tensor = asked.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append("今天".encode())
    with grpc.insecure_channel(f"127.0.0.1:{plane.call('stats')['grpc_port']}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer", request_serializer=messages.ModelInferRequest.SerializeToString, response_deserializer=messages.ModelInferResponse.FromString
        )
        _, done = call.with_call(asked, metadata=(("x-api-key", KEY), ("traceparent", PARENT), ("x-request-id", "mine-4")), timeout=10)
        told = dict(done.trailing_metadata())
        with pytest.raises(grpc.RpcError) as refused:
            call(messages.ModelInferRequest(model_name="nothing"), metadata=(("x-api-key", KEY), ("traceparent", PARENT)), timeout=10)
    assert told["traceresponse"].startswith(f"00-{TRACE}-")
    assert dict(refused.value.trailing_metadata())["traceresponse"].startswith(f"00-{TRACE}-")
    assert until(lambda: kept(plane, "intent", request_id="mine-4"), what="the trace")[0]["spans"][0]["name"] == "grpc"


def test_requests_that_reach_no_service_are_not_kept(plane):
    plane.ask("GET", "/healthz", headers={"traceparent": PARENT, "x-request-id": "probe"})
    status, _, _ = plane.ask("POST", "/predict/intent", {"inputs": ["a"]}, {"traceparent": PARENT, "x-request-id": "nobody"}, key=None)
    assert status == 401
    assert not [t for t in kept(plane, "-") + kept(plane, "intent") if t["request_id"] in {"probe", "nobody"}]
    assert json.loads(plane.get("/readyz")[1])["status"] == "ready"
