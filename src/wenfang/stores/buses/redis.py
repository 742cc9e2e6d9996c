"""Redis streams: a queue is a stream with one consumer group; what is done is deleted, so a stream is as long as its queue.

A message survives what the server's own settings let it survive: with ``appendonly yes`` and ``appendfsync always`` every crash.
"""

from __future__ import annotations

import time
from typing import Any, Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError

from wenfang.core.errors import Invalid
from wenfang.core.home import Home
from wenfang.core.messages import Delivery, Message, checked_headers, checked_queue

from .base import CONNECT_TIMEOUT_S, GROUP, BaseInbox, BusStore, address_of, reached

__all__ = ["RedisBus"]

RETURNED = "returned"
"""Whoever gives a message back gives it to this consumer, from whom everybody takes."""
LONG_AGO_MS = 10**9
CLAIM_EVERY_S = 0.5
CONNECTIONS = 16
"""Who asks beyond them waits for one."""
BODY_MAX_BYTES = 64 << 20


def _received(id: bytes, fields: dict[bytes, bytes], times: int) -> Delivery:
    headers = {name.decode(): value.decode(errors="replace") for name, value in fields.items() if name != b"body"}
    return Delivery(Message(fields.get(b"body", b""), headers), times, id)


def _entries(found: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of our one stream, as either protocol of Redis shapes them."""
    entries: Any = next(iter(found.values())) if hasattr(found, "values") else found[0][1]
    return entries[0] if entries and isinstance(entries[0], list) else entries


class _Inbox(BaseInbox):
    def __init__(self, client: Redis, queue: str, name: str, prefetch: int, lease_s: float) -> None:
        super().__init__(prefetch)
        self._client: Any = client
        self._queue, self._name, self._lease_ms = queue, name, int(lease_s * 1000)
        self._looked = -CLAIM_EVERY_S

    async def release(self) -> None:
        """Have again what an earlier life of this name had taken."""
        with reached("redis", RedisError):
            while mine := await self._client.xpending_range(self._queue, GROUP, "-", "+", 1000, self._name):
                await self._return([one["message_id"] for one in mine])

    async def _return(self, ids: list[Any]) -> None:
        await self._client.xclaim(self._queue, GROUP, RETURNED, 0, ids, idle=LONG_AGO_MS, justid=True)

    async def _take(self, limit: int, wait_s: float) -> list[Delivery]:
        end = time.monotonic() + wait_s
        with reached("redis", RedisError):
            while True:
                if time.monotonic() - self._looked >= CLAIM_EVERY_S:
                    if claimed := await self._claimed(limit):
                        return claimed
                    self._looked = time.monotonic()
                left = min(end - time.monotonic(), CLAIM_EVERY_S)
                found = await self._client.xreadgroup(GROUP, self._name, {self._queue: ">"}, count=limit, block=max(1, int(left * 1000)))
                if found:
                    return [_received(id, fields, 1) for id, fields in _entries(found)]
                if time.monotonic() >= end:
                    return []

    async def _claimed(self, limit: int) -> list[Delivery]:
        """Messages that nobody kept in time, or that were given back."""
        _, entries, *_ = await self._client.xautoclaim(self._queue, GROUP, self._name, self._lease_ms, "0-0", count=limit)
        taken: list[Delivery] = []
        for id, fields in entries:
            ((counted),) = await self._client.xpending_range(self._queue, GROUP, id, id, 1)
            taken.append(_received(id, fields, counted["times_delivered"]))
        return taken

    async def _done(self, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        ids = [d.tag for d in deliveries]
        with reached("redis", RedisError):
            async with self._client.pipeline(transaction=True) as together:
                together.xack(self._queue, GROUP, *ids)
                together.xdel(self._queue, *ids)
                await together.execute()

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            with reached("redis", RedisError):
                await self._return([d.tag for d in deliveries])

    async def _keep(self, deliveries: list[Delivery]) -> None:
        with reached("redis", RedisError):
            await self._client.xclaim(self._queue, GROUP, self._name, 0, [d.tag for d in deliveries], idle=0, justid=True)


class RedisBus(BusStore):
    """Queues as streams of one database."""

    form = "redis://host[:6379]/0"

    def __init__(self, client: Redis) -> None:
        self._client: Any = client
        self._known: set[str] = set()

    @classmethod
    async def connect(cls, url: str, home: Home) -> Self:  # noqa: ARG003 it is elsewhere
        """Connect."""
        address_of(url, scheme="redis", port=6379)
        try:
            pool: Any = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=30.0, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=30.0)
            client: Any = Redis.from_pool(pool)
        except ValueError as e:
            raise Invalid("bus.bad-url", url="redis:…", known=cls.form) from e
        with reached("redis", RedisError):
            try:
                await client.ping()
            except BaseException:
                await client.aclose()
                raise
        return cls(client)

    async def declare(self, queue: str) -> None:
        """Have the stream and its group."""
        if checked_queue(queue) in self._known:
            return
        with reached("redis", RedisError):
            try:
                await self._client.xgroup_create(queue, GROUP, id="0", mkstream=True)
            except ResponseError as e:
                if not str(e).startswith("BUSYGROUP"):
                    raise
        self._known.add(queue)

    async def send(self, queue: str, message: Message) -> None:
        """Add to the stream."""
        checked_headers(message)
        await self.declare(queue)
        if len(message.body) > BODY_MAX_BYTES:
            raise Invalid("bus.message-too-large", bus="redis", size_bytes=len(message.body), max_bytes=BODY_MAX_BYTES)
        with reached("redis", RedisError):
            await self._client.xadd(queue, {"body": message.body, **message.headers})

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> BaseInbox:
        """Take from a queue."""
        self._known.discard(queue)  # a server that lost it has it again
        await self.declare(queue)
        inbox = _Inbox(self._client, queue, name, prefetch, lease_s)
        await inbox.release()
        return inbox

    async def depth(self, queue: str) -> int:
        """Messages that are not done."""
        checked_queue(queue)
        with reached("redis", RedisError):
            return await self._client.xlen(queue)

    async def drop(self, queue: str) -> None:
        """Delete the stream."""
        self._known.discard(checked_queue(queue))
        with reached("redis", RedisError):
            await self._client.delete(queue)

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()
