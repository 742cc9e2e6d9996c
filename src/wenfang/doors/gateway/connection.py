# ruff: noqa: D102 the callbacks of asyncio and httptools are described by asyncio and httptools
"""One client connection: HTTP/1.1 in, answers out in order, and the guards no server library enforces today.

Deadlines for headers and idleness, a minimum rate for bodies, byte caps that hold before a body is read, and a refusal of every
shape two parsers could read differently. Knows nothing of what is asked; that is the ``Site``'s business.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Protocol, cast

import httptools

from wenfang.core.errors import Broken, Busy, Invalid, WenfangError
from wenfang.core.ids import new_id
from wenfang.core.settings import Serve

from .exchange import Exchange, Request, Response, Streamed
from .head import HeadError, check_head, head_bytes, head_of_stream
from .problems import problem

__all__ = ["Connection", "Site"]

HIGH_WATER_BYTES = 256 << 10
HEADERS_MAX = 128
LINGER_S = 2.0
CHUNK_OVERHEAD = 16
"""A chunked body may need this many bytes on the wire for each byte of content."""
IDLE, HEAD, BODY, WORK, LINGER, CLOSED = "idle", "head", "body", "work", "linger", "closed"
log = logging.getLogger("wenfang.gateway")


class Site(Protocol):
    """What a connection asks of the gateway."""

    limits: Serve
    draining: bool
    patient_until: float
    """Idle connections are not closed before, even while draining."""

    def admit(self, exchange: Exchange) -> None:
        """The headers are here: choose who answers, set ``body_max_bytes`` and ``streams``, check the key; raise to refuse."""
        ...

    async def answer(self, request: Request) -> Response:
        """Answer a request whose body is complete."""
        ...

    async def relay(self, exchange: Exchange, connection: Connection) -> None:
        """Answer a request whose body is read as it comes."""
        ...

    def opened(self, connection: Connection) -> bool:
        """Take note of a connection; False: its address has too many."""
        ...

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        ...

    def finished(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Count an answer."""
        ...

    def cut_off(self, code: str) -> None:
        """Count a connection a guard has ended."""
        ...


