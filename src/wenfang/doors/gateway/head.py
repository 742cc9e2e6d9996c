"""Request heads judged and response heads written: pure functions over headers and bytes."""

from __future__ import annotations

import email.utils
import re
import time
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from wenfang.core.errors import Invalid, WenfangError
from wenfang.core.ids import new_id

from .exchange import Request, Response

__all__ = ["HeadError", "check_head", "head_bytes", "head_of_stream"]

_ONCE = (b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"x-api-key", b"expect")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")
_STATUS_LINE = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_paths: dict[bytes, str] = {}


class HeadError(Exception):
    """Carries an error of ours out of a parser callback."""

    def __init__(self, error: WenfangError) -> None:
        super().__init__(error.code)
        self.error = error


def check_head(request: Request) -> int | None:
    """Fill in path, language and request id; refuse what could be read in two ways.

    Returns:
        The length of the body in bytes; None: chunked.

    Raises:
        Invalid: `gateway.bad-request`, `gateway.expectation-failed`.
    """
    headers = request.headers
    given = headers.get(b"x-request-id")
    request.request_id = given.decode("ascii") if given is not None and _REQUEST_ID.fullmatch(given) else new_id("rq")
    language = headers.get(b"accept-language")
    request.lang = "en" if language is None else language[:64].decode("latin-1")
    if len(headers) != len(request.raw_headers):
        _check_once(request)
    if request.version not in {"1.1", "1.0"}:
        raise Invalid("gateway.bad-request", reason="only HTTP/1.0 and HTTP/1.1 are spoken here")
    if b"host" not in headers and request.version == "1.1":
        raise Invalid("gateway.bad-request", reason="no Host header")
    expect = headers.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Invalid("gateway.expectation-failed")
    request.path = _decoded_path(request.target)
    encoding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if encoding is not None:
        if length is not None:
            raise Invalid("gateway.bad-request", reason="both Content-Length and Transfer-Encoding")
        if encoding.lower() != b"chunked" or request.version == "1.0":
            raise Invalid("gateway.bad-request", reason="a Transfer-Encoding other than chunked")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 18:
        raise Invalid("gateway.bad-request", reason="Content-Length is not a number")
    return int(length)


def _check_once(request: Request) -> None:
    names = [name for name, _ in request.raw_headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Invalid("gateway.bad-request", reason=f"header {name.decode()} stands twice")


def _decoded_path(target: bytes) -> str:
    path = _paths.get(target)
    if path is None:
        raw = target.partition(b"?")[0]
        if raw[:7].lower() == b"http://" or raw[:8].lower() == b"https://":
            raw = b"/" + raw.partition(b"://")[2].partition(b"/")[2]
        if not raw.startswith(b"/") or b"#" in target:
            raise Invalid("gateway.bad-request", reason="the request target is not a path")
        try:
            path = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError as e:
            raise Invalid("gateway.bad-request", reason="the path is not UTF-8") from e
        if "\0" in path:
            raise Invalid("gateway.bad-request", reason="NUL in the path")
        if len(target) < 256 and len(_paths) < 1024:
            _paths[target] = path
    return path


class _Date:
    """The Date header, made anew once a second."""

    at = -1
    line = b""


def _date() -> bytes:
    now = int(time.time())
    if now != _Date.at:
        _Date.at, _Date.line = now, b"date: " + email.utils.formatdate(now, usegmt=True).encode() + b"\r\n"
    return _Date.line


def head_bytes(response: Response, request: Request, *, close: bool) -> bytes:
    """Status line and headers of a whole answer."""
    extra = b"".join([b"%s: %s\r\n" % pair for pair in response.headers]) if response.headers else b""
    if request.traced is not None:
        extra += b"traceresponse: %s\r\n" % request.traced.trace.parent().encode()
    return b"%s%scontent-type: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\nx-content-type-options: nosniff\r\n%s%s\r\n" % (
        _STATUS_LINE[response.status],
        _date(),
        response.content_type,
        len(response.body),
        request.request_id.encode(),
        extra,
        b"connection: close\r\n" if close else b"",
    )


def head_of_stream(status: int, headers: list[tuple[bytes, bytes]], request: Request, *, length: int | None, chunked: bool, close: bool) -> bytes:
    """Status line and headers of an answer that follows in pieces."""
    lines = [_STATUS_LINE.get(status, b"HTTP/1.1 %d \r\n" % status), _date(), *(b"%s: %s\r\n" % pair for pair in headers)]
    if not any(name == b"x-request-id" for name, _ in headers):
        lines.append(b"x-request-id: %s\r\n" % request.request_id.encode())
    if request.traced is not None:
        lines.append(b"traceresponse: %s\r\n" % request.traced.trace.parent().encode())
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    if close:
        lines.append(b"connection: close\r\n")
    return b"".join([*lines, b"\r\n"])
