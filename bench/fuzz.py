"""Requests that are wrong in every way a raw socket allows: ``python -m bench.fuzz [REQUESTS] [SEED]``. Gate: no 5xx but the designed ones, no crash, no hang.

Real requests of every protocol over HTTP are cut, spliced, repeated, misframed and filled with what parsers stumble over. Each goes out
on a connection of its own, whose sending side is then closed: the gateway must answer or close. Afterwards it is the same process, it
answers right, nothing waits in it, its log tells of no fault. The full run is 1000000.
"""

import asyncio
import gzip
import json
import os
import random
import re
import sys
import time

import uvloop

from bench._gateway import KEY, World

AT_ONCE = 48
PATIENCE_S = 15.0
DESIGNED = {501, 503, 504}
"""Not built, no replica, deadline: said on purpose."""
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
NUMBERS = [b"-1", b"0", b"1", b"1e400", b"-0.0", b"NaN", b"Infinity", b"4294967296", b"9223372036854775808", b"1" * 400, b"0x10", b"\xef\xbc\x91"]
WORDS = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b"[" * 600,
    b'{"a":' * 600,
    b"\xff\xfe",
    b"\x00",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\t",
    b"%00",
    b"%2f",
    b"..",
    b"//",
    "文".encode(),
    b",",
    b":",
    b" ",
]
HEADERS = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: xchunked", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1e3",
    b"Content-Length: 99999999999999999999", b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Encoding: gzip, gzip", b"Expect: 100-continue", b"Expect: tea", b"Connection: close",
    b"Connection: upgrade", b"Upgrade: h2c", b"Host: ", b"Host: a, b", b"Content-Type: text/plain", b"Content-Type: application/json; charset=gbk", b"X-Priority: batch", b"X-Priority: \xff",
    b"Inference-Header-Content-Length: 7", b"Cache-Control: no-cache", b"Traceparent: 00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"Accept-Language: \xe6\x96\x87", b" folded: 1", b"no colon", b": empty",
    b"X: " + b"y" * 9000, b"X-Request-Id: \x01", b"Authorization: Bearer ", b"Authorization: Basic " + b"A" * 300,
]  # fmt: skip


