"""What every protocol plug-in promises; a new file in ``protocols/`` is found and tested by itself."""

import json

import pytest

from dataplane import AUDITOR, DataPlane
from wenfang.doors.gateway.protocols import protocols

NAMES = protocols.names()


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane()
    yield plane
    plane.close()


def test_no_two_protocols_own_a_path_and_none_owns_the_control_planes():
    owned = [segment for name in NAMES for segment in protocols.get(name).segments]
    assert len(owned) == len(set(owned))
    assert not set(owned) & {"", "api", "docs", "openapi.json", "console"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_open_needs_a_key_before_its_body_is_read(plane, name):
    for segment in protocols.get(name).segments:
        path = f"/{segment}/nothing-here"
        is_open = protocols.get(name).is_open(protocols.get(name).__new__(protocols.get(name)), path)
        sock = plane.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        if not is_open:
            assert sock.recv(1000).startswith(b"HTTP/1.1 401 ")
        sock.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nonsense_is_a_4xx_in_json_and_never_a_5xx(plane, name, method):
    for segment in protocols.get(name).segments:
        for path in (f"/{segment}", f"/{segment}/", f"/{segment}/a/b/c/d", f"/{segment}//", f"/{segment}/%E4%BD%A0", f"/{segment}/models/x/infer", f"/{segment}/..%2f"):
            for body in (b"", b"{}", b"[1", b"\xff"):
                status, _, text = plane.ask(method, path, body, {"Content-Type": "application/json"})
                assert status == 200 or 400 <= status < 500, (method, path, status)
                if status != 200:
                    json.loads(text)


@pytest.mark.parametrize("name", NAMES)
def test_errors_speak_the_readers_language(plane, name):
    segment = protocols.get(name).segments[0]
    for lang, chinese in (("zh-CN", True), ("en", False)):
        status, _, text = plane.ask("GET", f"/{segment}/nothing/here", None, {"Accept-Language": lang}, key=AUDITOR)
        assert status == 404
        assert any("\u4e00" <= c <= "\u9fff" for c in text.decode()) == chinese
