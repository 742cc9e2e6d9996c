"""Clients that mean harm, or only look like it: every one gets an answer or is cut off, and the others never notice."""

import json
import socket
import threading
import time
from contextlib import suppress

import pytest

from dataplane import KEY, DataPlane, answer_of, parsed, until

LIMITS = {
    "header_timeout_s": 1.0,
    "body_timeout_s": 1.0,
    "body_rate_min_bytes_s": 1000,
    "idle_timeout_s": 2.0,
    "body_max_bytes": 65_536,
    "upload_max_bytes": 100_000,
    "header_max_bytes": 8192,
    "connections_per_address": 200,
}


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(settings=LIMITS)
    yield plane
    assert plane.predict("a")[0] == 200  # whatever happened, the gateway still answers
    assert plane.runtime.processes()["gateway-0"]["starts"] == 1
    assert "Traceback" not in plane.log("gateway-0"), plane.log("gateway-0")
    plane.close()


BODY = b'{"inputs": ["a"]}'
HEAD = b"POST /predict/intent HTTP/1.1\r\nHost: x\r\nX-API-Key: " + KEY.encode() + b"\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def seconds_until_closed(sock, drip=b"", every_s=0.2, limit_s=10.0):
    """How long the server keeps a socket open that sends ``drip`` now and then, and what it said."""
    start, said = time.monotonic(), b""
    sock.settimeout(every_s)
    while time.monotonic() - start < limit_s:
        try:
            if drip:
                sock.sendall(drip)
            piece = sock.recv(65536)
            if not piece:
                break
            said += piece
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    sock.close()
    return time.monotonic() - start, parsed(said)


# ------------------------------------------------------------ slow ones
def test_a_client_that_says_nothing_is_closed_after_the_idle_time(plane):
    took, said = seconds_until_closed(plane.raw())
    assert 1.8 < took < 3.5
    assert said == []


