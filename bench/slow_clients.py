"""Thousands of clients that will not finish, beside a hundred good requests a second: ``python -m bench.slow_clients [SOCKETS] [SECONDS]``.

A process of its own keeps so many sockets open that say nothing, stop in a header, drip a header or drip a body, and opens each anew as soon as
it is closed; they come from several loopback addresses, since one may only have so many. Gate: p99 of the good requests at most 10 % above what
it is without them, no good request fails, and once nothing is opened anew every bad socket is closed by its deadline. Default 5000.
"""

import asyncio
import json
import random
import resource
import subprocess
import sys
import time

import uvloop

from bench import load
from bench._bert_like import texts
from bench._gateway import KEY, World

DEADLINE_S = 10.0
PER_ADDRESS = 900
GOOD_PER_S = 100


def _room(sockets):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, sockets + 2000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(sockets, wanted - 1000)


# ------------------------------------------------------------ the bad ones
class _Slow(asyncio.Protocol):
    """One socket that will not finish."""

    def __init__(self, crowd, which):
        self.crowd, self.kind = crowd, which % 4

    def connection_made(self, transport):
        self.transport, self.born = transport, time.monotonic()
        self.crowd.open.add(self)
        if self.kind in {1, 2}:
            transport.write(b"POST /predict/bench HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        elif self.kind == 3:
            transport.write(b"POST /predict/bench HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\nX-API-Key: %s\r\n\r\n{" % KEY.encode())

    def drip(self):
        if self.kind >= 2 and not self.transport.is_closing():
            self.transport.write(b" ")

    def connection_lost(self, exc):
        self.crowd.open.discard(self)
        self.crowd.closed.append(time.monotonic() - self.born)


class _Crowd:
    def __init__(self, port, sockets):
        self.port, self.sockets, self.open, self.closed, self.failed = port, sockets, set(), [], 0

    async def run(self, seconds):
        loop = asyncio.get_running_loop()
        until, n = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            missing = self.sockets - len(self.open)
            for _ in range(min(missing, 200)):
                n += 1
                try:
                    await loop.create_connection(
                        lambda n=n: _Slow(self, n), "127.0.0.1", self.port, local_addr=(f"127.0.1.{1 + n * self.sockets // PER_ADDRESS % (self.sockets // PER_ADDRESS + 1)}", 0)
                    )
                except OSError:
                    self.failed += 1
            for slow in random.sample(sorted(self.open, key=id), min(len(self.open), 200)):
                slow.drip()
            if len(self.open) >= self.sockets * 0.99 and n <= self.sockets * 1.05:
                print("full", flush=True)
            await asyncio.sleep(0.05 if missing > 200 else 0.2)
        last, peak = time.monotonic(), len(self.open)
        while self.open and time.monotonic() < last + 4 * DEADLINE_S:
            for slow in random.sample(sorted(self.open, key=id), min(len(self.open), 200)):
                slow.drip()
            await asyncio.sleep(0.2)
        print(
            json.dumps(
                {
                    "opened": n,
                    "failed": self.failed,
                    "at_the_end": peak,
                    "longest_s": max(self.closed, default=0.0),
                    "left_open": len(self.open),
                    "emptied_s": time.monotonic() - last,
                }
            )
        )


# ------------------------------------------------------------ the good ones
async def _good(port, requests, seconds):
    """(waits, statuses) of requests that come at a steady rate, whatever is answered."""
    waits, statuses, idle, tasks = [], {}, [], set()

    async def one(data):
        start = time.perf_counter()
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            await reader.readexactly(int(head[at + 15 : head.find(b"\r", at)]))
            status = int(head[9:12])
            idle.append((reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        statuses[status] = statuses.get(status, 0) + 1
        waits.append(time.perf_counter() - start)

    at, until = time.perf_counter(), time.perf_counter() + seconds
    while at < until:
        at += 1 / GOOD_PER_S
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        task = asyncio.ensure_future(one(random.choice(requests)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    return waits, statuses


def _measured(port, requests, seconds):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        waits, statuses = runner.run(_good(port, requests, seconds))
    waits.sort()
    return 1000 * waits[len(waits) // 2], 1000 * waits[int(0.99 * len(waits))], statuses


def main(sockets=5000, seconds=20):
    sockets = _room(sockets)
    requests = [load.request_bytes("/predict/bench", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in texts(500)]
    settings = {"header_timeout_s": DEADLINE_S, "body_timeout_s": DEADLINE_S, "idle_timeout_s": DEADLINE_S}
    with World("echo", 1, settings) as world:
        _measured(world.port, requests, 2.0)
        rows = [("alone", *_measured(world.port, requests, seconds / 2)) for _ in range(2)]
        cpu = world.cpu_s(world.gateway)
        with subprocess.Popen([sys.executable, "-m", "bench.slow_clients", "crowd", str(world.port), str(sockets), str(seconds + 30)], stdout=subprocess.PIPE, text=True) as crowd:
            try:
                if crowd.stdout.readline().strip() != "full":
                    raise SystemExit("the crowd did not come together")
                held = world.stats()["connections"]
                rows += [(f"{held} slow", *_measured(world.port, requests, seconds / 2)) for _ in range(2)]
                cpu = world.cpu_s(world.gateway) - cpu
                told = json.loads([line for line in crowd.stdout if line.startswith("{")][-1])
            finally:
                crowd.kill()
        rows.append(("after", *_measured(world.port, requests, seconds / 2)))
        left = world.stats()["connections"]
    for name, p50, p99, statuses in rows:
        print(f"{name:12} p50 {p50:6.2f} ms  p99 {p99:7.2f} ms  {statuses}")
    alone, beside = (sorted(r[2] for r in rows if (r[0] == "alone") == which and r[0] != "after") for which in (True, False))
    print(f"p99 beside them / alone {sum(beside) / sum(alone):.2f} (alone {alone[0]:.2f} and {alone[1]:.2f} ms); gateway {cpu:.1f} s CPU meanwhile")
    print(f"{told}; open in the gateway at the end {left}")
    bad = any(set(r[3]) != {200} for r in rows)
    if told["left_open"] or told["longest_s"] > 2 * DEADLINE_S + 2 or bad:
        raise SystemExit("a good request failed or a bad socket outlived its deadline")


if __name__ == "__main__":
    if sys.argv[1:2] == ["crowd"]:
        _room(int(sys.argv[3]))
        asyncio.run(_Crowd(int(sys.argv[2]), int(sys.argv[3])).run(float(sys.argv[4])))
    else:
        main(*map(int, sys.argv[1:]))
