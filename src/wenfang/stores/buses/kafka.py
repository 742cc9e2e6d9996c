"""Kafka: a queue is a topic, its takers one consumer group; offsets are committed up to the first message that is not done.

Kafka counts no deliveries and hands a partition to one taker, so takers beyond the number of partitions wait.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from wenfang.core.errors import Invalid
from wenfang.core.home import Home
from wenfang.core.messages import Delivery, Message, checked_headers, checked_queue

from .base import CONNECT_TIMEOUT_S, GROUP, BaseInbox, BusStore, address_of, reached

__all__ = ["KafkaBus"]

BODY_MAX_BYTES = 1_000_000
Place = tuple[TopicPartition, int]


class _Inbox(BaseInbox):
    def __init__(self, consumer: Any, prefetch: int) -> None:
        super().__init__(prefetch)
        self._consumer = consumer
        self._open: dict[TopicPartition, dict[int, bool]] = {}
        """By partition: offsets taken and not committed, in order, and whether each is done."""
        self._again: deque[Delivery] = deque()

    def forget(self, partitions: Any) -> None:
        """Others have these partitions now: what we had of them is theirs."""
        for partition in partitions:
            self._open.pop(partition, None)
        self._again = deque(d for d in self._again if d.tag[0] in self._open)

    async def _take(self, limit: int, wait_s: float) -> list[Delivery]:
        taken: list[Delivery] = []
        while self._again and len(taken) < limit:
            taken.append(self._again.popleft())
        if taken:
            return taken
        with reached("kafka", KafkaError):
            found = await self._consumer.getmany(timeout_ms=int(wait_s * 1000), max_records=limit)
        for partition, records in found.items():
            for record in records:
                self._open.setdefault(partition, {})[record.offset] = False
                headers = {name.lower(): value.decode(errors="replace") for name, value in record.headers}
                taken.append(Delivery(Message(record.value or b"", headers), 0, (partition, record.offset)))
        return taken

    async def _done(self, deliveries: list[Delivery]) -> None:
        offsets: dict[TopicPartition, int] = {}
        for delivery in deliveries:
            partition, offset = delivery.tag
            if partition in self._open and offset in self._open[partition]:
                self._open[partition][offset] = True
        for partition, marks in self._open.items():
            while marks and marks[first := next(iter(marks))]:
                del marks[first]
                offsets[partition] = first + 1
        if offsets:
            with reached("kafka", KafkaError):
                await self._consumer.commit(offsets)

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        self._again.extend(Delivery(d.message, d.times, d.tag) for d in deliveries if d.tag[0] in self._open)

    async def _close(self) -> None:
        """What is not committed comes again."""
        with reached("kafka", KafkaError):
            await self._consumer.stop()


class _Follow(ConsumerRebalanceListener):
    def __init__(self) -> None:
        self.inbox: _Inbox | None = None

    async def on_partitions_revoked(self, revoked: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] either is welcome
        """Let go."""
        if self.inbox is not None:
            self.inbox.forget(revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Nothing to prepare."""


class KafkaBus(BusStore):
    """Queues as topics."""

    form = "kafka://host[:9092]"

    def __init__(self, servers: str, producer: Any, admin: Any) -> None:
        self._servers, self._producer, self._admin = servers, producer, admin
        self._known: set[str] = set()

    @classmethod
    async def connect(cls, url: str, home: Home) -> Self:  # noqa: ARG003 it is elsewhere
        """Connect, without a password: brokers that want one are not supported yet."""
        host, port, _ = address_of(url, scheme="kafka", port=9092)
        servers = f"{host}:{port}"
        timeout_ms = int(CONNECT_TIMEOUT_S * 1000)
        producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True, request_timeout_ms=timeout_ms)
        admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=timeout_ms)
        with reached("kafka", KafkaError):
            try:
                await producer.start()
                await admin.start()
            except BaseException:
                await producer.stop()
                await admin.close()
                raise
        return cls(servers, producer, admin)

    async def declare(self, queue: str) -> None:
        """Have the topic; one that is there stays as it is, a new one has one partition."""
        if checked_queue(queue) in self._known:
            return
        with reached("kafka", KafkaError):
            if queue not in await self._admin.list_topics():
                await self._admin.create_topics([NewTopic(name=queue, num_partitions=1, replication_factor=1)])
        self._known.add(queue)

    async def send(self, queue: str, message: Message) -> None:
        """Produce, and wait for every replica in sync."""
        checked_headers(message)
        await self.declare(queue)
        if len(message.body) > BODY_MAX_BYTES:
            raise Invalid("bus.message-too-large", bus="kafka", size_bytes=len(message.body), max_bytes=BODY_MAX_BYTES)
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        with reached("kafka", KafkaError):
            try:
                await self._producer.send_and_wait(queue, message.body, headers=headers)
            except MessageSizeTooLargeError as e:
                raise Invalid("bus.message-too-large", bus="kafka", size_bytes=len(message.body), max_bytes=BODY_MAX_BYTES) from e

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> BaseInbox:
        """Take from a queue."""
        await self.declare(queue)
        consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            client_id=name,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=max(6000, int(lease_s * 1000)),
            heartbeat_interval_ms=2000,
        )
        follow = _Follow()
        with reached("kafka", KafkaError):
            consumer.subscribe([queue], listener=follow)
            await consumer.start()
        follow.inbox = _Inbox(consumer, prefetch)
        return follow.inbox

    async def depth(self, queue: str) -> int:
        """Messages after the committed offsets."""
        await self.declare(queue)
        reader: Any = AIOKafkaConsumer(bootstrap_servers=self._servers, group_id=GROUP, enable_auto_commit=False)  # joins no group: it subscribes to nothing
        with reached("kafka", KafkaError):
            await reader.start()
            try:
                partitions = [TopicPartition(queue, n) for n in await self._producer.partitions_for(queue)]
                reader.assign(partitions)
                begin, end = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
                done = {p: await reader.committed(p) or 0 for p in partitions}
            finally:
                await reader.stop()
        return sum(end[p] - max(begin[p], done[p]) for p in partitions)

    async def drop(self, queue: str) -> None:
        """Delete the topic."""
        self._known.discard(checked_queue(queue))
        with reached("kafka", KafkaError):
            await self._admin.delete_topics([queue])

    async def close(self) -> None:
        """Hang up."""
        with suppress(KafkaError):
            await self._producer.stop()
        with suppress(KafkaError):
            await self._admin.close()
