"""Callers of the gRPC port that mean harm or know no better: without a key, with messages that grow, with streams they never end."""

import os
import threading
import time

import pytest

from dataplane import KEY, DataPlane, alive, free_port, until

grpc = pytest.importorskip("grpc")
from wenfang.doors.gateway.rpc.messages import SERVICE, Messages  # noqa: E402

MODELS = {"mv_first": ("first:1", "classification", 1, {}), "mv_texts": ("texts:4", "generation", 1, {"task": "generation", "token_ms": 20, "joins": 4})}
WITH_KEY = (("x-api-key", KEY),)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
MIB = 1 << 20


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(MODELS, {"intent": ("pj_1", "mv_first"), "texts": ("pj_1", "mv_texts")}, {"grpc_port": free_port()})
    yield plane
    plane.close()


@pytest.fixture
def channel(plane):
    with grpc.insecure_channel(f"127.0.0.1:{plane.call('stats')['grpc_port']}", options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def unary(channel, method="ModelInfer"):
    return channel.unary_unary(f"/{SERVICE}/{method}", request_serializer=bytes, response_deserializer=bytes)


def streams(channel, method=f"/{SERVICE}/ModelStreamInfer"):
    return channel.stream_stream(method, request_serializer=bytes, response_deserializer=Messages().ModelStreamInferResponse.FromString)


def asked(text="天气", service="intent"):
    message = Messages().ModelInferRequest(model_name=service)
    message.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(text.encode())
    return message.SerializeToString()


def refusal(call):
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code().name, refused.value.details()


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


def test_who_has_no_key_is_turned_away_before_the_message_is_read(plane, channel):
    pid = plane.pid("gateway-0")
    before = resident_bytes(pid)
    large = asked() + b"\x2a\x00" * (2 * MIB - 100)  # two million empty inputs: 200 MB once parsed
    calls = [unary(channel).future(large, timeout=60) for _ in range(40)]
    assert {call.code().name for call in calls} == {"UNAUTHENTICATED"}
    alive = [unary(channel, "ServerLive").future(large, timeout=60) for _ in range(40)]
    assert {call.code().name for call in alive} == {"OK"}  # nothing that is said there must be heard
    for _ in range(40):
        assert refusal(lambda: next(streams(channel, REFLECTION)(iter([large]), timeout=60)))[0] == "UNAUTHENTICATED"
    assert resident_bytes(pid) - before < 100 * MIB
    assert refusal(lambda: unary(channel)(b"\xff\xff"))[0] == "UNAUTHENTICATED"
    assert b'wenfang_auth_failures_total{gateway="0",reason="auth.no-key"}' in plane.get("/metrics")[1]


def test_messages_that_grow_when_parsed_are_refused_before(plane, channel):
    pid = plane.pid("gateway-0")
    before, start = resident_bytes(pid), time.monotonic()
    for empty in (b"\x2a\x00", b"\x32\x00", b"\x3a\x00", b"\x2b\x2c"):  # inputs, outputs, raw contents, groups
        code, told = refusal(lambda empty=empty: unary(channel)(asked() + empty * MIB, metadata=WITH_KEY, timeout=30))
        assert (code, "groups" in told or "256 fields" in told) == ("INVALID_ARGUMENT", True), told
    inner = b"\x2a" + varint(2 * 1000 * 1000 + 4) + b"\x2a" + varint(2 * 1000 * 1000) + b"\x42\x00" * (1000 * 1000)  # a million empty texts in one tensor
    assert refusal(lambda: unary(channel)(b"\x0a\x06intent" + inner, metadata=WITH_KEY, timeout=30))[0] == "INVALID_ARGUMENT"
    assert time.monotonic() - start < 10
    assert resident_bytes(pid) - before < 300 * MIB
    assert unary(channel)(asked(), metadata=WITH_KEY, timeout=10)


def varint(n):
    found = b""
    while n > 127:
        found += bytes([n & 127 | 128])
        n >>= 7
    return found + bytes([n])


def test_a_message_that_is_none_is_an_answer_of_its_own_and_the_stream_goes_on(plane, channel):
    assert refusal(lambda: unary(channel)(b"\xff\xff\xff", metadata=WITH_KEY))[0] == "INVALID_ARGUMENT"
    told = [*streams(channel)(iter([asked("一"), b"\xff\xff", asked("二")]), metadata=WITH_KEY, timeout=20)]
    assert [(t.infer_response.outputs[0].contents.bytes_contents[0].decode() if not t.error_message else "") for t in told] == ["一", "", "二"]
    assert "ModelInferRequest" in told[1].error_message
    assert "Traceback" not in plane.log("gateway-0")


def test_a_stream_that_is_left_stops_what_it_had_asked(plane, channel):
    assert len([*streams(channel)(iter([asked("写", "texts")]), metadata=WITH_KEY, timeout=10)]) == 2
    statistics = Messages().ModelStatisticsResponse.FromString(unary(channel, "ModelStatistics")(b"\x0a\x05texts", metadata=WITH_KEY))
    assert statistics.model_stats[0].inference_stats.success.count == 1  # what is streamed counts
    call = streams(channel)(iter([asked("写" * 2000, "texts"), *[asked("写" * 2000, "texts")] * 80]), metadata=WITH_KEY)
    next(call)
    assert plane.call("stats")["pools"]["mv_texts"]["in_flight"] == 1
    call.cancel()
    until(lambda: plane.call("stats")["pools"]["mv_texts"]["in_flight"] == 0, 5, "a replica at rest")
    many = streams(channel)(iter([asked(str(n)) for n in range(200)]), metadata=WITH_KEY)
    next(many)
    many.cancel()
    until(lambda: plane.call("stats")["pools"]["mv_first"]["waiting"] == 0, 5, "an empty queue")
    assert unary(channel)(asked(), metadata=WITH_KEY, timeout=10)
    assert "never retrieved" not in plane.log("gateway-0")


def test_streams_that_ask_nothing_hold_no_stop_up_and_the_port_is_taken_again(plane, channel):
    over = threading.Event()

    def forever(first):
        yield from first
        over.wait(60)

    held = streams(channel)(forever([asked()]), metadata=WITH_KEY)
    assert next(held).infer_response.model_version == "1"
    writing = streams(channel)(forever([asked("一二三四五六七八", "texts")]), metadata=WITH_KEY)
    first = next(writing)
    reflection = streams(channel, REFLECTION)(forever([]), metadata=WITH_KEY)
    pid, port, start = plane.pid("gateway-0"), plane.call("stats")["grpc_port"], time.monotonic()
    os.kill(pid, 15)
    said = [first]
    with pytest.raises(grpc.RpcError) as ended:
        said.extend(writing)
    assert "".join(t.infer_response.outputs[0].contents.bytes_contents[0].decode() for t in said) == "一二三四五六七八"  # what was begun is written to its end
    assert ended.value.code().name == "UNAVAILABLE"
    assert refusal(lambda: next(held))[0] == "UNAVAILABLE"
    until(lambda: not alive(pid), 10, "the end of the gateway")
    assert time.monotonic() - start < 5
    over.set()
    reflection.cancel()
    for number in (None, 9):
        if number:
            os.kill(plane.pid("gateway-0"), number)
            time.sleep(0.1)
        until(lambda: plane.get("/readyz")[0] == 200 and plane.call("stats")["grpc_port"] == port, 20, "the same port again")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as again:
            assert unary(again)(asked(), metadata=WITH_KEY, timeout=10, wait_for_ready=True)


def test_a_text_of_a_stream_has_the_time_its_caller_gives(plane, channel):
    message = Messages().ModelInferRequest.FromString(asked("写" * 2000, "texts"))
    message.parameters["timeout"].int64_param = 1_000_000
    told = [*streams(channel)(iter([message.SerializeToString(), asked("一")]), metadata=WITH_KEY, timeout=30)]
    assert len(told) > 3
    assert "within 1" in told[-2].error_message
    assert told[-1].infer_response.outputs[0].contents.bytes_contents[0].decode() == "一"  # the stream goes on
