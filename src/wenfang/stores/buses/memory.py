"""A bus in this process: the twin of the local one for fast tests. Whoever opens the same URL meets at the same queues."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Self

from wenfang.core.home import Home
from wenfang.core.messages import Delivery, Message, checked_headers, checked_queue

from .base import BaseInbox, BusStore

__all__ = ["MemoryBus"]

LOOK_S = 0.02


@dataclass(eq=False, slots=True)
class _Kept:
    message: Message
    times: int = 0


@dataclass(eq=False, slots=True)
class _Queue:
    waiting: deque[_Kept] = field(default_factory=deque["_Kept"])
    out: dict[_Kept, tuple[str, float]] = field(default_factory=dict["_Kept", "tuple[str, float]"])
    """With whom, until when (monotonic)."""

    def release(self, name: str | None = None) -> None:
        """Have again what ``name`` had taken; without a name, what nobody kept in time."""
        now = time.monotonic()
        for kept in [k for k, (holder, until) in self.out.items() if holder == name or until <= now][::-1]:
            del self.out[kept]
            self.waiting.appendleft(kept)


class _Inbox(BaseInbox):
    def __init__(self, queue: _Queue, name: str, prefetch: int, lease_s: float) -> None:
        super().__init__(prefetch)
        self._queue, self._name, self._lease_s = queue, name, lease_s
        queue.release(name)

    async def _take(self, limit: int, wait_s: float) -> list[Delivery]:
        until = time.monotonic() + wait_s
        while True:
            self._queue.release()
            if self._queue.waiting:
                break
            if time.monotonic() >= until:
                return []
            await asyncio.sleep(LOOK_S)
        taken: list[Delivery] = []
        while self._queue.waiting and len(taken) < limit:
            kept = self._queue.waiting.popleft()
            kept.times += 1
            self._queue.out[kept] = (self._name, time.monotonic() + self._lease_s)
            taken.append(Delivery(kept.message, kept.times, kept))
        return taken

    async def _done(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._queue.out.pop(delivery.tag, None)

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries[::-1]:
            if self._queue.out.pop(delivery.tag, None) is not None:
                self._queue.waiting.appendleft(delivery.tag)

    async def _keep(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.tag in self._queue.out:
                self._queue.out[delivery.tag] = (self._name, time.monotonic() + self._lease_s)


class MemoryBus(BusStore):
    """Queues in this process."""

    form = "memory:"
    _everywhere: ClassVar[dict[str, dict[str, _Queue]]] = {}

    def __init__(self, queues: dict[str, _Queue]) -> None:
        self._queues = queues

    @classmethod
    async def connect(cls, url: str, home: Home) -> Self:
        """The queues of this URL and home, as whoever was here before left them."""
        return cls(cls._everywhere.setdefault(f"{home.root}\n{url}", {}))

    def _queue(self, name: str) -> _Queue:
        return self._queues.setdefault(checked_queue(name), _Queue())

    async def declare(self, queue: str) -> None:
        """Have the queue."""
        self._queue(queue)

    async def send(self, queue: str, message: Message) -> None:
        """Put a message in."""
        checked_headers(message)
        self._queue(queue).waiting.append(_Kept(Message(bytes(message.body), dict(message.headers))))

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> BaseInbox:
        """Take from a queue."""
        return _Inbox(self._queue(queue), name, prefetch, lease_s)

    async def depth(self, queue: str) -> int:
        """Messages that are not done."""
        found = self._queue(queue)
        return len(found.waiting) + len(found.out)

    async def drop(self, queue: str) -> None:
        """Away with the queue."""
        self._queues.pop(checked_queue(queue), None)

    async def close(self) -> None:
        """Nothing to hang up."""
