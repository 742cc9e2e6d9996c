"""What every bus is: the port ``Bus``, opened by a URL, and an inbox that counts what is out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from wenfang.core.errors import Broken, Invalid
from wenfang.core.home import Home
from wenfang.core.messages import Bus, Delivery, Inbox

__all__ = ["GROUP", "BaseInbox", "BusStore", "address_of", "reached"]

GROUP = "wenfang"
"""Name of the consumers of one queue, where a broker wants one."""
CONNECT_TIMEOUT_S = 5.0


class BusStore(Bus):
    """A bus. The promises are tested for every bus in ``tests/contracts/test_buses.py``."""

    name: ClassVar[str]
    form: ClassVar[str]
    """How its URL looks, for messages."""

    @classmethod
    @abstractmethod
    async def connect(cls, url: str, home: Home) -> Self:
        """Connect to the broker at ``url``.

        Raises:
            Broken: `bus.unreachable`.
            Invalid: `bus.bad-url`.
        """


class BaseInbox(Inbox, ABC):
    """Knows what is out, and so how much may still be taken.

    Args:
        prefetch: messages that may be out at once.
    """

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.out: dict[Delivery, None] = {}

    async def take(self, limit: int, wait_s: float) -> list[Delivery]:
        """The next messages; empty at once when ``prefetch`` of them are out."""
        room = min(limit, self.prefetch - len(self.out))
        if room <= 0:
            return []
        taken = await self._take(room, wait_s)
        self.out.update(dict.fromkeys(taken))
        return taken

    async def done(self, deliveries: Sequence[Delivery]) -> None:
        """They are dealt with and never come again."""
        await self._done(self._ours(deliveries))

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """They come again soon, here or elsewhere."""
        await self._give_back(self._ours(deliveries))

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """They are still being worked at."""
        if kept := [d for d in deliveries if d in self.out]:
            await self._keep(kept)

    async def close(self) -> None:
        """Give back whatever is out and take no more."""
        try:
            await self.give_back(list(self.out))
        finally:
            await self._close()

    def _ours(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that are still out; from now on they are not."""
        found = [d for d in deliveries if d in self.out]
        for delivery in found:
            del self.out[delivery]
        return found

    @abstractmethod
    async def _take(self, limit: int, wait_s: float) -> list[Delivery]: ...

    @abstractmethod
    async def _done(self, deliveries: list[Delivery]) -> None: ...

    @abstractmethod
    async def _give_back(self, deliveries: list[Delivery]) -> None: ...

    async def _keep(self, deliveries: list[Delivery]) -> None:
        """Nothing, where the broker itself sees whether its taker lives."""

    async def _close(self) -> None:
        """Nothing more."""


@contextmanager
def reached(bus: str, *faults: type[BaseException]) -> Generator[None]:
    """Any of a client library's ``faults`` inside is our `bus.unreachable`; its own words may hold an address with a password, so only its name is told."""
    try:
        yield
    except (*faults, OSError, TimeoutError) as e:
        reason = getattr(e, "strerror", None) or type(e).__name__
        raise Broken("bus.unreachable", bus=bus, reason=reason) from e


def address_of(url: str, *, scheme: str, port: int) -> tuple[str, int, Any]:
    """(host, port, the split URL) of a broker's URL.

    Raises:
        Invalid: `bus.bad-url`.
    """
    wrong = Invalid("bus.bad-url", url=f"{scheme}:…", known=f"{scheme}://host[:{port}]")
    try:
        parts = urlsplit(url)
        host, given = parts.hostname, parts.port
    except ValueError as e:
        raise wrong from e
    if not host:
        raise wrong
    return host, given or port, parts