@pytest.mark.parametrize("start", [b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A"])
def test_half_a_header_has_a_deadline(plane, start):
    took, said = seconds_until_closed(plane.raw(start))
    assert 0.8 < took < 2.5
    assert said[0][0] == 408


def test_half_a_header_behind_a_good_request_has_it_too(plane):
    took, said = seconds_until_closed(plane.raw(GOOD + b"GET /hea"))
    assert took < 2.5
    assert [a[0] for a in said] == [200, 408]


def test_a_dripped_header_has_the_same_deadline(plane):
    took, said = seconds_until_closed(plane.raw(b"GET /healthz HTTP/1.1\r\n"), b"X-A: b\r\n")
    assert took < 4
    assert said[0][0] == 408


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_a_slow_body_is_cut_off(plane, drip):
    took, said = seconds_until_closed(plane.raw(HEAD + b"Content-Length: 5000\r\n\r\n"), drip)
    assert 0.8 < took < 5
    assert said[0][0] == 408
    assert json.loads(said[0][2])["code"] == "gateway.slow-body"


def test_a_slow_upload_is_cut_off_too_and_a_steady_one_is_not(plane):
    class Control(threading.Thread):
        """Answers one request, slowly read, with the length of its body."""

        def run(self):
            self.server = socket.socket(socket.AF_UNIX)
            plane.home.control_socket.unlink(missing_ok=True)
            self.server.bind(str(plane.home.control_socket))
            self.server.listen()
            for _ in range(2):
                connection, _ = self.server.accept()
                data = b""
                while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < 8000:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    data += piece
                with suppress(BrokenPipeError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                connection.close()
            self.server.close()

    control = Control(daemon=True)
    control.start()
    until(plane.home.control_socket.exists)
    head = b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 8000\r\n\r\n"
    took, said = seconds_until_closed(plane.raw(head), b"x")
    assert took < 5
    assert [a[0] for a in said] == [408]
    steady = plane.raw(head)
    for _ in range(16):
        steady.sendall(b"x" * 500)
        time.sleep(0.15)
    steady.settimeout(5)
    assert steady.recv(1000).startswith(b"HTTP/1.1 200")
    steady.close()
    control.join(10)
    plane.home.control_socket.unlink()


def test_slow_clients_do_not_slow_the_good_ones(plane):
    slow = [plane.raw(b"POST /predict/intent HTTP/1.1\r\nHost: x\r\nX-Slow: ") for _ in range(120)]
    figures = plane.load(concurrency=4, seconds=0.5)
    assert set(figures["statuses"]) == {200}
    for sock in slow:
        sock.close()


# ------------------------------------------------------------ big ones
def test_big_headers_are_431(plane):
    for data in (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 2_000_000,
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(500)) + b"\r\n",
    ):
        answers = answer_of(sent(plane, data))
        assert [a[0] for a in answers] == [431], data[:60]
        assert answers[0][1][b"connection"] == b"close"


def sent(plane, data):
    sock = plane.raw()
    with suppress(BrokenPipeError, ConnectionResetError):  # it may be refused before all of it was sent
        sock.sendall(data)
    return sock


def test_big_bodies_are_refused_before_they_are_read(plane):
    sock = plane.raw(HEAD + b"Content-Length: 70000\r\n\r\n")  # not a byte of the body
    answers = parsed(sock.recv(65536))
    assert answers[0][0] == 413
    sock.close()
    answers = answer_of(sent(plane, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 30))
    assert [a[0] for a in answers] == [413]
    answers = answer_of(sent(plane, b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n"))
    assert [a[0] for a in answers] == [413]
    answers = answer_of(sent(plane, b"POST /predict/intent HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"))
    assert [a[0] for a in answers] == [401]


def test_framing_without_content_is_refused(plane):
    chunk = b"1;" + b"e" * 4000 + b"\r\nx\r\n"
    answers = answer_of(sent(plane, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 50))
    assert [a[0] for a in answers] == [400]
    trailers = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"t" * 100) for i in range(2000)) + b"\r\n"
    answers = answer_of(sent(plane, trailers))
    assert answers == [] or answers[0][0] in {400, 422}


# ------------------------------------------------------------ ambiguous ones
SMUGGLING = {
    "length and chunked": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "two equal lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n12345",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\n12345",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "signed length": HEAD + b"Content-Length: +5\r\n\r\n12345",
    "hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\n12345",
    "huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "almost chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "blank before colon": HEAD + b"Content-Length : 5\r\n\r\n12345",
    "folded header": HEAD + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "NUL in a header": HEAD + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "bare CR in a header": HEAD + b"X-A: b\rContent-Length: 50\r\nContent-Length: 0\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP 0.9": b"GET /healthz\r\n\r\n",
    "HTTP 2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP 9": b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "signed chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "chunk without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
    "huge chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    "bare LF after chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "NUL in the path": b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "path not UTF-8": b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_two_parsers_could_read_differently_is_400_and_closed(plane, name):
    """A request hidden behind the bad one must never be answered."""
    answers = answer_of(sent(plane, SMUGGLING[name] + GOOD))
    assert [a[0] for a in answers] == [400], (name, answers)
    assert answers[0][1][b"connection"] == b"close"


def test_unknown_expectations_are_417(plane):
    assert [a[0] for a in answer_of(plane.raw(HEAD + b"Expect: 200-maybe\r\nContent-Length: 1\r\n\r\nx"))] == [417]


# ------------------------------------------------------------ unusual but right
def test_pipelining_answers_in_order(plane):
    asked = [json.dumps({"inputs": [chr(97 + i) * (i + 1)]}).encode() for i in range(20)]
    stream = b"".join(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(b), b) for b in asked)
    stream += b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GOOD
    for size in (10**9, 7, 1):
        sock = plane.raw()
        for i in range(0, len(stream), size):
            sock.sendall(stream[i : i + size])
        answers = answer_of(sock)
        assert [a[0] for a in answers] == [200] * 21 + [503, 200]
        assert [json.loads(a[2])["outputs"][0]["label"] for a in answers[:20]] == [chr(97 + i) for i in range(20)]
        assert answers[-1][1][b"connection"] == b"close"


def test_an_error_behind_good_requests_comes_after_their_answers(plane):
    answers = answer_of(plane.raw(GOOD * 3 + b"BAD\r\n\r\n" + GOOD))
    assert [a[0] for a in answers] == [200, 200, 200, 400]


def test_keep_alive_and_close(plane):
    sock = plane.raw(GOOD)
    assert parsed(sock.recv(65536))[0][0] == 200
    sock.sendall(GOOD)
    assert parsed(sock.recv(65536))[0][0] == 200
    sock.sendall(GOOD.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    assert [a[0] for a in answer_of(sock)] == [200]
    assert [a[0] for a in answer_of(plane.raw(b"GET /healthz HTTP/1.0\r\n\r\n"))] == [200]


def test_chunked_bodies_and_100_continue(plane):
    chunked = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(p), p) for p in (BODY[:5], BODY[5:])) + b"0\r\nX-Trailer: t\r\n\r\n"
    answers = answer_of(plane.raw(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked))
    assert [a[0] for a in answers] == [200]
    sock = plane.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(BODY)
    assert parsed(sock.recv(65536))[0][0] == 200
    sock.close()
    sock = plane.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n")
    assert parsed(sock.recv(65536))[0][0] == 413  # and never 100
    sock.close()


def test_an_upgrade_is_ignored(plane):
    answers = answer_of(plane.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"))
    assert [a[0] for a in answers] == [200]


def test_a_half_closed_client_still_gets_its_answer(plane):
    sock = plane.raw(GOOD)
    sock.shutdown(socket.SHUT_WR)
    assert [a[0] for a in answer_of(sock)] == [200]


def test_a_half_closed_connection_is_closed_behind_its_last_answer():
    slow = DataPlane({"mv_slow": ("slow:1", "classification", 1, {"wait_ms": 300, "batch_max": 1})}, {"intent": ("pj_1", "mv_slow")}, {"idle_timeout_s": 60.0})
    try:
        sock = slow.raw(GOOD * 3, timeout_s=20)  # that is well before an idle connection's end
        sock.shutdown(socket.SHUT_WR)  # the last answer is far away when the gateway sees it
        assert [(a[0], a[1].get(b"connection")) for a in answer_of(sock)] == [(200, None), (200, None), (200, b"close")]
    finally:
        slow.close()


def test_clients_that_leave_cost_nothing(plane):
    for _ in range(50):
        plane.raw(GOOD).close()
        plane.raw(GOOD[:-3]).close()
    until(lambda: plane.call("stats")["pools"]["mv_first"]["waiting"] == 0)
    assert plane.predict("a")[0] == 200


def test_a_client_that_does_not_read_is_given_up(plane):
    sock = plane.raw()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(0.5)
    try:
        for _ in range(2000):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    except (TimeoutError, OSError):
        pass  # the gateway stopped reading: that is right
    assert plane.predict("a")[0] == 200
    sock.close()


def test_one_address_has_only_so_many_connections(plane):
    until(lambda: plane.call("stats")["connections"] < 5)
    held = [plane.raw() for _ in range(200)]
    until(lambda: plane.call("stats")["connections"] == 200)
    answers = answer_of(plane.raw(GOOD))
    assert [a[0] for a in answers] == [429]
    for sock in held:
        sock.close()
    until(lambda: plane.call("stats")["connections"] < 5)
    assert plane.predict("a")[0] == 200
