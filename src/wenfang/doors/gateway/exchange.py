"""One request and its answer as protocols see them, and the body while it comes. Knows nothing of sockets or parsing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from wenfang.serve.routing import Principal
    from wenfang.serve.tracing import Traced

__all__ = ["JSON", "Exchange", "Reader", "Request", "Response", "Streamed"]

JSON = b"application/json"


class Request:
    """What came in. ``path`` is decoded, ``target`` is as sent; header names are lower case."""

    __slots__ = ("body", "client", "headers", "lang", "long", "method", "path", "principal", "raw_headers", "request_id", "service", "started", "target", "traced", "version")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.path = ""
        self.version = "1.1"
        self.headers: dict[bytes, bytes] = {}
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.body: bytes = b""
        self.request_id = ""
        self.lang = "en"
        self.client = ""
        self.principal: Principal | None = None
        """None only on paths that need no key."""
        self.service = "-"
        """Set by the protocol once it is known to exist: a label of the metrics."""
        self.started = 0.0
        self.traced: Traced | None = None
        self.long = False
        """Answering takes long: a client that closes its side has left, and nobody wants the answer."""

    def __str__(self) -> str:
        """What a log calls it."""
        return self.request_id if self.traced is None else f"{self.request_id} of trace {self.traced.trace.trace_id}"


class Response:
    """What goes out at once."""

    __slots__ = ("body", "close", "content_type", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", content_type: bytes = JSON, headers: tuple[tuple[bytes, bytes], ...] = (), *, close: bool = False) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.close = close


class Streamed(Response):
    """What goes out in pieces, as they come; ``over`` is called at the end, or when the client has left."""

    __slots__ = ("over", "pieces")

    def __init__(self, pieces: AsyncGenerator[bytes], content_type: bytes, over: Callable[[], None]) -> None:
        super().__init__(200, b"", content_type)
        self.pieces = pieces
        self.over = over


class Reader(Protocol):
    """Whoever brings a body and may have paused."""

    def more_wanted(self) -> None:
        """There is room again."""
        ...


class Exchange:
    """A request on its connection, and its body while it comes."""

    __slots__ = (
        "_arrived",
        "begun",
        "body_max_bytes",
        "buffered",
        "chunks",
        "complete",
        "connection",
        "expects",
        "head_sent",
        "keep_alive",
        "protocol",
        "refusal",
        "request",
        "size",
        "streams",
        "wire",
    )

    def __init__(self, connection: Reader, request: Request) -> None:
        self.connection = connection
        self.request = request
        self.protocol: Any = None
        """Who answers; set by ``Site.admit``."""
        self.begun = False
        """It is being answered, or will be as soon as its body is complete."""
        self.streams = False
        self.keep_alive = True
        self.expects = False
        self.head_sent = False
        """Part of a streamed answer is out: nothing else may be said but an abort."""
        self.refusal: Response | None = None
        self.complete = False
        self.chunks: list[bytes] = []
        self.size = 0
        self.wire = 0
        self.buffered = 0
        self.body_max_bytes = 0
        self._arrived: asyncio.Event | None = None

    def arrived(self) -> None:
        """More of the body is here, or its end."""
        if self._arrived is not None:
            self._arrived.set()

    async def read(self) -> bytes:
        """The next piece of a streamed body; empty at its end."""
        while not self.chunks and not self.complete:
            self._arrived = asyncio.Event()
            await self._arrived.wait()
            self._arrived = None
        data = b"".join(self.chunks)
        self.chunks.clear()
        self.buffered = 0
        self.connection.more_wanted()
        return data
