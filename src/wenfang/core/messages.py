"""Messages, and the bus that carries them from one queue to the next: the port that every broker stands behind.

A queue hands each message to one taker, at least once: what is taken and not done comes again. Asynchronous, because whoever takes
messages waits for many things at once. Knows nothing of what the messages say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import Invalid

__all__ = ["Bus", "Delivery", "Inbox", "Message", "checked_headers", "checked_queue"]

QUEUE_MAX_CHARS = 120
HEADER_MAX_BYTES = 1024
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_HEADER = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes with headers. ``id``, ``content-type``, ``correlation-id`` and ``reply-to`` travel in a protocol's own fields where it has them."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message that was taken and is not done yet."""

    message: Message
    times: int
    """How often it was handed out, this time counted; 0 where the broker does not count."""
    tag: Any
    """The broker's handle."""


class Inbox(Protocol):
    """The taking end of one queue."""

    async def take(self, limit: int, wait_s: float) -> list[Delivery]:
        """The next messages, ``limit`` at most and never more at once than the inbox's ``prefetch``; empty if none comes within ``wait_s``."""
        ...

    async def done(self, deliveries: Sequence[Delivery]) -> None:
        """They are dealt with and never come again."""
        ...

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """They come again soon, here or elsewhere."""
        ...

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """They are still being worked at: their lease begins anew."""
        ...

    async def close(self) -> None:
        """Give back whatever is out and take no more."""
        ...


class Bus(Protocol):
    """A connection to a broker.

    Raises (all methods):
        Broken: `bus.unreachable`; after it the bus is of no more use, and what was taken comes again to the next one.
        Invalid: `bus.bad-queue`.
    """

    async def declare(self, queue: str) -> None:
        """Have the queue, durable, if it is not there."""
        ...

    async def send(self, queue: str, message: Message) -> None:
        """Put a message in; when this returns the broker has it. The queue is made if it is not there.

        Raises:
            Invalid: `bus.bad-header`, `bus.message-too-large`.
        """
        ...

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> Inbox:
        """Take from a queue.

        Args:
            queue: made if it is not there.
            name: of this taker: nobody else uses it at the same time. What an earlier life of the same name had taken comes again at once, where the broker can tell.
            prefetch: messages that may be out at once.
            lease_s: a message neither done nor kept for so long is handed to somebody else, where the broker does not see that its taker has gone.
        """
        ...

    async def depth(self, queue: str) -> int:
        """Messages in the queue that are not done."""
        ...

    async def drop(self, queue: str) -> None:
        """Away with the queue and what is in it."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


def checked_queue(queue: str) -> str:
    """``queue`` if every broker can have a queue of that name.

    Raises:
        Invalid: `bus.bad-queue`.
    """
    if len(queue) > QUEUE_MAX_CHARS or not _QUEUE.fullmatch(queue):
        raise Invalid("bus.bad-queue", queue=ascii(queue[:80]), max=QUEUE_MAX_CHARS)
    return queue


def checked_headers(message: Message) -> None:
    """Return if every broker can carry the headers: short lower-case names, printable ASCII.

    Raises:
        Invalid: `bus.bad-header`.
    """
    for name, value in message.headers.items():
        if not _HEADER.fullmatch(name) or not (value.isascii() and value.isprintable()) or len(value) > HEADER_MAX_BYTES or name == "body":
            raise Invalid("bus.bad-header", name=ascii(name[:40]), max=HEADER_MAX_BYTES)
