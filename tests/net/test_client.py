"""The HTTP client against a real server, and the breaker by its clock."""

import socket
import threading
import time

import pytest

from openai_server import KnownServer
from wenfang.core.errors import Broken, Busy, Denied, Invalid
from wenfang.net.breaker import Breaker
from wenfang.net.client import Client, check_address


@pytest.mark.parametrize("url", ["ftp://example.org", "/v1", "http://", "http://user:key@example.org/v1", "http://[::1/v1"])
def test_bad_addresses(url):
    with pytest.raises(Invalid, match=r"net\.bad-url"):
        check_address(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "localhost", "2130706433"])
def test_addresses_of_this_network_need_an_administrator(host):
    with pytest.raises(Denied, match=r"net\.address-refused"):
        check_address(f"http://{host}:8080/v1")
    check_address(f"http://{host}:8080/v1", private=True)


def test_the_breaker_opens_rests_longer_and_closes():
    now = [0.0]
    breaker = Breaker(3, 5.0, 12.0, clock=lambda: now[0])
    for _ in range(3):
        assert breaker.wait_s() == 0.0
        breaker.failed()
    assert breaker.wait_s() == 5.0
    now[0] = 5.0
    assert breaker.wait_s() == 0.0  # this one may try
    assert breaker.wait_s() == 5.0  # the others wait for it
    breaker.failed()
    assert breaker.wait_s() == 10.0
    now[0] = 16.0
    assert breaker.wait_s() == 0.0
    breaker.succeeded()
    assert breaker.wait_s() == 0.0


def test_what_may_succeed_later_is_tried_again_and_the_rest_is_not():
    server = KnownServer()
    client = Client(server.base_url, private=True, retries=2)
    body = {"messages": [{"role": "user", "content": "ab"}]}
    server.failing[:] = [503, 429]
    assert client.ask("POST", "/chat/completions", body)["choices"][0]["message"]["content"] == "ba"
    assert len(server.asked) == 3
    server.failing[:] = [401]
    with pytest.raises(Broken) as caught:
        client.ask("POST", "/chat/completions", body)
    assert (caught.value.code, caught.value.fields["got"], len(server.asked)) == ("net.refused", 401, 4)
    assert "secret" not in str(caught.value)
    server.failing[:] = [302]
    with pytest.raises(Broken):
        client.ask("POST", "/chat/completions", body)
    server.failing[:] = [500] * 3
    with pytest.raises(Busy, match=r"net\.overloaded"):
        client.ask("POST", "/chat/completions", body)
    client.close()
    server.close()


def test_a_dead_server_is_left_in_peace():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}/v1", private=True, retries=0)
    for _ in range(5):
        with pytest.raises(Busy, match=r"net\.unreachable"):
            client.ask("GET", "/models")
    with pytest.raises(Busy) as caught:
        client.ask("GET", "/models")
    assert caught.value.code == "net.resting"
    assert 0 < caught.value.fields["retry_after_s"] <= 5
    client.close()


@pytest.mark.parametrize("drip", [False, True])
def test_nobody_waits_beyond_the_end(drip):
    held = []

    def serve():
        sock, _ = listening.accept()
        held.append(sock)
        if drip:
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            for _ in range(100):
                try:
                    sock.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        client, begun = Client(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", private=True, timeout_s=30, retries=3), time.monotonic()
        with pytest.raises(Busy, match=r"net\.no-time"):
            client.ask("POST", "/x", {}, until=begun + 0.5)
        assert time.monotonic() - begun < 2.0
        client.close()
        thread.join()
        held[0].close()
