"""The Open Inference Protocol as clients nobody here wrote speak it: tritonclient over HTTP (JSON, raw bytes, compressed) and gRPC (raw), plain grpcio (by value)."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dataplane import EXPIRED, KEY, STRANGER, DataPlane, free_port

http_client = pytest.importorskip("tritonclient.http")
grpc_client = pytest.importorskip("tritonclient.grpc")

MODELS = {
    "mv_first": ("first:1", "classification", 2, {}),
    "mv_spans": ("spans:7", "tagging", 1, {"task": "tagging"}),
    "mv_pairs": ("pairs:2", "matching", 1, {"task": "matching"}),
    "mv_vectors": ("vectors:3", "embedding", 1, {"task": "embedding"}),
    "mv_texts": ("texts:4", "generation", 1, {"task": "generation", "token_ms": 20}),
}
SERVICES = {name: ("pj_1", model) for name, model in zip(("intent", "spans", "pairs", "vectors", "texts"), MODELS, strict=True)}
TEXTS = ["今天天气很好", "hello", "电话 13800138000", "", "𠮷野家"]


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(MODELS, SERVICES, {"grpc_port": free_port()})
    yield plane
    plane.close()


@pytest.fixture(scope="module")
def http(plane):
    client = http_client.InferenceServerClient(f"127.0.0.1:{plane.port}", network_timeout=20.0)
    yield client
    client.close()


@pytest.fixture(scope="module")
def rpc(plane):
    client = grpc_client.InferenceServerClient(f"127.0.0.1:{plane.call('stats')['grpc_port']}")
    yield client
    client.close()


def bearer():
    """New each time: tritonclient writes its own headers into the dictionary it is given."""
    return {"authorization": f"Bearer {KEY}"}


def x_key():
    return {"x-api-key": KEY}


def asked(module, texts, name="text", *, binary=None, column=False):
    shape = [len(texts), 1] if column else [len(texts)]
    tensor = module.InferInput(name, shape, "BYTES")
    values = np.array([t.encode() for t in texts], dtype=object).reshape(shape)
    tensor.set_data_from_numpy(values) if binary is None else tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def words(array):
    return [v.decode() if isinstance(v, bytes) else v for v in array.reshape(-1).tolist()]


def ways(http, rpc):
    """(name, infer) of every transport."""
    yield "grpc", lambda service, inputs, **more: rpc.infer(service, [asked(grpc_client, *i) for i in inputs], headers=x_key(), **more)
    for binary in (True, False):
        for column in (True, False):
            yield (
                f"http binary={binary} column={column}",
                lambda service, inputs, binary=binary, column=column, **more: http.infer(
                    service, [asked(http_client, *i, binary=binary, column=column) for i in inputs], headers=bearer(), **more
                ),
            )


def test_the_server_and_its_models_tell_of_themselves_alike(http, rpc):
    assert http.is_server_live() and http.is_server_ready() and rpc.is_server_live() and rpc.is_server_ready()
    assert http.is_model_ready("intent", headers=bearer()) and rpc.is_model_ready("intent", headers=x_key())
    assert http.is_model_ready("intent", "1", headers=bearer()) and rpc.is_model_ready("intent", "1", headers=x_key())
    assert not http.is_model_ready("intent", "2", headers=bearer())
    assert http.get_server_metadata(headers=bearer()) == rpc.get_server_metadata(headers=x_key(), as_json=True)
    for service in SERVICES:
        over_http, over_rpc = http.get_model_metadata(service, headers=bearer()), rpc.get_model_metadata(service, headers=x_key())
        assert [(t["name"], t["datatype"], t["shape"]) for t in over_http["outputs"]] == [(t.name, t.datatype, list(t.shape)) for t in over_rpc.outputs]
        assert over_http["versions"] == list(over_rpc.versions) == [MODELS[SERVICES[service][1]][0].rpartition(":")[2]]
        config = rpc.get_model_config(service, headers=x_key()).config
        assert http.get_model_config(service, headers=bearer())["parameters"]["task"]["string_value"] == config.parameters["task"].string_value
        assert config.instance_group[0].count == MODELS[SERVICES[service][1]][2]
        assert config.input[0].data_type == 13
    index = http.get_model_repository_index(headers=bearer())
    assert {m["name"]: m["state"] for m in index} == dict.fromkeys(SERVICES, "READY")
    assert [m.name for m in rpc.get_model_repository_index(headers=x_key()).models] == [m["name"] for m in index]


def test_every_transport_gives_the_same_answers(http, rpc):
    for name, infer in ways(http, rpc):
        found = infer("intent", [(TEXTS,)], request_id="mine")
        assert words(found.as_numpy("label")) == [t[:1] for t in TEXTS], name
        assert found.as_numpy("score").tolist() == pytest.approx([1 / (1 + len(t)) for t in TEXTS], abs=1e-6), name
        found = infer("spans", [(["ab12"],)])
        assert [s["label"] for s in json.loads(words(found.as_numpy("spans"))[0])] == ["NUM", "NUM"], name
        found = infer("pairs", [(["a", "b"], "text"), (["a", "c"], "text_b")])
        assert words(found.as_numpy("label")) == ["same", "other"], name
        found = infer("vectors", [(TEXTS,)])
        assert found.as_numpy("vector").tolist() == [[len(t), 0.5, -1.0] for t in TEXTS], name
        found = infer("texts", [(["你好世界"],)], parameters={"max_tokens": 2})
        assert (words(found.as_numpy("text")), words(found.as_numpy("finish"))) == (["你好"], ["length"]), name


def test_outputs_can_be_chosen_and_classes_asked_for(http, rpc):
    for module, infer in ((http_client, http.infer), (grpc_client, rpc.infer)):
        headers = x_key if module is grpc_client else bearer
        wanted = [module.InferRequestedOutput("score")]
        found = infer("intent", [asked(module, ["天气"])], outputs=wanted, headers=headers())
        assert found.as_numpy("label") is None
        assert found.as_numpy("score").tolist() == pytest.approx([1 / 3])
        found = infer("intent", [asked(module, ["天气"])], outputs=[module.InferRequestedOutput("label", class_count=2)], headers=headers())
        score, _, label = words(found.as_numpy("label"))[0].split(":")
        assert (float(score), label) == (pytest.approx(1 / 3, abs=1e-5), "x")
        with pytest.raises(module.InferenceServerException if hasattr(module, "InferenceServerException") else Exception, match="nothing-like-this"):
            infer("intent", [asked(module, ["天气"])], outputs=[module.InferRequestedOutput("nothing-like-this")], headers=headers())
        with pytest.raises(Exception, match="twice"):  # each time would be a copy of all answers
            infer("intent", [asked(module, ["天气"])], outputs=[*wanted, *wanted], headers=headers())
        with pytest.raises(Exception, match="no classes"):
            infer("vectors", [asked(module, ["天气"])], outputs=[module.InferRequestedOutput("vector", class_count=2)], headers=headers())


def test_requests_may_be_compressed_and_a_bomb_is_refused(http, plane):
    for algorithm in ("gzip", "deflate"):
        found = http.infer("intent", [asked(http_client, ["压缩" * 1000])], headers=bearer(), request_compression_algorithm=algorithm)
        assert words(found.as_numpy("label")) == ["压"]
    import gzip

    for body, encoding, status in (
        (gzip.compress(b"x" * (64 << 20)), "gzip", 413),
        (gzip.compress(b"{}")[:-4], "gzip", 415),
        (b"nonsense", "gzip", 415),
        (gzip.compress(b"{}") + b"more", "gzip", 415),
        (b"{}", "br", 415),
    ):
        got, _, told = plane.ask("POST", "/v2/models/intent/infer", body, {"Content-Type": "application/json", "Content-Encoding": encoding})
        assert got == status, told
        got, _, _ = plane.ask("POST", "/predict/intent", body, {"Content-Type": "application/json", "Content-Encoding": encoding})
        assert got == status


def test_a_whole_body_can_be_the_text(plane):
    status, _, body = plane.ask("POST", "/v2/models/intent/infer", "天气".encode(), {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"})
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, ["天"])


def test_a_service_may_be_called_stats_and_a_deadline_may_be_any_number():
    plane = DataPlane(services={"stats": ("pj_1", "mv_first")})
    one = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    try:
        status, _, body = plane.ask("POST", "/v2/models/stats/infer", {"inputs": [one], "parameters": {"timeout": 10**300}})
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, ["a"])
        assert json.loads(plane.get("/v2/models/stats/ready")[1])["name"] == "stats"
        assert plane.get("/v2/models/stats/nonsense")[0] == 404
        assert [m["name"] for m in json.loads(plane.get("/v2/models/stats")[1])["model_stats"]] == ["stats"]
    finally:
        plane.close()


def test_binary_framing_that_does_not_add_up_is_told(plane):
    def send(tensors, tail, length=None, **more):
        head = json.dumps({"inputs": tensors, **more}).encode()
        given = {"Inference-Header-Content-Length": str(len(head) if length is None else length), "Content-Type": "application/octet-stream"}
        status, _, told = plane.ask("POST", "/v2/models/intent/infer", head + tail, given)
        return status, json.loads(told).get("error", "")

    one = {"name": "text", "datatype": "BYTES", "shape": [1]}
    right = b"\x01\x00\x00\x00a"
    assert send([{**one, "parameters": {"binary_data_size": 5}}], right)[0] == 200
    for tensors, tail, length, told in (
        ([{**one, "parameters": {"binary_data_size": 6}}], right, None, "bytes are left"),
        ([{**one, "parameters": {"binary_data_size": -1}}], right, None, "bytes are left"),
        ([{**one, "parameters": {"binary_data_size": "5"}}], right, None, "bytes are left"),
        ([{**one, "parameters": {"binary_data_size": 5}}], right + b"x", None, "follow the last"),
        ([{**one, "parameters": {"binary_data_size": 5}}], b"\x09\x00\x00\x00a", None, "end inside element 0"),
        ([{**one, "parameters": {"binary_data_size": 3}}], b"\x09\x00\x00", None, "end inside element 0"),
        ([{**one, "parameters": {"binary_data_size": 5}}], b"\x01\x00\x00\x00\xff", None, "not UTF-8"),
        ([{**one, "shape": [2], "parameters": {"binary_data_size": 5}}], right, None, "2 texts and 1"),
        ([one], b"", None, "neither data nor"),
        ([one], b"", 10**9, "and the body has"),
        ([{**one, "datatype": "INT64", "parameters": {"binary_data_size": 5}}], right, None, "datatype is 'INT64'"),
    ):
        status, error = send(tensors, tail, length)
        assert (status, told in error) == (400, True), (error, told)
    assert send([{**one, "parameters": {"binary_data_size": 5}}], right, parameters={"sequence_id": 3})[0] == 400
    assert send([{**one, "parameters": {"binary_data_size": 5}}], right, parameters={"nonsense": 3})[0] == 400


def test_errors_are_the_protocols_own(http, rpc):
    cases = [
        ("nobody", None, x_key(), "NOT_FOUND", "404"),
        ("intent", "9", x_key(), "NOT_FOUND", "404"),
        ("intent", "", {}, "UNAUTHENTICATED", "401"),
        ("intent", "", {"x-api-key": EXPIRED}, "UNAUTHENTICATED", "401"),
        ("intent", "", {"x-api-key": STRANGER}, "NOT_FOUND", "404"),
    ]
    for service, version, headers, code, status in cases:
        with pytest.raises(grpc_client.InferenceServerException) as over_rpc:
            rpc.infer(service, [asked(grpc_client, ["a"])], model_version=version or "", headers=dict(headers))
        assert over_rpc.value.status() == f"StatusCode.{code}"
        with pytest.raises(http_client.InferenceServerException) as over_http:
            http.infer(service, [asked(http_client, ["a"])], model_version=version or "", headers=dict(headers))
        assert over_http.value.status() == status
        assert over_http.value.message() == over_rpc.value.message()
    for inputs, told in (([asked(grpc_client, ["a"], "image")], "instead of 'text'"), ([asked(grpc_client, ["a"]), asked(grpc_client, ["a"], "text_b")], "pair")):
        with pytest.raises(grpc_client.InferenceServerException, match=told) as bad:
            rpc.infer("intent", inputs, headers=x_key())
        assert bad.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(grpc_client.InferenceServerException, match="中文|文本|服务"):
        rpc.infer("nobody", [asked(grpc_client, ["a"])], headers={**x_key(), "accept-language": "zh-CN"})
    numbers = grpc_client.InferInput("text", [1], "FP32")
    numbers.set_data_from_numpy(np.ones(1, dtype=np.float32))
    with pytest.raises(grpc_client.InferenceServerException, match="FP32"):
        rpc.infer("intent", [numbers], headers=x_key())


def test_texts_stream_over_grpc_piece_by_piece(plane):
    heard = []
    client = grpc_client.InferenceServerClient(f"127.0.0.1:{plane.call('stats')['grpc_port']}")
    client.start_stream(lambda result, error: heard.append((result, error)), headers=x_key())
    client.async_stream_infer("texts", [asked(grpc_client, ["春眠不觉晓"])], request_id="t")
    client.async_stream_infer("intent", [asked(grpc_client, ["天气", "很好"])], request_id="i")
    client.async_stream_infer("nobody", [asked(grpc_client, ["天气"])])
    client.async_stream_infer("intent", [asked(grpc_client, ["最后"])], request_id="l")
    end = time.monotonic() + 20
    while not any(r is not None and r.get_response().id == "l" for r, _ in heard):
        assert time.monotonic() < end, [(r and r.get_response().id, str(e)) for r, e in heard]
        time.sleep(0.01)
    client.stop_stream()
    client.close()
    pieces = [words(r.as_numpy("text"))[0] for r, e in heard if r is not None and r.get_response().id == "t"]
    assert "".join(pieces) == "春眠不觉晓"
    assert len([p for p in pieces if p]) > 1
    assert [words(r.as_numpy("label")) for r, e in heard if r is not None and r.get_response().id in {"i", "l"}] == [["天", "很"], ["最"]]
    assert ["nobody" in str(e) for _, e in heard if e is not None] == [True]
    assert [r.get_response().id for r, e in heard if r is not None][-1] == "l"


def test_a_callers_deadline_ends_the_wait_and_nothing_else(plane, rpc):
    slow = DataPlane({"mv_slow": ("slow:1", "classification", 1, {"wait_ms": 400, "batch_max": 1})}, {"slow": ("pj_1", "mv_slow")}, {"grpc_port": free_port()})
    try:
        client = grpc_client.InferenceServerClient(f"127.0.0.1:{slow.call('stats')['grpc_port']}")
        with pytest.raises(grpc_client.InferenceServerException) as late:
            client.infer("slow", [asked(grpc_client, ["a"])], headers=x_key(), client_timeout=0.2)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        start = time.monotonic()
        with pytest.raises(grpc_client.InferenceServerException, match=r"within 0.2 s") as late:
            client.infer("slow", [asked(grpc_client, ["a"])], headers=x_key(), timeout=200_000)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert time.monotonic() - start < 1.0
        status, _, told = slow.ask(
            "POST", "/v2/models/slow/infer", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}], "parameters": {"timeout": 100_000}}
        )
        assert status == 504, told
        assert words(client.infer("slow", [asked(grpc_client, ["after"])], headers=x_key()).as_numpy("label")) == ["a"]
        client.close()
    finally:
        slow.close()


def test_urgent_requests_go_first_over_every_protocol():
    import threading

    slow = DataPlane({"mv_slow": ("slow:1", "classification", 1, {"wait_ms": 150, "batch_max": 1})}, {"slow": ("pj_1", "mv_slow")}, {"grpc_port": free_port(), "wait_s": 0})
    try:
        port, order = slow.call("stats")["grpc_port"], []

        def by_rpc(name, **more):
            client = grpc_client.InferenceServerClient(f"127.0.0.1:{port}")
            client.infer("slow", [asked(grpc_client, [name])], headers=x_key(), **more)
            order.append(name)
            client.close()

        def by_http(name, priority):
            assert slow.predict([name], "slow", headers={"X-Priority": priority})[0] == 200
            order.append(name)

        threads = [threading.Thread(target=by_http, args=(f"batch {i}", "batch")) for i in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        threads += [threading.Thread(target=by_rpc, args=("urgent",), kwargs={"priority": 1}), threading.Thread(target=by_http, args=("usual", "online"))]
        for thread in threads[12:]:
            thread.start()
        for thread in threads:
            thread.join()
        assert {"urgent", "usual"} <= set(order[:9]), order
        assert slow.predict(["a"], "slow", headers={"X-Priority": "now"})[0] == 422
    finally:
        slow.close()


def test_statistics_count_what_was_answered(plane, http, rpc):
    before = http.get_inference_statistics("intent", headers=bearer())["model_stats"][0]
    for _ in range(3):
        rpc.infer("intent", [asked(grpc_client, ["a", "b"])], headers=x_key())
    after = http.get_inference_statistics("intent", headers=bearer())["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert after["inference_stats"]["queue"]["ns"] >= before["inference_stats"]["queue"]["ns"]
    assert after["inference_stats"]["success"]["ns"] > 0
    assert sum(b["batch_size"] * b["compute_infer"]["count"] for b in after["batch_stats"]) == after["inference_count"]
    over_rpc = rpc.get_inference_statistics("intent", headers=x_key()).model_stats[0]
    assert over_rpc.inference_count == after["inference_count"]
    assert {s["name"] for s in http.get_inference_statistics(headers=bearer())["model_stats"]} == set(SERVICES)
    assert b'protocol="grpc"' in plane.get("/metrics")[1]


def test_plain_grpc_by_value_and_reflection(plane):
    """In a process of its own: tritonclient holds the protocol's names in this one."""
    program = Path(__file__).with_name("plain_grpc.py")
    done = subprocess.run([sys.executable, str(program), str(plane.call("stats")["grpc_port"]), KEY], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"labels": ["天", "h"], "services": ["grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService"], "raw": False}


def test_the_compiled_messages_are_those_of_the_proto_file(tmp_path):
    pytest.importorskip("grpc_tools")
    import wenfang.doors.gateway

    folder = Path(wenfang.doors.gateway.__file__).parent / "rpc"
    made = tmp_path / "made"
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={made}", "inference.proto"], check=True, timeout=60)
    assert made.read_bytes() == (folder / "inference.binpb").read_bytes()


def test_names_and_numbers_are_those_clients_have():
    from google.protobuf import descriptor_pb2
    from tritonclient.grpc import model_config_pb2, service_pb2

    import wenfang.doors.gateway

    compiled = Path(wenfang.doors.gateway.__file__).parent / "rpc" / "inference.binpb"
    ours = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    compared = 0
    for message in ours.message_type:
        fields = theirs[message.name].fields_by_name
        for field in message.field:
            assert (fields[field.name].number, fields[field.name].type) == (field.number, field.type), (message.name, field.name)
            compared += 1
    assert compared > 80
