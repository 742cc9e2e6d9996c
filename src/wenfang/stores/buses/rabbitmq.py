"""RabbitMQ: durable queues, publisher confirms, one channel for each inbox. A queue that somebody made before (a quorum queue, say) is used as it is.

Only quorum queues count deliveries; of others it is known whether a message was handed out before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, ChannelNotFoundEntity, ChannelPreconditionFailed

from wenfang.core.errors import Broken, Invalid
from wenfang.core.home import Home
from wenfang.core.messages import Delivery, Message, checked_headers, checked_queue

from .base import CONNECT_TIMEOUT_S, BaseInbox, BusStore, address_of, reached

__all__ = ["RabbitBus"]

FAULTS = (AMQPError, ChannelInvalidStateError)
FIELDS = {"id": "message_id", "correlation-id": "correlation_id", "reply-to": "reply_to", "content-type": "content_type"}
"""Headers that AMQP has a property for."""
BODY_MAX_BYTES = 16 << 20


def _received(message: AbstractIncomingMessage) -> Delivery:
    headers = {name.lower(): str(value) for name, value in message.headers.items() if not name.startswith("x-") and isinstance(value, (str, int))}
    headers |= {name: str(value) for name, property_ in FIELDS.items() if (value := getattr(message, property_))}
    counted = message.headers.get("x-delivery-count")
    return Delivery(Message(message.body, headers), 1 + counted if isinstance(counted, int) else 1 + bool(message.redelivered), message)


class _Inbox(BaseInbox):
    """Takes from a channel whose broker-side window is the prefetch: nothing waits here that is not counted."""

    def __init__(self, channel: AbstractChannel, prefetch: int) -> None:
        super().__init__(prefetch)
        self._channel = channel
        self._here: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._tag = ""
        channel.close_callbacks.add(self._closed)

    async def begin(self, queue: str) -> None:
        """Have the broker send."""
        await self._channel.set_qos(prefetch_count=self.prefetch)
        self._tag = await (await self._channel.get_queue(queue, ensure=False)).consume(self._arrived)

    def _closed(self, *_: Any) -> None:
        self._here.put_nowait(None)

    async def _arrived(self, message: AbstractIncomingMessage) -> None:
        self._here.put_nowait(_received(message))

    async def _take(self, limit: int, wait_s: float) -> list[Delivery]:
        if self._channel.is_closed:
            raise Broken("bus.unreachable", bus="rabbitmq", reason="the channel is closed")
        taken: list[Delivery] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                first = await self._here.get()
                if first is None:
                    raise Broken("bus.unreachable", bus="rabbitmq", reason="the connection broke")
                taken.append(first)
        while len(taken) < limit and not self._here.empty():
            if (more := self._here.get_nowait()) is None:
                self._here.put_nowait(None)
                break
            taken.append(more)
        return taken

    async def _done(self, deliveries: list[Delivery]) -> None:
        with reached("rabbitmq", *FAULTS):
            for delivery in deliveries:
                await delivery.tag.ack()

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        with reached("rabbitmq", *FAULTS):
            for delivery in deliveries:
                await delivery.tag.nack(requeue=True)

    async def _close(self) -> None:
        """Closing the channel gives back whatever waits here."""
        with reached("rabbitmq", *FAULTS):
            await self._channel.close()


class RabbitBus(BusStore):
    """Queues of one virtual host."""

    form = "rabbitmq://user@host[:5672]/vhost"

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._sending: AbstractChannel | None = None
        self._known: set[str] = set()
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, url: str, home: Home) -> Self:  # noqa: ARG003 it is elsewhere
        """Connect; a connection that breaks is not mended behind our back."""
        address_of(url, scheme="rabbitmq", port=5672)
        with reached("rabbitmq", *FAULTS):
            return cls(await aio_pika.connect(urlsplit(url)._replace(scheme="amqp").geturl(), timeout=CONNECT_TIMEOUT_S))

    async def declare(self, queue: str) -> None:
        """Have a durable queue; one that is there stays as it is."""
        if checked_queue(queue) in self._known:
            return
        with reached("rabbitmq", *FAULTS):
            for passive in (True, False, True):  # there, or made by us, or made by somebody else in between
                channel = await self._connection.channel()
                try:
                    await channel.declare_queue(queue, passive=passive, durable=True)
                    break
                except (ChannelNotFoundEntity, ChannelPreconditionFailed):
                    continue
                finally:
                    await channel.close()
        self._known.add(queue)

    async def _channel(self) -> AbstractChannel:
        async with self._turn:
            if self._sending is None or self._sending.is_closed:
                self._sending = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            return self._sending

    async def send(self, queue: str, message: Message) -> None:
        """Publish, and wait for the broker's confirmation."""
        checked_headers(message)
        await self.declare(queue)
        if len(message.body) > BODY_MAX_BYTES:
            raise Invalid("bus.message-too-large", bus="rabbitmq", size_bytes=len(message.body), max_bytes=BODY_MAX_BYTES)
        fields: dict[str, Any] = {property_: message.headers[name] for name, property_ in FIELDS.items() if name in message.headers}
        rest: dict[str, Any] = {name: value for name, value in message.headers.items() if name not in FIELDS}
        sent = aio_pika.Message(message.body, headers=rest, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **fields)
        with reached("rabbitmq", *FAULTS):
            channel = await self._channel()
            await channel.default_exchange.publish(sent, routing_key=queue, mandatory=True)

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> BaseInbox:  # noqa: ARG002 the broker sees when a taker has gone
        """Take from a queue."""
        await self.declare(queue)
        with reached("rabbitmq", *FAULTS):
            inbox = _Inbox(await self._connection.channel(), prefetch)
            await inbox.begin(queue)
            return inbox

    async def depth(self, queue: str) -> int:
        """Messages that wait; RabbitMQ does not tell those that are out."""
        await self.declare(queue)
        with reached("rabbitmq", *FAULTS):
            channel = await self._connection.channel()
            try:
                return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0
            finally:
                await channel.close()

    async def drop(self, queue: str) -> None:
        """Delete the queue."""
        self._known.discard(checked_queue(queue))
        with reached("rabbitmq", *FAULTS):
            channel = await self._connection.channel()
            try:
                await channel.queue_delete(queue)
            finally:
                await channel.close()

    async def close(self) -> None:
        """Hang up."""
        with reached("rabbitmq", *FAULTS):
            await self._connection.close()
