"""Everything that is not a hot path goes on to the control process over its Unix socket, streaming both ways with bounded memory.

Knows nothing of what is asked. When control is away, predictions go on and these requests are told when to come back.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path

import httptools

from wenfang.core.errors import Busy

from .connection import Connection
from .exchange import Exchange

__all__ = ["Forwarder"]

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
FORWARDED = b"x-wenfang-forwarded"
NOT_AS_IT_CAME = frozenset((FORWARDED, b"x-request-id", b"traceparent", b"tracestate"))
PIECE_BYTES = 256 << 10
CONNECT_AGAIN_S = 0.05
log = logging.getLogger("wenfang.gateway.forward")


class _Answer:
    """Collects what the parser of control's answer says."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.length: int | None = None
        self.pieces: list[bytes] = []
        self.head_done = False
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self.length = int(value)
        elif name not in HOP_BY_HOP and name != b"date":
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.done = True


class Forwarder:
    """Forwards one request over one connection of its own: control's load is people, not machines.

    Args:
        path: of the control process's socket.
        timeout_s: until its answer begins.
        patience_s: for a control process that is being started again.
    """

    def __init__(self, path: Path, timeout_s: float = 300.0, patience_s: float = 0.0) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self.patience_s = patience_s

    async def relay(self, exchange: Exchange, connection: Connection) -> None:
        """Send the request on, bring the answer back.

        Raises:
            Busy: `gateway.control-away`, `gateway.control-silent`.
            ConnectionError: control went away in the middle of its answer.
        """
        # A bare socket, not a stream: a stream that fails to write forgets what it has read, and so loses an answer
        # given before the whole request was read.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await self._connect(loop, sock)
            sending = loop.create_task(self._send(exchange, sock))
            try:
                await self._receive(exchange, connection, sock)
            except (OSError, EOFError, httptools.HttpParserError) as e:
                if exchange.head_sent:
                    raise ConnectionError("control went away in the middle of its answer") from e
                raise Busy("gateway.control-away", retry_after_s=2.0) from e
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending

    async def _connect(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Nothing has been sent yet: waiting loses nothing."""
        until = loop.time() + self.patience_s
        while True:
            try:
                await loop.sock_connect(sock, str(self.path))
                return
            except OSError as e:
                if loop.time() >= until:
                    raise Busy("gateway.control-away", retry_after_s=2.0) from e
            await asyncio.sleep(CONNECT_AGAIN_S)

    async def _send(self, exchange: Exchange, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        request = exchange.request
        chunked = b"transfer-encoding" in request.headers
        lines = [f"{request.method} ".encode(), request.target, b" HTTP/1.1\r\n"]
        for name, value in request.raw_headers:
            if name not in HOP_BY_HOP and name not in NOT_AS_IT_CAME:
                lines += [name, b": ", value, b"\r\n"]
        lines += [FORWARDED, b": ", request.client.encode(), b"\r\nx-request-id: ", request.request_id.encode(), b"\r\nconnection: close\r\n"]
        if request.traced is not None:
            lines += [f"{name}: {value}\r\n".encode() for name, value in request.traced.trace.headers().items()]
        lines.append(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n")
        try:
            await loop.sock_sendall(sock, b"".join(lines))
            while piece := await exchange.read():
                await loop.sock_sendall(sock, b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                await loop.sock_sendall(sock, b"0\r\n\r\n")
        except OSError as e:  # control may answer before it has read everything: its answer counts
            log.debug("control stopped reading request %s: %s", request, e)

    async def _receive(self, exchange: Exchange, connection: Connection, sock: socket.socket) -> None:
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        chunked, status = False, 0
        loop = asyncio.get_running_loop()
        while not answer.done:
            try:
                data = await asyncio.wait_for(loop.sock_recv(sock, PIECE_BYTES), self.timeout_s)
            except TimeoutError as e:
                if exchange.head_sent:
                    raise ConnectionError("control fell silent") from e
                raise Busy("gateway.control-silent", timeout_s=self.timeout_s, retry_after_s=10.0) from e
            if not data:
                if answer.head_done and answer.length is None:
                    break  # an answer that ends with its connection
                raise EOFError
            parser.feed_data(data)
            if answer.head_done and not exchange.head_sent:
                status = parser.get_status_code()
                chunked = connection.start_stream(exchange, status, answer.headers, 0 if status in {204, 304} else answer.length)
            if answer.pieces:
                await self._pass_on(connection, b"".join(answer.pieces), chunked=chunked)
                answer.pieces.clear()
            if exchange.request.method == "HEAD" and answer.head_done:
                break
        if chunked:
            connection.write(b"0\r\n\r\n")
        connection.end_stream(exchange, status)

    @staticmethod
    async def _pass_on(connection: Connection, piece: bytes, *, chunked: bool) -> None:
        connection.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        await connection.writable()
