"""NATS JetStream: a queue is a work-queue stream on disk, whose one consumer all takers share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import BadRequestError, NotFoundError

from wenfang.core.errors import Invalid
from wenfang.core.home import Home
from wenfang.core.messages import Delivery, Message, checked_headers, checked_queue

from .base import CONNECT_TIMEOUT_S, GROUP, BaseInbox, BusStore, address_of, reached

__all__ = ["NatsBus"]

MAX_OUT = 65_536
"""Messages of one queue that may be out with all takers together."""


def _stream(queue: str) -> str:
    """The name of a queue's stream: a dot may not stand in it, and ``~`` is in no queue's name."""
    return queue.replace(".", "~")


async def _silent(_: Exception) -> None:
    """The library would log every fault of a connection; whoever uses it is told anyway."""


class _Inbox(BaseInbox):
    def __init__(self, client: Client, pull: Any, prefetch: int) -> None:
        super().__init__(prefetch)
        self._client, self._pull = client, pull
        self._spare: list[Delivery] = []
        """The library may bring more than was asked for."""

    async def _take(self, limit: int, wait_s: float) -> list[Delivery]:
        if not self._spare:
            self._spare = await self._fetched(limit, wait_s)
        taken, self._spare = self._spare[:limit], self._spare[limit:]
        return taken

    async def _fetched(self, limit: int, wait_s: float) -> list[Delivery]:
        until = time.monotonic() + wait_s
        with reached("nats", NatsError):
            try:
                found = await self._pull.fetch(limit, timeout=max(wait_s, 0.01))
            except TimeoutError:
                if self._client.is_closed:
                    raise
                await asyncio.sleep(max(0.0, until - time.monotonic()))  # it says so at once when the server stops listening to us
                return []
        return [Delivery(Message(m.data, dict(m.headers or {})), m.metadata.num_delivered, m) for m in found]

    async def _done(self, deliveries: list[Delivery]) -> None:
        with reached("nats", NatsError):
            for delivery in deliveries:
                await delivery.tag.ack()

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        with reached("nats", NatsError):
            for delivery in deliveries:
                await delivery.tag.nak()

    async def _keep(self, deliveries: list[Delivery]) -> None:
        with reached("nats", NatsError):
            for delivery in deliveries:
                await delivery.tag.in_progress()

    async def _close(self) -> None:
        await self._give_back(self._spare)
        with reached("nats", NatsError):
            await self._pull.unsubscribe()
            await self._client.flush()


class NatsBus(BusStore):
    """Queues in JetStream."""

    form = "nats://host[:4222]"

    def __init__(self, client: Client) -> None:
        self._client = client
        self._streams: JetStreamContext = client.jetstream(timeout=CONNECT_TIMEOUT_S)
        self._known: set[str] = set()

    @classmethod
    async def connect(cls, url: str, home: Home) -> Self:  # noqa: ARG003 it is elsewhere
        """Connect; a connection that breaks is not mended behind our back."""
        host, port, parts = address_of(url, scheme="nats", port=4222)
        where = urlsplit(url)._replace(netloc=f"{parts.netloc.rpartition('@')[0]}{'@' if '@' in parts.netloc else ''}{f'[{host}]' if ':' in host else host}:{port}").geturl()
        with reached("nats", NatsError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                client = await nats.connect(servers=[where], allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0, error_cb=_silent, name="wenfang")
        return cls(client)

    async def declare(self, queue: str) -> None:
        """Have a stream that takes the subject, whoever made it."""
        if checked_queue(queue) in self._known:
            return
        with reached("nats", NatsError):
            try:
                await self._streams.find_stream_name_by_subject(queue)
            except NotFoundError:
                shape = StreamConfig(name=_stream(queue), subjects=[queue], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE)
                try:
                    await self._streams.add_stream(shape)
                except BadRequestError:  # somebody else was faster, with a shape of their own
                    await self._streams.find_stream_name_by_subject(queue)
        self._known.add(queue)

    async def send(self, queue: str, message: Message) -> None:
        """Publish, and wait for the stream's acknowledgement."""
        checked_headers(message)
        await self.declare(queue)
        if len(message.body) > self._client.max_payload - 4096:
            raise Invalid("bus.message-too-large", bus="nats", size_bytes=len(message.body), max_bytes=self._client.max_payload - 4096)
        with reached("nats", NatsError):
            try:
                await self._streams.publish(queue, message.body, headers=dict(message.headers) or None)
            except MaxPayloadError as e:
                raise Invalid("bus.message-too-large", bus="nats", size_bytes=len(message.body), max_bytes=self._client.max_payload) from e

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> BaseInbox:  # noqa: ARG002 takers of a queue have no names here
        """Take from a queue. What another life of this taker had comes again after its lease."""
        await self.declare(queue)
        shape = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=lease_s, max_deliver=-1, max_ack_pending=MAX_OUT)
        with reached("nats", NatsError):
            stream = await self._streams.find_stream_name_by_subject(queue)
            return _Inbox(self._client, await self._streams.pull_subscribe(queue, durable=GROUP, stream=stream, config=shape), prefetch)

    async def depth(self, queue: str) -> int:
        """Messages that are not done."""
        await self.declare(queue)
        with reached("nats", NatsError):
            stream = await self._streams.find_stream_name_by_subject(queue)
            try:
                taker = await self._streams.consumer_info(stream, GROUP)
            except NotFoundError:
                return (await self._streams.stream_info(stream)).state.messages
            return (taker.num_pending or 0) + (taker.num_ack_pending or 0)

    async def drop(self, queue: str) -> None:
        """Delete the queue's stream, if we made it."""
        self._known.discard(checked_queue(queue))
        with reached("nats", NatsError):
            try:
                await self._streams.delete_stream(_stream(queue))
            except NotFoundError:
                return

    async def close(self) -> None:
        """Hang up."""
        if not self._client.is_closed:
            await self._client.close()
