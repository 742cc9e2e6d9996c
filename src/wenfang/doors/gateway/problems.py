"""Errors as HTTP answers: RFC 9457 problem documents in the reader's language, and the status a code has on this door."""

from __future__ import annotations

import msgspec

from wenfang.core.errors import WenfangError

from .exchange import Request, Response

__all__ = ["problem", "status_of"]

_STATUS = {
    "serve.deadline-passed": 504,
    "serve.pool-closed": 503,
    "gateway.draining": 503,
    "gateway.control-away": 503,
    "gateway.control-silent": 504,
    "gateway.bad-request": 400,
    "gateway.headers-too-large": 431,
    "gateway.slow-headers": 408,
    "gateway.slow-body": 408,
    "gateway.body-too-large": 413,
    "gateway.expectation-failed": 417,
    "gateway.wrong-content-type": 415,
    "gateway.bad-encoding": 415,
    "gateway.method-not-allowed": 405,
}
"""Where HTTP has a finer word than the class of the error."""


def status_of(error: WenfangError) -> int:
    """The HTTP status of an error."""
    return _STATUS.get(error.code, error.status)


def headers_of(error: WenfangError, status: int) -> tuple[tuple[bytes, bytes], ...]:
    """``Retry-After``, ``WWW-Authenticate`` and ``Allow`` where they belong."""
    if "retry_after_s" in error.fields:
        return ((b"retry-after", str(max(1, round(error.fields["retry_after_s"] + 0.5))).encode()),)
    if status == 401:
        return ((b"www-authenticate", b"Bearer"),)
    if status == 405:
        return ((b"allow", error.fields["allowed"].encode()),)
    return ()


def problem(error: WenfangError, request: Request | None = None, *, close: bool = False) -> Response:
    """The RFC 9457 document of ``error`` in the language of ``request``."""
    status = status_of(error)
    document = error.problem(request.lang if request else "en", request.request_id if request else "")
    document["status"] = status
    return Response(status, msgspec.json.encode(document), b"application/problem+json", headers_of(error, status), close=close)