def seeds():
    """Requests that are right."""
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["今天"]}
    posts = [
        ("/predict/bench", {"inputs": ["今天天气很好"]}),
        ("/predict/bench", {"inputs": [{"text": "a"}, "b"], "parameters": {"top_k": 3}}),
        ("/predict/bench", {"inputs": "a", "stream": True}),
        ("/predict/bench", {"inputs": [{"text": "a", "text_b": "b"}, {"messages": [{"role": "user", "content": "你好"}]}]}),
        (
            "/v2/models/bench/infer",
            {"id": "1", "inputs": [text], "parameters": {"timeout": 100, "priority": 2}, "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
        ),
        ("/v2/models/bench/versions/1/infer", {"inputs": [text], "parameters": {"binary_data_output": True}}),
        ("/v2/repository/index", {"ready": True}),
        ("/v2/repository/models/bench/load", {}),
        ("/v1/chat/completions", {"model": "bench", "messages": [{"role": "user", "content": "你好"}], "stream": True, "max_tokens": 5, "temperature": 0.5, "stop": ["a"]}),
        ("/v1/completions", {"model": "bench", "prompt": ["a", "b"], "n": 1, "logprobs": 1}),
        ("/v1/embeddings", {"model": "bench", "input": "a", "encoding_format": "base64"}),
    ]
    gets = [
        "/predict/bench/openapi.json",
        "/v2",
        "/v2/models",
        "/v2/models/bench",
        "/v2/models/bench/config",
        "/v2/models/stats",
        "/v2/health/ready",
        "/v1/models",
        "/v1/models/bench",
        "/healthz",
        "/readyz",
        "/metrics",
    ]
    key = f"X-API-Key: {KEY}\r\n".encode()
    found = [b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path.encode(), key) for path in gets]
    for path, document in posts:
        body = json.dumps(document, ensure_ascii=False).encode()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n" % (path.encode(), key)
        found += [head + b"Content-Length: %d\r\n\r\n" % len(body) + body, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"]
        packed = gzip.compress(body, 1, mtime=0)
        found.append(head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    return found


def wrong(rng, data, others):
    """``data`` with one to five changes; mostly framed anew, so that what is behind the framing meets them too."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" not in head and body and rng.random() < 0.6:
        body = changed(rng, body, others)
        head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
        return head + b"\r\n\r\n" + body
    if rng.random() < 0.3:
        lines = head.split(b"\r\n")
        lines.insert(rng.randint(0, len(lines)), rng.choice(HEADERS))
        data = b"\r\n".join(lines) + b"\r\n\r\n" + body
        return data if rng.random() < 0.5 else changed(rng, data, others)
    if rng.random() < 0.1:
        return b"".join(rng.choices(others, k=rng.randint(2, 6)))
    return changed(rng, data, others)


def changed(rng, data, others):
    """``data`` with one to five changes anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 8, 40)))
        match rng.randrange(9):
            case 0:
                data = data[:at] + rng.randbytes(end - at) + data[end:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + data[at:end] * rng.choice((2, 3, 100)) + data[end:]
            case 3 | 4:
                data = data[:at] + rng.choice(WORDS) + data[at:]
            case 5:
                found = rng.choice([*re.finditer(rb"\d+", data)] or [None])
                data = data if found is None else data[: found.start()] + rng.choice(NUMBERS) + data[found.end() :]
            case 6:
                found = rng.choice([*re.finditer(rb'"[^"]*"|\[[^\]]*\]', data)] or [None])
                data = data if found is None else data[: found.start()] + rng.choice(WORDS + NUMBERS) + data[found.end() :]
            case 7:
                other = rng.choice(others)
                data = data[:at] + other[rng.randrange(len(other)) :]
            case _:
                data = data[:at]
    return data


class _Asker(asyncio.Protocol):
    def __init__(self, data, closed):
        self.data, self.closed, self.heard = data, closed, bytearray()

    def connection_made(self, transport):
        transport.write(self.data)
        transport.write_eof()

    def data_received(self, data):
        self.heard += data

    def connection_lost(self, exc):
        if not self.closed.done():
            self.closed.set_result(None)


async def _fuzz(port, n, seed, found):
    loop, rng, right = asyncio.get_running_loop(), random.Random(seed), seeds()
    left = iter(range(n))

    async def worker():
        for _ in left:
            data = wrong(rng, rng.choice(right), right)
            closed = loop.create_future()
            try:
                transport, asker = await loop.create_connection(lambda data=data, closed=closed: _Asker(data, closed), "127.0.0.1", port)
                await asyncio.wait_for(closed, PATIENCE_S)
            except TimeoutError:
                found["hung"].append(data)
                transport.abort()
                continue
            except OSError as e:
                found["refused"][type(e).__name__] = found["refused"].get(type(e).__name__, 0) + 1
                continue
            statuses = [int(s) for s in _STATUS.findall(bytes(asker.heard))]
            for status in statuses or [0]:
                found["statuses"][status] = found["statuses"].get(status, 0) + 1
                if status >= 500 and status not in DESIGNED:
                    found["broken"].append((status, data, bytes(asker.heard[:500])))

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


def main(requests=20_000, seed=1):
    found = {"statuses": {}, "broken": [], "hung": [], "refused": {}}
    settings = {"header_timeout_s": 3.0, "body_timeout_s": 3.0, "cache_bytes": 1 << 20, "connections_per_address": 4096}
    with World("echo", 2, settings) as world:
        begun, pids = world.memory_bytes(), [c.pid for c in (world.gateway, *world.replicas)]
        start = time.perf_counter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for part in range(10):
                runner.run(_fuzz(world.port, requests // 10, seed * 1000 + part, found))
                print(f"{(part + 1) * (requests // 10):9} sent, {time.perf_counter() - start:6.0f} s, {world.memory_bytes() / 1e6:.0f} MB", flush=True)
        seconds = time.perf_counter() - start
        until = time.perf_counter() + 10.0
        while world.stats()["connections"] and time.perf_counter() < until:
            time.sleep(0.1)
        stats, alive = world.stats(), all(_alive(pid) for pid in pids)
        log = (world.root / "gateway.log").read_text(encoding="utf-8", errors="replace")
        grown = world.memory_bytes() - begun
    faults = [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
    idle = all(p["waiting"] == p["in_flight"] == 0 for p in stats["pools"].values())
    print(f"{requests} requests in {seconds:.0f} s = {requests / seconds:.0f}/s; answers {dict(sorted(found['statuses'].items()))} (0: closed without one)")
    print(
        f"refused connections {found['refused']}, hung {len(found['hung'])}, undesigned 5xx {len(found['broken'])}, same processes {alive}, idle {idle}, connections {stats['connections']}"
    )
    print(f"memory {grown / 1e6:+.1f} MB, faults in the log {len(faults)}")
    for status, data, heard in found["broken"][:5]:
        print(f"  {status}: {data[:300]!r}\n       {heard[:300]!r}")
    for data in found["hung"][:5]:
        print(f"  hung: {data[:300]!r}")
    if found["broken"] or found["hung"] or faults or stats["connections"] or not alive or not idle:
        print("\n".join(faults[:10]))
        raise SystemExit("not all was refused as it should be")


def _alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
