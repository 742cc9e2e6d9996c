"""Frames between our own processes: four bytes of length (big endian), then msgpack. Never pickle.

One frame is one message. A frame above ``FRAME_MAX_BYTES`` is refused before it is read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import msgspec

from .errors import BY_STATUS, Broken, WenfangError

__all__ = ["FRAME_MAX_BYTES", "FrameClient", "from_error", "listening_socket", "pack", "raise_error", "read_frame", "recv_frame", "send_frame"]

FRAME_MAX_BYTES = 256 << 20
_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def pack(message: Any) -> bytes:
    """``message`` (plain Python values) as one frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def _checked(head: bytes) -> int:
    size = _LENGTH.unpack(head)[0]
    if size > FRAME_MAX_BYTES:
        raise Broken("process.frame-too-large", size_bytes=size, max_bytes=FRAME_MAX_BYTES)
    return size


def send_frame(sock: socket.socket, message: Any) -> None:
    """Send one frame on a blocking socket."""
    sock.sendall(pack(message))


def _exactly(sock: socket.socket, n: int) -> bytes:
    parts: list[bytes] = []
    while n:
        part = sock.recv(min(n, 1 << 20))
        if not part:
            raise EOFError("the other side closed the connection")
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def recv_frame(sock: socket.socket) -> Any:
    """Receive one frame from a blocking socket.

    Raises:
        EOFError: the other side has gone.
    """
    return _decoder.decode(_exactly(sock, _checked(_exactly(sock, 4))))


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """Receive one frame from an asyncio stream; ``asyncio.IncompleteReadError`` when the other side has gone."""
    return _decoder.decode(await reader.readexactly(_checked(await reader.readexactly(4))))


def listening_socket(path: Path) -> socket.socket:
    """A Unix socket that listens on ``path``; a stale one is replaced. The path appears only once somebody listens: nobody is refused."""
    draft = path.with_name(f"{path.name}~")
    draft.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(draft))
        sock.listen(128)
        draft.rename(path)
    except OSError:
        sock.close()
        raise
    return sock


def from_error(e: Exception) -> dict[str, Any]:
    """An error as a plain message for a frame."""
    if isinstance(e, WenfangError):
        return {"code": e.code, "status": e.status, "fields": e.fields}
    reason = (e.strerror if isinstance(e, OSError) else None) or "its log has the place"  # a foreign sentence may quote a text, and so may a path
    return {"code": "process.failed", "status": 500, "fields": {"kind": type(e).__name__, "reason": reason}}


def raise_error(message: dict[str, Any]) -> None:
    """Raise the error that ``from_error`` packed."""
    raise BY_STATUS.get(message["status"], Broken)(message["code"], **message["fields"])


class FrameClient:
    """One blocking connection to a Unix socket that answers each frame ``{"call", ...}`` by ``{"answer"}`` or ``{"error"}``.

    Args:
        path: the socket.
        timeout_s: for connecting and for each answer.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout_s)
        try:
            self._sock.connect(str(path))
        except OSError as e:
            self._sock.close()
            raise Broken("process.not-answering", socket=path.name, reason=e.strerror or str(e)) from e

    def call(self, name: str, **arguments: Any) -> Any:
        """Send one call and wait for its answer; the other side's error is raised here."""
        try:
            send_frame(self._sock, {"call": name, **arguments})
            reply = recv_frame(self._sock)
        except (OSError, EOFError) as e:
            raise Broken("process.not-answering", socket=self.path.name, reason=str(e)) from e
        if "error" in reply:
            raise_error(reply["error"])
        return reply["answer"]

    def close(self) -> None:
        """Hang up."""
        self._sock.close()
