"""Compressed bodies of requests, made plain within the cap that holds for plain ones."""

from __future__ import annotations

import zlib

from wenfang.core.errors import Invalid

__all__ = ["inflated"]

_WINDOW = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def inflated(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """The body behind its ``Content-Encoding``.

    Args:
        body: as it came.
        encoding: value of the header.
        max_bytes: cap of the plain body: a bomb costs no more memory than that.

    Raises:
        Invalid: `gateway.bad-encoding`, `gateway.body-too-large`.

    >>> inflated(zlib.compress("文房".encode()), b"deflate", 100).decode()
    '文房'
    """
    name = encoding.strip().lower()
    if name in {b"identity", b""}:
        return body
    if name not in _WINDOW:
        raise Invalid("gateway.bad-encoding", got=encoding[:40].decode("latin-1"), reason="not known here")
    machine = zlib.decompressobj(_WINDOW[name])
    try:
        plain = machine.decompress(body, max_bytes + 1)
    except zlib.error as e:
        raise Invalid("gateway.bad-encoding", got=name.decode(), reason="damaged") from e
    if len(plain) > max_bytes:
        raise Invalid("gateway.body-too-large", max_bytes=max_bytes)
    if not machine.eof or machine.unused_data:
        raise Invalid("gateway.bad-encoding", got=name.decode(), reason="cut off, or followed by something else")
    return plain