class Connection(asyncio.Protocol):
    """An asyncio protocol over httptools' parser.

    Args:
        site: the gateway.
        loop: its loop.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self.site = site
        self.loop = loop
        self.limits = site.limits
        self.address = ""
        self.state = IDLE
        self.transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._request = Request()
        self._head_bytes = 0
        self._incoming: Exchange | None = None
        """Its body is still coming."""
        self._queue: deque[Exchange] = deque()
        """In the order asked; the first is being answered."""
        self._task: asyncio.Task[None] | None = None
        self._since = loop.time()
        self._body_since = 0.0
        self._deaf = False
        """What still comes in is thrown away."""
        self._paused = False
        self._paused_at = 0.0
        self._writable: asyncio.Event | None = None
        self._stalled_at = 0.0

    @property
    def pending(self) -> int:
        """Requests begun and not yet answered."""
        return len(self._queue)

    # ------------------------------------------------------------ transport
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) and peer else "local"  # pyright: ignore[reportUnknownArgumentType]
        self._parser = httptools.HttpRequestParser(self)
        if not self.site.opened(self):
            self._refuse_all(Busy("gateway.too-many-connections", max=self.limits.connections_per_address, retry_after_s=1.0))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio names it
        self.state = CLOSED
        self.transport = None
        self._deaf = True
        self.site.closed(self)
        if self._task is not None:
            self._task.cancel()
        if self._writable is not None:
            self._writable.set()
        self._queue.clear()

    def eof_received(self) -> bool:
        """Half-closed: answers are still wanted when a whole request is here, unless they take long."""
        wanted = bool(self._queue) and not self._queue[0].request.long and self._incoming is None and self.state == WORK
        if wanted:
            self._queue[-1].keep_alive = False  # nothing more can come
        return wanted

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._stalled_at = self.loop.time()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def writable(self) -> None:
        """Wait until the client has read enough."""
        if self._writable is not None:
            await self._writable.wait()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.state == IDLE:
            self.state, self._since = HEAD, self.loop.time()
        incoming = self._incoming
        if incoming is not None:
            incoming.wire += len(data)
        else:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True
        except httptools.HttpParserError as e:
            if not self._deaf:
                self._broken(e)
            return
        if self._incoming is not None:
            if self._incoming.wire > CHUNK_OVERHEAD * self._incoming.size + self.limits.header_max_bytes:
                self._cut(self._incoming, Invalid("gateway.bad-request", reason="a body of almost nothing but framing"))
        elif self.state == HEAD and self._head_bytes > self.limits.header_max_bytes:
            self._refuse_all(Invalid("gateway.headers-too-large", max_bytes=self.limits.header_max_bytes))
        if len(self._queue) > 1 or (self._incoming is not None and self._incoming.buffered > HIGH_WATER_BYTES):
            self._pause()

    def _broken(self, e: Exception) -> None:
        cause = e.__context__
        if isinstance(cause, HeadError):
            error: WenfangError = cause.error
        elif isinstance(e, httptools.HttpParserCallbackError):
            log.error("a parser callback failed", exc_info=cause)
            error = Broken("gateway.failed", kind=type(cause).__name__)
        else:
            error = Invalid("gateway.bad-request", reason=str(e)[:120])
        if self._incoming is not None:
            self._cut(self._incoming, error)
        else:
            self._refuse_all(error)

    # ------------------------------------------------------------ parser
    def on_message_begin(self) -> None:
        self._request = Request()
        self._head_bytes = self._head_bytes or 1  # a head has begun, behind another request in the same piece of data
        if self.state not in {HEAD, WORK}:
            self.state, self._since = HEAD, self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._request.target += url
        if len(self._request.target) > self.limits.header_max_bytes:
            raise HeadError(Invalid("gateway.headers-too-large", max_bytes=self.limits.header_max_bytes))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming is not None:
            return  # a trailer: counted as framing, otherwise ignored
        request = self._request
        name = name.lower()
        request.raw_headers.append((name, value))
        if name in request.headers:
            request.headers[name] += b", " + value
        else:
            request.headers[name] = value
        if len(request.raw_headers) > HEADERS_MAX:
            raise HeadError(Invalid("gateway.headers-too-large", max_bytes=self.limits.header_max_bytes))

    def on_headers_complete(self) -> None:
        request, parser = self._request, self._parser
        if sum([len(n) + len(v) for n, v in request.raw_headers]) + 4 * len(request.raw_headers) + len(request.target) > self.limits.header_max_bytes:
            raise HeadError(Invalid("gateway.headers-too-large", max_bytes=self.limits.header_max_bytes))
        request.method = parser.get_method().decode("ascii")
        request.version = parser.get_http_version()
        request.client = self.address
        request.started = self._body_since = self.loop.time()
        exchange = self._incoming = Exchange(self, request)
        self._head_bytes = 0
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self.state = BODY
        try:
            length = check_head(request)
        except WenfangError as e:
            raise HeadError(e) from e
        upgrade = parser.should_upgrade()
        exchange.keep_alive = request.version == "1.1" and parser.should_keep_alive() and not self.site.draining and not upgrade
        try:
            if upgrade and length:
                raise Invalid("gateway.bad-request", reason="an upgrade with a body")  # noqa: TRY301
            self.site.admit(exchange)
            if length is not None and length > exchange.body_max_bytes:
                raise Invalid("gateway.body-too-large", max_bytes=exchange.body_max_bytes)  # noqa: TRY301
        except WenfangError as e:
            exchange.refusal = self._refusal(exchange, e)
            if length != 0:
                exchange.refusal.close = True
                self._deaf = True
        exchange.expects = length != 0 and request.headers.get(b"expect", b"").lower() == b"100-continue"
        if len(self._queue) == 1:
            self._begin(exchange)

    def on_body(self, body: bytes) -> None:
        exchange = self._incoming
        if exchange is None or self._deaf:
            return
        exchange.size += len(body)
        if exchange.size > exchange.body_max_bytes:
            self._cut(exchange, Invalid("gateway.body-too-large", max_bytes=exchange.body_max_bytes))
            return
        exchange.chunks.append(body)
        if exchange.streams:
            exchange.buffered += len(body)
            exchange.arrived()

    def on_message_complete(self) -> None:
        exchange, self._incoming = self._incoming, None
        if exchange is None:
            return
        exchange.complete = True
        if not exchange.keep_alive:
            self._deaf = True
        if exchange.streams:
            exchange.arrived()
        else:
            exchange.request.body = exchange.chunks[0] if len(exchange.chunks) == 1 else b"".join(exchange.chunks)
            exchange.chunks.clear()
        if exchange.begun:
            self.state = WORK
            if not exchange.streams and exchange.refusal is None:
                self._task = self.loop.create_task(self._answer(exchange))

    # ------------------------------------------------------------ answering
    def _begin(self, exchange: Exchange) -> None:
        """It is this request's turn."""
        exchange.begun = True
        self._body_since = self.loop.time()
        self.state = WORK if exchange.complete else BODY
        if exchange.refusal is not None:
            self.respond(exchange, exchange.refusal)
            return
        if exchange.expects and not exchange.complete and not exchange.size and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if exchange.streams:
            self._task = self.loop.create_task(self._relay(exchange))
        elif exchange.complete:
            self._task = self.loop.create_task(self._answer(exchange))

    async def _answer(self, exchange: Exchange) -> None:
        try:
            response = await self.site.answer(exchange.request)
            if isinstance(response, Streamed):
                await self._stream(exchange, response)
                return
        except WenfangError as e:
            response = self._refusal(exchange, e)
        except Exception as e:  # a fault of ours must be an answer, not a hang
            log.exception("request %s failed", exchange.request)
            response = self._refusal(exchange, Broken("gateway.failed", kind=type(e).__name__))
        if self._writable is not None:
            await self.writable()
        self.respond(exchange, response)

    async def _stream(self, exchange: Exchange, response: Streamed) -> None:
        """Pieces as they come, no faster than the client reads them. Errors after the head are the protocol's to tell; what it does not catch cuts the answer off."""
        headers = [(b"content-type", response.content_type), (b"cache-control", b"no-cache"), (b"x-content-type-options", b"nosniff")]
        try:
            chunked = self.start_stream(exchange, response.status, headers, None)
            async for piece in response.pieces:
                self.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                await self.writable()
            if chunked:
                self.write(b"0\r\n\r\n")
            self.end_stream(exchange, response.status)
        except ConnectionError as e:
            log.info("request %s: %s", exchange.request, e)
        finally:
            response.over()
            await response.pieces.aclose()

    async def _relay(self, exchange: Exchange) -> None:
        try:
            await self.site.relay(exchange, self)
        except WenfangError as e:
            self.respond(exchange, self._refusal(exchange, e))
        except (ConnectionError, EOFError) as e:  # half an answer is out: only an abort says so
            log.warning("request %s was cut: %s", exchange.request, e)
            self.abort()
        except Exception as e:  # a fault of ours must be an answer, not a hang
            log.exception("request %s failed", exchange.request)
            self.respond(exchange, self._refusal(exchange, Broken("gateway.failed", kind=type(e).__name__)))

    def _refusal(self, exchange: Exchange, e: WenfangError) -> Response:
        make = getattr(exchange.protocol, "problem", None)
        return make(e, exchange.request) if make is not None else problem(e, exchange.request)

    def respond(self, exchange: Exchange, response: Response) -> None:
        """Write a whole answer and go on to the next request."""
        if self.transport is None or self.transport.is_closing() or not self._queue or self._queue[0] is not exchange:
            return
        if exchange.head_sent:
            self.abort()
            return
        close = response.close or not exchange.keep_alive or not exchange.complete or self.site.draining
        head = head_bytes(response, exchange.request, close=close)
        self.transport.write(head if exchange.request.method == "HEAD" else head + response.body)
        self._done(exchange, response.status, close=close)

    def start_stream(self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], length: int | None) -> bool:
        """Write the head of an answer whose body follows in pieces; whether it must be sent in chunks (else as it is)."""
        chunked = length is None and exchange.request.version == "1.1" and exchange.request.method != "HEAD"
        if length is None and not chunked:
            exchange.keep_alive = False
        exchange.head_sent = True
        self.write(head_of_stream(status, headers, exchange.request, length=length, chunked=chunked, close=not exchange.keep_alive or not exchange.complete))
        return chunked

    def write(self, data: bytes) -> None:
        """Write a piece of a streamed answer.

        Raises:
            ConnectionError: the client has gone.
        """
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self.transport.write(data)

    def end_stream(self, exchange: Exchange, status: int) -> None:
        """The streamed answer is complete."""
        self._done(exchange, status, close=not exchange.keep_alive or not exchange.complete)

    def _done(self, exchange: Exchange, status: int, *, close: bool) -> None:
        now = self.loop.time()
        self.site.finished(exchange, status, now - exchange.request.started)
        if self.state == CLOSED:
            return
        self._queue.popleft()
        self._task = None
        self._since = now
        if close:
            self._linger()
        elif self._queue:
            self.loop.call_soon(self._begin_next, self._queue[0])
        else:
            self.state = HEAD if self._head_bytes else IDLE
            self.more_wanted()

    def _begin_next(self, exchange: Exchange) -> None:
        if self._queue and self._queue[0] is exchange and self.state not in {CLOSED, LINGER}:
            self._begin(exchange)
            self.more_wanted()

    # ------------------------------------------------------------ guards
    def _pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused, self._paused_at = True, self.loop.time()
            self.transport.pause_reading()

    def more_wanted(self) -> None:
        """Read on, if reading was paused and there is room again."""
        if self._paused and len(self._queue) <= 1 and self.transport is not None and self.state != CLOSED:
            self._paused = False
            self._body_since += self.loop.time() - self._paused_at  # our pause is not the client's slowness
            self.transport.resume_reading()

    def _cut(self, exchange: Exchange, error: WenfangError) -> None:
        """The body of ``exchange`` is refused while it comes."""
        self._deaf = True
        self.site.cut_off(error.code)
        exchange.refusal = self._refusal(exchange, error)
        exchange.refusal.close = True
        if self._queue and self._queue[0] is exchange:
            if self._task is not None:
                self._task.cancel()
            self.respond(exchange, exchange.refusal)

    def _refuse_all(self, error: WenfangError) -> None:
        """What comes in cannot be read any more: answer what was asked before, say why, close."""
        self._deaf = True
        self.site.cut_off(error.code)
        request = self._request
        request.started = self.loop.time()
        request.request_id = request.request_id or new_id("rq")
        exchange = Exchange(self, request)
        exchange.refusal = problem(error, request, close=True)
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self._begin(exchange)

    def check(self, now: float) -> None:
        """Called a few times a second: end what takes too long."""
        limits = self.limits
        if self.state == IDLE:
            if now - self._since > limits.idle_timeout_s or (self.site.draining and now >= self.site.patient_until):
                self.close()
        elif self.state == HEAD:
            if now - self._since > limits.header_timeout_s:
                self._refuse_all(Invalid("gateway.slow-headers", timeout_s=limits.header_timeout_s))
        elif self.state == BODY and not self._paused:
            elapsed, exchange = now - self._body_since, self._incoming
            if exchange is not None and elapsed > limits.body_timeout_s and exchange.size < limits.body_rate_min_bytes_s * elapsed:
                self._cut(exchange, Invalid("gateway.slow-body", rate_min_bytes_s=limits.body_rate_min_bytes_s))
        elif self.state == LINGER:
            if now - self._since > LINGER_S:
                self.abort()
        elif self._writable is not None and now - self._stalled_at > limits.idle_timeout_s:
            self.abort()  # asked, but does not read the answer

    def _linger(self) -> None:
        """Close so that the answer arrives: end our side, throw away what still comes, then hang up."""
        self._deaf = True
        self.state, self._since = LINGER, self.loop.time()
        self._queue.clear()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._paused:
            self._paused = False
            transport.resume_reading()
        if self._incoming is None and not self._head_bytes:
            transport.close()
        elif transport.can_write_eof():
            transport.write_eof()

    def close(self) -> None:
        """Close when everything written has gone out."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None:
            self.transport.abort()
