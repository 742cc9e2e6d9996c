"""A client that loads a gateway from one core: so many askers at once, or requests at random times whatever is answered. Counts, never judges."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

__all__ = ["Heard", "ask_at_once", "ask_at_random", "predict_request"]

PATIENCE_S = 30.0


@dataclass
class Heard:
    """What came back."""

    latencies_ms: list[float] = field(default_factory=list[float])
    statuses: dict[int, int] = field(default_factory=dict[int, int])
    """0: a connection that broke."""
    seconds: float = 0.0
    cpu_s: float = 0.0
    """Processor time of this client."""

    def ms(self, share: float) -> float:
        """A quantile of the latency."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def per_s(self) -> float:
        """Answers in a second."""
        return len(self.latencies_ms) / max(self.seconds, 1e-9)


def predict_request(path: str, body: bytes, key: str) -> bytes:
    """A whole POST on a connection that stays open."""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, caller: _Caller) -> None:
        self.caller = caller
        self.transport: asyncio.Transport | None = None
        self.asked = 0.0
        self.inbox = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue] uvloop's is one in all but its bases

    def ask(self, data: bytes) -> None:
        """Send a request."""
        assert self.transport is not None
        self.asked = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self.inbox + data if self.inbox else data
        end = data.find(b"\r\n\r\n")
        at = data[: end + 2].lower().find(b"content-length:") if end >= 0 else -1
        if end < 0 or (at >= 0 and len(data) < end + 4 + int(data[at + 15 : data.find(b"\r", at)])):
            self.inbox = data
            return
        self.inbox = b""
        self.caller.answered(self, int(data[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio names it
        self.transport = None
        self.caller.lost(self)


class _Caller:
    """Askers of one port.

    Args:
        port: on loopback.
        requests: asked in a random order.
        again: an answered asker asks again at once, else it waits for whoever needs it.
        seed: of the order.
    """

    def __init__(self, port: int, requests: Sequence[bytes], *, again: bool, seed: int) -> None:
        self.port, self.requests, self.again, self.rng = port, requests, again, random.Random(seed)
        self.heard = Heard()
        self.idle: list[_Connection] = []
        self.all: list[_Connection] = []
        self.open = 0
        self.ended = False

    async def connection(self) -> _Connection:
        """One more."""
        _, made = await asyncio.get_running_loop().create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
        self.all.append(made)
        return made

    def ask(self, connection: _Connection) -> None:
        """The next question."""
        self.open += 1
        connection.ask(self.rng.choice(self.requests))

    def answered(self, connection: _Connection, status: int) -> None:
        """Count an answer."""
        self.open -= 1
        self.heard.latencies_ms.append(1000 * (time.perf_counter() - connection.asked))
        self.heard.statuses[status] = self.heard.statuses.get(status, 0) + 1
        if self.again and not self.ended:
            self.ask(connection)
        else:
            self.idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection broke before the end."""
        if not self.ended:
            self.heard.statuses[0] = self.heard.statuses.get(0, 0) + 1
        if connection in self.idle:
            self.idle.remove(connection)

    async def begin(self) -> None:
        """What was heard until now does not count."""
        self.heard = Heard(seconds=time.perf_counter(), cpu_s=_cpu_s())

    async def end(self) -> Heard:
        """Stop asking, hear what is still out (of those who come at random it counts), hang up."""
        heard, self.ended = self.heard, True
        heard.seconds, heard.cpu_s = time.perf_counter() - heard.seconds, _cpu_s() - heard.cpu_s
        if self.again:
            self.heard = Heard()
        until = time.perf_counter() + PATIENCE_S
        while self.open and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        for connection in self.all:
            if connection.transport is not None:
                connection.transport.close()
        return heard


def ask_at_once(port: int, requests: Sequence[bytes], at_once: int, *, seconds: float, warm_s: float = 0.3, seed: int = 0) -> Heard:
    """``at_once`` askers, each of whom asks again as soon as it is answered."""

    async def ask() -> Heard:
        caller = _Caller(port, requests, again=True, seed=seed)
        for connection in [await caller.connection() for _ in range(at_once)]:
            caller.ask(connection)
        await asyncio.sleep(warm_s)
        await caller.begin()
        await asyncio.sleep(seconds)
        return await caller.end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask())


def ask_at_random(port: int, requests: Sequence[bytes], rate_per_s: float, *, seconds: float, warm_s: float = 1.0, seed: int = 0, ready: int = 64) -> Heard:
    """Requests at random times, whatever is answered; each on a connection of its own while it is out."""

    async def ask() -> Heard:
        caller, rng = _Caller(port, requests, again=False, seed=seed), random.Random(seed + 1)
        caller.idle = [await caller.connection() for _ in range(ready)]
        begun = at = time.perf_counter()
        counting = False
        while at < begun + warm_s + seconds:
            at += rng.expovariate(rate_per_s)
            if (wait_s := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            if not counting and at > begun + warm_s:
                counting = True
                await caller.begin()
            caller.ask(caller.idle.pop() if caller.idle else await caller.connection())
        return await caller.end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime
