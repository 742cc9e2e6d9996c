"""Replicas on ports: only holders of the same certificate enter, nobody who dawdles holds the others up, and one that moves is found again."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl

import pytest
from test_pool import Replicas, ask, run

from dataplane import spawn, until
from wenfang.core.errors import Broken
from wenfang.core.frames import recv_frame, send_frame
from wenfang.core.places import Place, connect, read_place, tls, write_place
from wenfang.guard.certificate import own_certificate
from wenfang.serve.pool import Limits, Pool


@pytest.fixture
def certificate(folder):
    (folder / "keys").mkdir()
    return str(own_certificate(folder / "keys"))


def on_port(replicas, name, certificate, **more):
    path = replicas.start(name, host="127.0.0.1", certificate=certificate, **more)
    until((replicas.folder / name).is_file)
    return path


def predicted(path, texts):
    with connect(path, 10.0) as sock:
        hello = recv_frame(sock)
        send_frame(sock, {"type": "ask", "id": 1, "texts": texts})
        return hello, [o["label"] for o in recv_frame(sock)["outputs"]]


def test_large_and_small_batches_over_an_encrypted_port(folder, certificate):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [on_port(replicas, "a", certificate), replicas.start("b")], Limits())  # a port and a socket side by side
            assert await pool.until_ready(20)
            until_both = asyncio.get_running_loop().time() + 20
            while pool.ready < 2 and asyncio.get_running_loop().time() < until_both:
                await asyncio.sleep(0.02)
            requests = [[f"{chr(97 + i % 26)}{'字' * (i * 7777 % 90_000)}" for i in range(n)] for n in (1, 3, 30, 1, 60, 2)]  # many TLS records a frame
            for texts, outputs in zip(requests, await asyncio.gather(*(ask(pool, t) for t in requests)), strict=True):
                assert [o.score for o in outputs] == [1 / (1 + len(t)) for t in texts]
            assert {r.answered > 0 for r in pool._replicas.values()} == {True}
            pool.close()

    run(scenario())


def test_who_has_another_certificate_or_none_is_turned_away(folder, certificate):
    (folder / "other").mkdir()
    other = str(own_certificate(folder / "other"))
    with Replicas(folder) as replicas:
        path = on_port(replicas, "a", certificate)
        place = read_place(path)
        for context in (tls(other, server=False), _anybody()):
            with socket.create_connection((place.host, place.port), 5) as sock, contextlib.suppress(OSError), context.wrap_socket(sock) as wrapped:
                assert wrapped.recv(100) == b""  # in TLS 1.3 the refusal comes with the first answer
        with socket.create_connection((place.host, place.port), 5) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(b"\x00\x00\x00\x05hello" * 100)
            while data := sock.recv(100):
                assert not data.startswith(b"\x00")  # an alert at most
        assert predicted(path, ["你好"])[1] == ["你"]
        write_place(folder / "imposter", Place(place.host, place.port, other))
        with pytest.raises((OSError, EOFError)):
            predicted(folder / "imposter", ["x"])


def _anybody():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_who_stands_in_the_door_holds_nobody_up(folder, certificate):
    with Replicas(folder) as replicas:
        path = on_port(replicas, "a", certificate)
        place = read_place(path)
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(socket.create_connection((place.host, place.port), 5)) for _ in range(100)]
            idle[0].sendall(b"\x16\x03\x01")  # a handshake that never goes on
            assert predicted(path, ["b"])[1] == ["b"]
            closed = 0
            for sock in idle:
                sock.settimeout(2.0)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    closed += sock.recv(1) == b""
                if closed:
                    break
            assert closed  # of too many, those on their way in are hung up on
            assert predicted(path, ["c"])[1] == ["c"]


def test_one_that_moved_is_found_again(folder, certificate):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [on_port(replicas, "a", certificate)], Limits())
            assert await pool.until_ready(20)
            before = read_place(folder / "a").port
            os.kill(replicas.children["a"].pid, signal.SIGKILL)
            waiting = [ask(pool, [c]) for c in "abc"]
            replicas.children["b"] = spawn("dataplane:replica", {"socket": str(folder / "b"), "host": "127.0.0.1", "certificate": certificate}, folder / "b.log")
            until((folder / "b").is_file)
            (folder / "b").rename(folder / "a")
            assert [o[0].label for o in await asyncio.gather(*waiting)] == ["a", "b", "c"]
            assert read_place(folder / "a").port != before
            pool.close()

    run(scenario())


def test_a_file_that_names_no_place_is_nobody(folder):
    (folder / "x").write_text("somewhere")
    with pytest.raises(OSError, match="names no place"):
        connect(folder / "x", 1.0)
    with pytest.raises(OSError, match="No such file"):
        connect(folder / "y", 1.0)


def test_the_certificate_is_made_once_and_is_nobody_elses_to_read(tmp_path):
    path = own_certificate(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert own_certificate(tmp_path).read_bytes() == before
    path.chmod(0o644)
    with pytest.raises(Broken) as caught:
        own_certificate(tmp_path)
    assert caught.value.code == "key.too-open"
