# ruff: noqa: D102 the callbacks of asyncio are described by asyncio
"""The connection to one replica: frames out and in, what is with it now, connecting again when it comes back. Knows nothing of queues."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import Any, Protocol, cast

import msgspec

from wenfang.core.frames import FRAME_MAX_BYTES, pack
from wenfang.core.places import read_place, tls

from .batching import Item
from .costs import CostCurve
from .figures import PoolFigures
from .tracing import Traced
from .wire import Answer, Ask, Cancel, Hello, Leaving, Piece

__all__ = ["Caller", "Link"]

RECONNECT_FIRST_S = 0.01
RECONNECT_MAX_S = 0.5
DIAL_TIMEOUT_S = 2.0
UNHEARD_S = 2.0
"""A machine whose kernel does not confirm what was sent for so long is gone; one that is only busy confirms."""
log = logging.getLogger("wenfang.pool")


class Caller(Protocol):
    """Whose connection it is."""

    version: str
    figures: PoolFigures
    loop: asyncio.AbstractEventLoop
    hello_decoder: msgspec.msgpack.Decoder[Hello]
    answer_decoder: msgspec.msgpack.Decoder[Answer | Piece | Leaving]
    limits: Any

    def replica_ready(self, replica: Link) -> None:
        """It said hello."""
        ...

    def replica_leaving(self, replica: Link) -> None:
        """It has a successor."""
        ...

    def replica_lost(self, replica: Link, batch: list[Item]) -> None:
        """The connection broke while these were with it."""
        ...

    def batch_answered(self, replica: Link, batch: list[Item], answer: Answer) -> None:
        """An answer is here."""
        ...

    def piece_arrived(self, batch: list[Item], piece: Piece, now: float) -> None:
        """A piece is here."""
        ...


@dataclass(slots=True)
class Sent:
    """A batch in flight."""

    batch: list[Item]
    writes: bool
    """It is generation."""
    traced: list[Traced | None]
    """Of its texts; empty: none is."""
    at: float
    cancelled: bool = False


class Link(asyncio.Protocol):
    """One connection to one replica; a batch in flight at most, or where texts join those that are being written, as many texts as it has slots.

    Args:
        pool: told what comes.
        path: of the replica's socket, or of the file that says on which machine it is; need not exist yet, and may be written anew.
    """

    def __init__(self, pool: Caller, path: str) -> None:
        self.pool = pool
        self.path = path
        self.transport: asyncio.Transport | None = None
        self.hello: Hello | None = None
        self.curve = CostCurve(0.0, 0.0, 1)
        self.sent: dict[int, Sent] = {}
        self.sent_at = 0.0
        """When the oldest batch went out, or the last sign of life."""
        self.busy_since = 0.0
        """When it had nothing, last."""
        self.answered = 0
        self._id = 0
        self._inbox = bytearray()
        self.closed = False
        self.leaving = False
        """It said so: it gets nothing new."""
        self.ended = asyncio.Event()

    # ------------------------------------------------------------ connecting
    async def stay_connected(self) -> None:
        """Connect again and again until the pool closes."""
        wait_s = RECONNECT_FIRST_S
        while not self.closed:
            self.ended.clear()
            try:
                await self._dial(asyncio.get_running_loop())
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(RECONNECT_MAX_S, wait_s * 1.5)
                continue
            await self.ended.wait()
            wait_s = RECONNECT_FIRST_S

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> None:
        place = read_place(self.path)
        if place is None:
            await loop.create_unix_connection(lambda: self, self.path)
            return
        context = tls(place.certificate, server=False) if place.certificate else None
        async with asyncio.timeout(DIAL_TIMEOUT_S):  # a machine that is gone refuses nothing
            await loop.create_connection(lambda: self, place.host, place.port, ssl=context, server_hostname="" if context else None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNHEARD_S))
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._inbox.clear()
        self.sent_at = self.pool.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio names it
        self.transport = None
        was_ready, self.hello = self.hello is not None, None
        batch = [item for sent in self.sent.values() for item in sent.batch]
        self.sent.clear()
        self.ended.set()
        if not self.closed and was_ready and not (self.leaving and not batch):
            self.pool.figures.lost += 1
        self.leaving = False
        self.pool.replica_lost(self, batch)

    # ------------------------------------------------------------ frames
    @property
    def in_flight(self) -> int:
        """Texts that are with it."""
        return sum(len(sent.batch) for sent in self.sent.values())

    @property
    def joins(self) -> bool:
        """Whether it takes texts one by one, while others are being written."""
        return self.hello is not None and self.hello.slots > 0

    @property
    def room(self) -> bool:
        """Whether it can take more; one that is at a text which was in a dying replica takes nothing beside it."""
        if self.hello is None or self.leaving or not self.sent:
            return self.hello is not None and not self.leaving
        return self.in_flight < self.hello.slots and not any(item.attempts for sent in self.sent.values() for item in sent.batch)

    def send(self, batch: list[Item]) -> None:
        """Give it a batch."""
        assert self.transport is not None
        self._id += 1
        now = self.pool.loop.time()
        if not self.sent:
            self.sent_at = self.busy_since = now
        self.pool.figures.waited([1000 * (now - item.ticket.started) for item in batch])
        first = batch[0].ticket
        pairs = [item.text_b for item in batch] if first.pairs else []
        ask = Ask(self._id, [item.text for item in batch], max([item.ticket.top_k for item in batch]), pairs)
        writes = first.options is not None
        traced = [item.ticket.traced for item in batch]
        if not any(traced):
            traced.clear()
        self.sent[self._id] = Sent(batch, writes, traced, now)
        if writes:
            ask = Ask(ask.id, ask.texts, 1, [], [item.ticket.options for item in batch], [i for i, item in enumerate(batch) if item.ticket.on_piece is not None])
        if traced:
            ask = msgspec.structs.replace(ask, traces=[None if t is None else t.trace for t in traced])
        self.transport.write(pack(ask))

    def cancel_unwanted(self) -> int:
        """Stop generations that nobody waits for any more; how many."""
        count = 0
        for number, sent in self.sent.items():
            if sent.writes and not sent.cancelled and self.transport is not None and all(item.ticket.over for item in sent.batch):
                sent.cancelled = True
                self.transport.write(pack(Cancel(number)))
                count += 1
        return count

    def data_received(self, data: bytes) -> None:
        inbox = self._inbox
        inbox += data
        while len(inbox) >= 4:
            size = int.from_bytes(inbox[:4], "big")
            if size > FRAME_MAX_BYTES:
                self.abort("frame too large")
                return
            if len(inbox) < 4 + size:
                return
            frame = bytes(inbox[4 : 4 + size])
            del inbox[: 4 + size]
            try:
                self._frame(frame)
            except msgspec.MsgspecError as e:
                self.abort(str(e))
                return

    def _frame(self, frame: bytes) -> None:
        if self.hello is None:
            hello = self.hello = self.pool.hello_decoder.decode(frame)
            self.curve = CostCurve(hello.item_ms, hello.fixed_ms, min(hello.batch_max, self.pool.limits.batch_max))
            self.pool.replica_ready(self)
            return
        answer = self.pool.answer_decoder.decode(frame)
        if isinstance(answer, Piece):
            sent = self.sent.get(answer.id)
            if sent is not None:
                self.sent_at = self.pool.loop.time()
                if 0 <= answer.index < len(sent.batch):
                    self.pool.piece_arrived(sent.batch, answer, self.sent_at)
            return
        if isinstance(answer, Leaving):
            self.leaving = True
            self.pool.replica_leaving(self)
            return
        sent = self.sent.get(answer.id)
        if sent is None or len(answer.outputs) != len(sent.batch):
            self.abort("an answer to another batch")
            return
        del self.sent[answer.id]
        self.sent_at = self.pool.loop.time()
        if not self.sent:
            self.pool.figures.busy_s += self.sent_at - self.busy_since
        self.answered += len(sent.batch)
        for traced, item in zip(sent.traced, sent.batch, strict=False):
            if traced is not None:
                traced.mark(item.ticket.started, sent.at, self.sent_at, answer.ms, len(sent.batch))
        self.pool.batch_answered(self, sent.batch, answer)

    def abort(self, reason: str) -> None:
        """Hang up; ``connection_lost`` follows and the batch is tried elsewhere."""
        if self.transport is not None:
            log.warning("replica %s of %s is given up: %s", self.path, self.pool.version, reason)
            self.transport.abort()

    def hang_up(self) -> None:
        """Connect again: to its successor."""
        if self.transport is not None:
            self.transport.close()

    def close(self) -> None:
        """Hang up for good."""
        self.closed = True
        self.ended.set()
        if self.transport is not None:
            self.transport.abort()
