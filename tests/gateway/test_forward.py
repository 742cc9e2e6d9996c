"""What goes on to the control process: streamed both ways, bounded, with the right headers, and without harm when control fails."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from dataplane import KEY, DataPlane, answer_of, parsed, until

SETTINGS = {"upload_max_bytes": 64 << 20, "body_max_bytes": 1 << 16}


class Control:
    """A real HTTP server behind the control socket: tells what it got, hashes uploads, streams, breaks off."""

    def __init__(self, path):
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        until(path.exists)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_unix_server(self._serve, self.path))
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
            await self._answer(method, target, headers, reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, method, target, headers, reader, writer):
        if target.startswith("/early"):  # answers without reading the body
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno")
            return
        digest, size = hashlib.sha256(), 0
        if headers.get("transfer-encoding") == "chunked":
            while n := int(await reader.readline(), 16):
                piece = await reader.readexactly(n)
                await reader.readexactly(2)
                digest.update(piece)
                size += n
        else:
            left = int(headers.get("content-length", 0))
            while left:
                piece = await reader.read(min(left, 1 << 16))
                if not piece:
                    return
                digest.update(piece)
                size, left = size + len(piece), left - len(piece)
        if target.startswith("/stream"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for i in range(5):
                writer.write(b"7\r\npiece%d\n\r\n" % i)
                await writer.drain()
                await asyncio.sleep(0.1)
            writer.write(b"0\r\n\r\n")
        elif target.startswith("/big"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n")
            for _ in range(512):
                writer.write(b"x" * 65536)
                await writer.drain()
        elif target.startswith("/until-close"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nall there is")
        elif target.startswith("/cut"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        elif target.startswith("/garbage"):
            writer.write(b"what?\r\n\r\n")
        elif target.startswith("/nothing"):
            writer.write(b"HTTP/1.1 204 No Content\r\nx-more: 1\r\n\r\n")
        else:
            body = json.dumps({"method": method, "target": target, "headers": headers, "sha256": digest.hexdigest(), "size": size}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body))
            if method != "HEAD":
                writer.write(body)


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(settings=SETTINGS)
    control = Control(plane.home.control_socket)
    yield plane
    assert "Traceback" not in plane.log("gateway-0"), plane.log("gateway-0")
    control.close()
    plane.close()


def test_what_control_sees(plane):
    status, headers, body = plane.ask(
        "GET", "/api/v1/projects?a=%E4%BD%A0&b=c", None, {"X-Wenfang-Forwarded": "forged", "Accept-Language": "zh", "Connection": "keep-alive", "TE": "trailers"}
    )
    seen = json.loads(body)
    assert status == 200
    assert seen["target"] == "/api/v1/projects?a=%E4%BD%A0&b=c"
    assert seen["headers"]["x-wenfang-forwarded"] == "127.0.0.1"
    assert seen["headers"]["authorization"] == f"Bearer {KEY}"
    assert seen["headers"]["accept-language"] == "zh"
    assert "te" not in seen["headers"]
    assert seen["headers"]["connection"] == "close"
    assert headers["x-request-id"] == seen["headers"]["x-request-id"]
    assert headers.get("connection") is None


@pytest.mark.parametrize("chunked", [False, True])
def test_uploads_stream_through_in_bounded_memory(plane, chunked):
    piece, n = os.urandom(1 << 20), 48
    expected = hashlib.sha256()
    for _ in range(n):
        expected.update(piece)
    pid = plane.pid("gateway-0")

    def peak_bytes():
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    before = peak_bytes()
    head = b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    sock = plane.raw(head + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % (n << 20)))
    for _ in range(n):
        sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        sock.sendall(b"0\r\n\r\n")
    answers = answer_of(sock)
    seen = json.loads(answers[0][2])
    assert (seen["size"], seen["sha256"]) == (n << 20, expected.hexdigest())
    assert peak_bytes() - before < 16 << 20


def test_answers_stream_through(plane):
    start = time.monotonic()
    sock = plane.raw(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    first = sock.recv(1000)
    while b"piece0" not in first:
        first += sock.recv(1000)
    assert time.monotonic() - start < 0.3
    rest = first
    while b"\r\n0\r\n\r\n" not in rest:
        rest += sock.recv(1000)
    assert b"transfer-encoding: chunked" in rest
    assert rest.count(b"piece") == 5
    sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # the connection is still good
    assert parsed(sock.recv(1000))[0][0] == 200
    sock.close()
    status, _, body = plane.ask("GET", "/big")
    assert (status, len(body)) == (200, 32 << 20)
    assert plane.ask("GET", "/until-close")[2] == b"all there is"
    assert plane.ask("HEAD", "/api/v1/x")[::2] == (200, b"")
    status, headers, _ = plane.ask("DELETE", "/nothing")
    assert (status, headers["x-more"]) == (204, "1")


def test_an_early_refusal_reaches_a_client_that_still_sends(plane):
    sock = plane.raw(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
    try:
        for _ in range(30):
            sock.sendall(b"x" * 1_000_000)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert [a[0] for a in answer_of(sock)] == [401]


def test_a_control_that_breaks_off_is_never_mistaken_for_a_whole_answer(plane):
    assert plane.ask("GET", "/garbage")[0] == 503
    sock = plane.raw(b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
    data = b""
    try:
        while piece := sock.recv(1000):
            data += piece
    except ConnectionResetError:
        pass
    sock.close()
    assert b"content-length: 100" in data
    assert data.endswith(b"half")


def test_clients_that_leave_in_the_middle(plane):
    for _ in range(20):
        sock = plane.raw(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(1000)
        sock.close()
        plane.raw(b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc").close()
    until(lambda: plane.call("stats")["connections"] <= 1)
    assert plane.get("/healthz")[0] == 200


def test_a_slow_reader_does_not_fill_the_memory(plane):
    pid = plane.pid("gateway-0")
    before = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    socks = []
    for _ in range(4):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.connect(("127.0.0.1", plane.port))
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        socks.append(sock)
    time.sleep(1.0)
    assert int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 - before < 24 << 20
    for sock in socks:
        sock.close()


def test_pipelined_forwards_keep_their_order(plane):
    stream = (
        b"".join(b"POST /api/v1/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" % i for i in range(6)) + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    answers = answer_of(plane.raw(stream))
    assert [json.loads(a[2]).get("target") for a in answers] == [*(f"/api/v1/{i}" for i in range(6)), None]


def test_sigterm_finishes_what_was_asked(plane):
    sock = plane.raw(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    data = sock.recv(1000)
    idle = plane.raw()
    os.kill(plane.pid("gateway-0"), signal.SIGTERM)
    while piece := sock.recv(1000):
        data += piece
    assert data.endswith(b"0\r\n\r\n")
    assert idle.recv(10) == b""
    sock.close()
    idle.close()
    until(lambda: plane.get("/readyz")[0] == 200)
