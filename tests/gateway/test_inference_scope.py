"""What a key may not call it does not learn of, by any path of the Open Inference Protocol: a service of another project looks like none."""

import json

import pytest

from dataplane import AUDITOR, STRANGER, DataPlane, free_port

grpc = pytest.importorskip("grpc")
from wenfang.doors.gateway.rpc.messages import SERVICE, Messages  # noqa: E402

ONE = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
PATHS = [f"/v2/models/%s{v}{verb}" for v in ("", "/versions/1", "/versions/9") for verb in ("", "/ready", "/config", "/stats")]


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(services={"hidden": ("pj_1", "mv_first")}, settings={"grpc_port": free_port()})
    yield plane
    plane.close()


def over_http(plane, name, key):
    found = [plane.ask("GET", path % name, key=key)[::2] for path in PATHS]
    found += [plane.ask("POST", f"/v2/models/{name}/infer", ONE, key=key)[::2], plane.ask("POST", f"/v2/models/{name}/infer", "nonsense", key=key)[::2]]
    found += [plane.ask("POST", f"/v2/repository/models/{name}/{verb}", key=key)[::2] for verb in ("load", "unload")]
    return [(status, body.decode().replace(name, "NAME")) for status, body in found]


def over_grpc(plane, name, key):
    m, found = Messages(), []
    asked = m.ModelInferRequest(model_name=name)
    asked.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    with grpc.insecure_channel(f"127.0.0.1:{plane.call('stats')['grpc_port']}") as channel:
        metadata = (("x-api-key", key),)
        for method, message in [("ModelInfer", asked), *[(f"Model{what}", getattr(m, f"Model{what}Request")(name=name)) for what in ("Ready", "Metadata", "Config", "Statistics")]]:
            call = channel.unary_unary(f"/{SERVICE}/{method}", request_serializer=type(message).SerializeToString, response_deserializer=bytes)
            with pytest.raises(grpc.RpcError) as refused:
                call(message, metadata=metadata, timeout=10)
            found.append((refused.value.code().name, refused.value.details().replace(name, "NAME")))
        stream = channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer", request_serializer=m.ModelInferRequest.SerializeToString, response_deserializer=m.ModelStreamInferResponse.FromString
        )
        found += [("stream", answer.error_message.replace(name, "NAME")) for answer in stream(iter([asked]), metadata=metadata, timeout=10)]
    return found


def test_a_service_of_another_project_looks_like_none(plane):
    assert over_http(plane, "hidden", STRANGER) == over_http(plane, "absent", STRANGER)
    assert {status for status, _ in over_http(plane, "hidden", STRANGER)} == {404}
    assert over_grpc(plane, "hidden", STRANGER) == over_grpc(plane, "absent", STRANGER)
    assert {code for code, _ in over_grpc(plane, "hidden", STRANGER)} == {"NOT_FOUND", "stream"}


def test_lists_hold_what_may_be_called(plane):
    for key in (STRANGER, AUDITOR):
        assert json.loads(plane.get("/v2/models", key=key)[1]) == {"models": []}
        assert json.loads(plane.get("/v2/models/stats", key=key)[1]) == {"model_stats": []}
        assert json.loads(plane.ask("POST", "/v2/repository/index", key=key)[2]) == []
    assert {status for status, _ in over_http(plane, "hidden", AUDITOR)} == {403}
    assert {code for code, _ in over_grpc(plane, "hidden", AUDITOR)} == {"PERMISSION_DENIED", "stream"}
