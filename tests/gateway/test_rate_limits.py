"""Limits as callers of every protocol meet them, and as operators set them."""

import json
import time

import pytest

from dataplane import KEY, DataPlane, free_port
from wenfang.serve.flow import Rate


@pytest.fixture(scope="module")
def plane():
    models = {"mv_first": ("first:1", "classification", 1, {}), "mv_texts": ("texts:1", "chat", 1, {"task": "chat"})}
    plane = DataPlane(models, {"intent": ("pj_1", "mv_first"), "talk": ("pj_1", "mv_texts")}, {"grpc_port": free_port()})
    yield plane
    plane.close()


def limited(plane, **rates):
    plane.rates = rates
    plane.write_routes()
    plane.call("routes", epoch=plane.epoch)


@pytest.mark.parametrize("owner", ["key", "service", "project"])
def test_beyond_the_limit_is_429_with_the_time_to_wait(plane, owner):
    limited(plane, **{owner: Rate(requests_per_s=2.0 + len(owner) / 100)})  # another limit each time: a fresh bucket is not needed
    time.sleep(2.2)
    answers = [plane.ask("POST", "/predict/intent", {"inputs": ["a"]}) for _ in range(8)]
    statuses = [status for status, _, _ in answers]
    assert statuses[:3] == [200] * 3 and statuses[-1] == 429, statuses
    _, headers, body = answers[-1]
    assert int(headers["retry-after"]) >= 1
    assert json.loads(body)["code"] == "serve.rate-limited"
    time.sleep(1.0)
    assert plane.predict(["a"])[0] == 200
    assert f'owner="{owner}",what="requests"' in plane.get("/metrics")[1].decode()
    limited(plane)
    assert [plane.predict(["a"])[0] for _ in range(20)] == [200] * 20


def test_every_protocol_says_it_its_own_way(plane):
    limited(plane, key=Rate(requests_per_s=0.01))
    plane.predict(["a"])
    status, _, body = plane.ask("POST", "/v2/models/intent/infer", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]})
    assert (status, "error" in json.loads(body)) == (429, True)
    for path, asked in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": True}),
    ):
        status, headers, body = plane.ask("POST", path, {"model": "talk", **asked})
        assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
        assert "retry-after" in headers
    grpc = pytest.importorskip("tritonclient.grpc")
    client = grpc.InferenceServerClient(f"127.0.0.1:{plane.call('stats')['grpc_port']}")
    tensor = grpc.InferInput("text", [1], "BYTES")
    import numpy as np

    tensor.set_data_from_numpy(np.array([b"a"], dtype=object))
    with pytest.raises(grpc.InferenceServerException) as refused:
        client.infer("intent", [tensor], headers={"x-api-key": KEY})
    assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    client.close()
    limited(plane)


def test_what_was_written_is_paid_in_tokens(plane):
    limited(plane, key=Rate(tokens_per_s=20.0))
    asked = {"model": "talk", "messages": [{"role": "user", "content": "x" * 100}]}
    assert plane.ask("POST", "/v1/chat/completions", asked)[0] == 200  # 100 in, 100 out: far in debt
    status, headers, _ = plane.ask("POST", "/v1/chat/completions", asked)
    assert (status, int(headers["retry-after"]) >= 5) == (429, True)
    limited(plane)
