"""What composing costs: a graph of three steps against a client that asks the three models one after the other: ``python -m bench graphs``.

Echo-like replicas, key check, metrics and tracing by share on, no kept answers, keep-alive. CPU and latency of one text through all three steps, old and new way in turn.
"""

import asyncio
import json
import statistics
import time

import uvloop

from bench import load
from bench._bert_like import LABELS, texts
from bench._gateway import KEY, World
from wenfang.core.home import Home
from wenfang.core.ids import sha256_hex
from wenfang.runtimes.processes import spawn
from wenfang.serve.graphs import Graph, Step
from wenfang.serve.routing import Principal, RoutedGraph, RoutedModel, RoutedService, RoutingTable, replica_socket, write_table

STEPS = {"a": Step("mv_a"), "b": Step("mv_b", text="{a.label} {text}", when="a.score > 0.1"), "c": Step("mv_c", text="{b.label} {text}")}
CHAIN = Graph(STEPS, ("c",))
WIDE = Graph({name: Step(f"mv_{name}") for name in "abc"}, ("a",), ("b", "c"))


class Graphs(World):
    """Three models, each behind a service of its name, and the graphs ``chain`` and ``wide`` over them."""

    def __init__(self):
        super().__init__("echo", 1)
        home = Home(self.root)
        sockets = {m: str(replica_socket(home.run, f"mv_{m}", 0)) for m in "abc"}
        self.replicas += [spawn("bench._gateway:replica", {"kind": "echo", "socket": s, "name": f"{m}:1"}, self.root / f"{m}.log") for m, s in sockets.items()]
        services = {m: RoutedService("pj", f"mv_{m}") for m in "abc"} | {
            "chain": RoutedService("pj", "mv_c", graph="gr_chain"),
            "wide": RoutedService("pj", "mv_a", graph="gr_wide"),
        }
        models = {f"mv_{m}": RoutedModel(f"{m}:1", "classification", [s], list(LABELS)) for m, s in sockets.items()}
        graphs = {f"gr_{name}": RoutedGraph(f"{name}:1", "classification", [], graph) for name, graph in (("chain", CHAIN), ("wide", WIDE))}
        keys = {sha256_hex(KEY.encode()): Principal("ky", ["service:call"])}
        write_table(home.run / "routes.json", RoutingTable(2, services, models, keys, {}, graphs))
        until = time.monotonic() + 60
        while not ((stats := self.stats())["ready"] and stats["epoch"] == 2):
            assert time.monotonic() < until, stats
            time.sleep(0.05)


class _OneByOne(asyncio.Protocol):
    """A client that asks a, b and c for each text, each with what the one before said."""

    def __init__(self, asked, until, latencies_s, done):
        self.asked, self.until, self.latencies_s, self.done = asked, until, latencies_s, done
        self.at, self.step, self.inbox = 0, 0, b""

    def connection_made(self, transport):
        self.transport = transport
        self.begin()

    def begin(self):
        self.began = time.perf_counter()
        if self.began >= self.until:
            self.transport.close()
            return
        self.at = (self.at + 1) % len(self.asked)
        self.step = 0
        self.ask(self.asked[self.at])

    def ask(self, text):
        self.transport.write(load.request_bytes(f"/predict/{'abc'[self.step]}", json.dumps({"inputs": [text]}, ensure_ascii=False).encode(), key=KEY))

    def data_received(self, data):
        self.inbox += data
        head, found, body = self.inbox.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not found or len(body) < size:
            return
        self.inbox = b""
        label = json.loads(body)["outputs"][0]["label"]
        self.step += 1
        if self.step < 3:
            self.ask(f"{label} {self.asked[self.at]}")
        else:
            self.latencies_s.append(time.perf_counter() - self.began)
            self.begin()

    def connection_lost(self, exc):
        if not self.done.done():
            self.done.set_result(None)


def one_by_one(port, asked, concurrency, seconds):
    """Latencies and processor seconds of the client."""
    latencies_s = []

    async def phase():
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(concurrency)]
        until = time.perf_counter() + seconds
        for i, done in enumerate(futures):
            await loop.create_connection(lambda i=i, done=done: _OneByOne(asked[i:] + asked[:i], until, latencies_s, done), "127.0.0.1", port)
        await asyncio.wait(futures, timeout=seconds + 30)

    before = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(phase())
    return latencies_s, time.process_time() - before


def main(seconds=3.0, rounds=3):
    asked = texts(500)
    requests = {name: [load.request_bytes(f"/predict/{name}", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in asked] for name in ("chain", "wide")}
    ways = ("one by one", "chain", "wide")
    with Graphs() as world:
        print(f"{'way':11} {'c':>3} {'texts/s':>8} {'p50 ms':>7} {'p99 ms':>7} {'gateway CPU ms':>14} {'replica CPU ms':>14} {'client CPU ms':>13}  (median of {rounds})")
        for concurrency in (1, 16, 64):
            found = {way: [] for way in ways}
            for _ in range(rounds):
                for way in ways:
                    gateway, replicas = world.cpu_s(world.gateway), sum(map(world.cpu_s, world.replicas))
                    began = time.perf_counter()
                    if way == "one by one":
                        latencies_s, client_s = one_by_one(world.port, asked, concurrency, seconds)
                    else:
                        done = load.run(world.port, requests[way], concurrency=concurrency, seconds=seconds, warm_s=0)
                        assert set(done.statuses) == {200}, done.statuses
                        latencies_s, client_s = done.latencies_s, done.client_cpu_s
                    took, n, ordered = time.perf_counter() - began, len(latencies_s), sorted(latencies_s)
                    spent = (world.cpu_s(world.gateway) - gateway, sum(map(world.cpu_s, world.replicas)) - replicas, client_s)
                    found[way].append((n / took, 1000 * ordered[n // 2], 1000 * ordered[int(0.99 * (n - 1))], *(1000 * s / n for s in spent)))
            for way in ways:
                per_s, p50, p99, gateway, replicas, client = (statistics.median(column) for column in zip(*found[way], strict=True))
                print(f"{way:11} {concurrency:3} {per_s:8.0f} {p50:7.2f} {p99:7.2f} {gateway:14.4f} {replicas:14.4f} {client:13.4f}", flush=True)


if __name__ == "__main__":
    main()
