"""A keep-alive HTTP load on one core: c connections, each asks again as soon as it is answered. Counts, never judges."""

import asyncio
import resource
import time
from dataclasses import dataclass, field

import uvloop

__all__ = ["Load", "request_bytes", "run"]


@dataclass
class Load:
    """What came back."""

    concurrency: int
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    client_cpu_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers with status 200 per second."""
        return self.statuses.get(200, 0) / self.seconds

    def ms(self, quantile: float) -> float:
        """A quantile of the latency in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def request_bytes(path: str, body: bytes, *, key: str = "", host: str = "localhost") -> bytes:
    """A whole POST."""
    auth = f"X-API-Key: {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{auth}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Client(asyncio.Protocol):
    def __init__(self, load, requests, offset, until, done):
        self.load, self.requests, self.at, self.until, self.done = load, requests, offset, until, done
        self.inbox = b""

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        self.asked = time.perf_counter()
        if self.asked >= self.until:
            self.transport.close()
            return
        self.at = (self.at + 1) % len(self.requests)
        self.transport.write(self.requests[self.at])

    def data_received(self, data):
        data = self.inbox = self.inbox + data if self.inbox else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        where = head.find(b"content-length:")
        if where >= 0:
            stop = head.find(b"\r", where)
            size = int(head[where + 15 : stop if stop > 0 else None])
            if len(data) < end + 4 + size:
                return
        elif not data.endswith(b"0\r\n\r\n"):  # chunked
            return
        self.inbox = b""
        status = int(data[9:12])
        self.load.statuses[status] = self.load.statuses.get(status, 0) + 1
        self.load.latencies_s.append(time.perf_counter() - self.asked)
        self.ask()

    def connection_lost(self, exc):
        if time.perf_counter() < self.until:
            self.load.statuses[0] = self.load.statuses.get(0, 0) + 1
        if not self.done.done():
            self.done.set_result(None)


def run(port: int, requests: list[bytes], *, concurrency: int, seconds: float, warm_s: float = 0.5) -> Load:
    """Load ``127.0.0.1:port``; the first ``warm_s`` are not counted."""

    async def phase(length_s):
        loop = asyncio.get_running_loop()
        load = Load(concurrency)
        cpu, start = _cpu_s(), time.perf_counter()
        futures = []
        for i in range(concurrency):
            done = loop.create_future()
            futures.append(done)
            await loop.create_connection(lambda i=i, done=done: _Client(load, requests, i * 31, start + length_s, done), "127.0.0.1", port)
        await asyncio.wait(futures, timeout=length_s + 30)
        load.seconds, load.client_cpu_s = time.perf_counter() - start, _cpu_s() - cpu
        return load

    async def both():
        if warm_s:
            await phase(warm_s)
        return await phase(seconds)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(both())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
