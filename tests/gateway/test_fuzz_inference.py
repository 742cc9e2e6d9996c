"""Requests that are almost right, thousands of them, over raw sockets and gRPC: none breaks the gateway, hangs, or spoils the answers of others."""

import gzip
import json
import random
import re
import socket

import pytest

from dataplane import KEY, DataPlane, free_port, parsed, until

grpc = pytest.importorskip("grpc")
from wenfang.doors.gateway.rpc.messages import SERVICE, Messages  # noqa: E402

MODELS = {
    "mv_first": ("first:1", "classification", 2, {}),
    "mv_pairs": ("pairs:2", "matching", 1, {"task": "matching"}),
    "mv_texts": ("texts:4", "generation", 1, {"task": "generation", "joins": 4}),
}
SERVICES = {"intent": ("pj_1", "mv_first"), "pairs": ("pj_1", "mv_pairs"), "texts": ("pj_1", "mv_texts")}
NUMBERS = [b"-1", b"0", b"1", b"2", b"4294967296", b"2147483648", b"9223372036854775807", b"18446744073709551616", b"1" * 400, b"1" * 5000, b"1e400", b"-0.0", b"NaN", b"0.5"]
WORDS = [b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b"[" * 700, b'{"a":' * 700, b'"text"', b"\xff\xfe", b"\x00", b"\r\n", b"\r\n\r\n", b"%2f", b"..", "文".encode(), b","]
WINDOW = 32


@pytest.fixture(scope="module")
def plane():
    settings = {"grpc_port": free_port(), "header_timeout_s": 2.0, "body_timeout_s": 2.0, "cache_bytes": 1 << 20}
    plane = DataPlane(MODELS, SERVICES, settings)
    yield plane
    plane.close()


def mutated(random, data, others):
    """``data`` with one to four changes."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice((1, 1, 2, 8, 40)))
        match random.randrange(8):
            case 0:
                data = data[:at] + random.randbytes(end - at) + data[end:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + data[at:end] * random.choice((2, 3, 200)) + data[end:]
            case 3:
                data = data[:at] + random.choice(WORDS) + data[at:]
            case 4 if numbers := [*re.finditer(rb"\d+", data)]:
                found = random.choice(numbers)
                data = data[: found.start()] + random.choice(NUMBERS) + data[found.end() :]
            case 5 if values := [*re.finditer(rb'"[^"]*"|\[[^\]]*\]', data)]:
                found = random.choice(values)
                data = data[: found.start()] + random.choice(WORDS + NUMBERS) + data[found.end() :]
            case 6:
                other = random.choice(others)
                data = data[:at] + other[random.randrange(len(other)) :]
            case _:
                data = data[:at]
    return data


def http_seeds():
    one = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["天气", "hello"]}
    raw = b"\x06\x00\x00\x00\xe5\xa4\xa9\xe6\xb0\x94\x00\x00\x00\x00"
    framed = json.dumps({"inputs": [{**one, "data": None, "parameters": {"binary_data_size": len(raw)}}], "parameters": {"binary_data_output": True}}).encode()
    infer = json.dumps({"id": "x", "inputs": [one], "parameters": {"top_k": 2, "timeout": 5_000_000}, "outputs": [{"name": "label", "parameters": {"classification": 2}}]}).encode()
    pairs = json.dumps({"inputs": [one, {**one, "name": "text_b"}]}).encode()
    texts = json.dumps({"inputs": [{**one, "shape": [2, 1], "data": [["你好"], ["再见"]]}], "parameters": {"max_tokens": 3, "stop": ["x"], "temperature": 0.5}}).encode()
    bodies = [
        ("intent", infer, b""),
        ("intent", framed + raw, b"Inference-Header-Content-Length: %d\r\n" % len(framed)),
        ("intent", gzip.compress(infer), b"Content-Encoding: gzip\r\n"),
        ("pairs", pairs, b""),
        ("texts", texts, b""),
        ("intent/versions/1", infer, b"Cache-Control: no-cache\r\n"),
    ]
    head = b"%s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nConnection: close\r\n"
    seeds = []
    for service, body, more in bodies:
        line = b"POST /v2/models/%s/infer" % service.encode()
        seeds.append((head % (line, KEY.encode()) + b"Content-Type: application/json\r\n" + more, body))
    seeds += [
        (head % (b"GET /v2/" + path, KEY.encode()), b"")
        for path in (b"models/intent/config", b"models/stats", b"models/intent/versions/1/stats", b"repository/index", b"health/ready")
    ]
    return seeds


def http_requests(random, n):
    """Half have a wrong body with a right length, half are wrong anywhere."""
    seeds = http_seeds()
    bodies, whole = [body for _, body in seeds if body], [head + b"Content-Length: %d\r\n\r\n" % len(body) + body for head, body in seeds]
    for _ in range(n):
        head, body = random.choice(seeds)
        if body and random.random() < 0.5:
            body = mutated(random, body, bodies)
            yield head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            yield mutated(random, random.choice(whole), whole)


def spoken(plane, data):
    """A socket on which everything was said, its side closed."""
    sock = socket.create_connection(("127.0.0.1", plane.port), timeout=15)
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:  # refused before everything was sent
        pass
    return sock


def heard(sock, asked):
    """Everything the gateway says until it closes."""
    data = b""
    try:
        while piece := sock.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    except TimeoutError as e:
        raise AssertionError(f"no end after {data[:300]!r} to {asked[:2000]!r}") from e
    finally:
        sock.close()
    return data


def fuzz_http(plane, n, seed):
    statuses = {}
    requests = http_requests(random.Random(seed), n)
    while window := [data for data, _ in zip(requests, range(WINDOW), strict=False)]:
        for data, sock in [(data, spoken(plane, data)) for data in window]:
            for status, _, body in answers(heard(sock, data), data):
                statuses[status] = statuses.get(status, 0) + 1
                late = status == 504 and b"timeout" in data
                elsewhere = status == 503 and b"gateway.control-away" in body
                assert status < 500 or status == 501 or late or elsewhere, (status, body[:300], data[:2000])
    return statuses


def answers(said, asked):
    """(status, headers, body) of each; what was no GET or POST may have been a HEAD, whose answer has no body."""
    return parsed(said) if asked.startswith((b"POST", b"GET")) else [(int(status), {}, said) for status in re.findall(rb"HTTP/1\.1 (\d+) ", said)]


def grpc_seeds(m):
    def asked(service, columns, raw=False, **parameters):
        message = m.ModelInferRequest(model_name=service, id="x")
        for name, texts in columns:
            tensor = message.inputs.add(name=name, datatype="BYTES", shape=[len(texts)])
            if raw:
                message.raw_input_contents.append(b"".join(len(t).to_bytes(4, "little") + t for t in texts))
            else:
                tensor.contents.bytes_contents.extend(texts)
        for name, value in parameters.items():
            setattr(message.parameters[name], {int: "int64_param", float: "double_param", str: "string_param"}[type(value)], value)
        return message

    with_classes = asked("intent", [("text", ["天气".encode(), b"a"])], top_k=2)
    with_classes.outputs.add(name="label").parameters["classification"].int64_param = 2
    messages = [
        asked("intent", [("text", ["天气".encode(), b"", b"hello"])], timeout=5_000_000),
        asked("intent", [("text", ["天气".encode(), b""])], raw=True),
        asked("pairs", [("text", [b"a", b"b"]), ("text_b", [b"a", b"c"])], raw=True),
        asked("texts", [("text", ["你好".encode()])], max_tokens=2, temperature=0.5),
        with_classes,
    ]
    return [("ModelInfer", message.SerializeToString()) for message in messages] + [
        ("ModelMetadata", m.ModelMetadataRequest(name="intent", version="1").SerializeToString()),
        ("ModelStatistics", m.ModelStatisticsRequest(name="intent").SerializeToString()),
        ("ServerReady", b""),
    ]


def fuzz_grpc(channel, n, seed):
    rng, codes = random.Random(seed), {}
    seeds = grpc_seeds(Messages())
    others = [data for _, data in seeds if data]
    same = bytes
    unary = {name: channel.unary_unary(f"/{SERVICE}/{name}", request_serializer=same, response_deserializer=same) for name, _ in seeds}
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer", request_serializer=same, response_deserializer=same)
    metadata = (("x-api-key", KEY),)
    streamed = [mutated(rng, rng.choice(others), others) for _ in range(n // 10)]
    for first in range(0, len(streamed), WINDOW):
        part = streamed[first : first + WINDOW]
        told = [*stream(iter(part), metadata=metadata, timeout=30)]  # every request has at least one answer, wrong ones too
        assert len(told) >= len(part)
    left = n - len(streamed)
    while left > 0:
        calls = []
        for _ in range(min(WINDOW, left)):
            name, data = rng.choice(seeds)
            data = mutated(rng, data, others)
            calls.append((name, data, unary[name].future(data, metadata=metadata, timeout=30)))
            if rng.random() < 0.05:
                calls[-1][2].cancel()
        left -= len(calls)
        for name, data, call in calls:
            code = call.code().name
            codes[code] = codes.get(code, 0) + 1
            late = code == "DEADLINE_EXCEEDED" and b"timeout" in data
            assert late or code in {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED"}, (code, call.details(), name, data[:2000])
    return codes


def fuzz(plane, n, seed):
    pid, port = plane.pid("gateway-0"), plane.call("stats")["grpc_port"]
    memory_bytes = resident_bytes(pid)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for part in range(4):
            statuses = fuzz_http(plane, n * 3 // 16, seed + part)
            codes = fuzz_grpc(channel, n // 16, seed + part)
            assert statuses[200] > n // 400 and statuses[400] > n // 40, statuses  # neither all right nor all wrong
            assert codes["OK"] > n // 400 and codes["INVALID_ARGUMENT"] > n // 400, codes
            for _ in range(3):  # each time others: nobody's answer was kept for a wrong one
                assert plane.predict(["天气", "hello"])[1]["outputs"] == [{"label": "天", "score": 1 / 3}, {"label": "h", "score": 1 / 6}]
    until(lambda: all(p["waiting"] == p["in_flight"] == 0 for p in plane.call("stats")["pools"].values()), what="empty queues")
    until(lambda: plane.call("stats")["connections"] == 0, what="closed connections")
    assert plane.pid("gateway-0") == pid
    assert resident_bytes(pid) - memory_bytes < 200 << 20
    log = plane.log("gateway-0")
    assert "ERROR" not in log and "Traceback" not in log, log[-3000:]


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


@pytest.mark.parametrize(("n", "seed"), [(1000, 20_260), pytest.param(100_000, 1, marks=pytest.mark.slow)])
def test_wrong_requests_break_nothing(plane, n, seed):
    fuzz(plane, n, seed)
