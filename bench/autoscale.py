"""A service that follows its load: ``python -m bench autoscale``. Seconds from a step of load to the first new replica serving, and from none at all to the first answer.

A whole installation is started as a person would. First a service without a replica is asked, again and again: each time the first
answer is awaited. Then texts arrive at random times (an open loop): few, suddenly more than one replica can answer, few again.
Everything that was not answered with 200 is counted.
"""

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import load

KEY = "wf_bench-" + "k" * 40
TEXTS = ["退款什么时候到账", "快递到哪里了，麻烦看一下", "怎么开发票", "我要申请退款，订单号{n}", "包裹三天没动，请帮我查一查是不是丢了，急", "电子发票在哪下载，抬头写错了怎么办"]


def fitted(family, **hyper):
    """A model of ``family`` that tells three words apart."""
    from wenfang.core.examples import Examples
    from wenfang.models import families

    rng = random.Random(1)
    texts = [rng.choice(TEXTS).format(n=rng.randrange(10**6)) for _ in range(200)]
    labels = ["退款" if "退" in t else "发票" if "发票" in t else "物流" for t in texts]
    kind = families.get(family)
    model = kind(kind.Hyper(**hyper), task="classification")
    model.fit(Examples("classification", texts, labels))
    return model


def publish(folder, models, scaling):
    """One service for each model, in a home that no process has yet."""
    from wenfang.core.home import Home
    from wenfang.core.ids import new_id
    from wenfang.core.ports import Changes
    from wenfang.core.records import ModelVersion, Pointer, Service
    from wenfang.core.scaling import Scaling
    from wenfang.core.settings import Settings
    from wenfang.models.bundle import write_bundle
    from wenfang.studio.bundles import store_bundle
    from wenfang.studio.wiring import open_in_place

    studio, lock = open_in_place(Home(folder), Settings())
    for name, model in models.items():
        bundle = studio.home.jobs / f"bundle-{name}"
        info = write_bundle(bundle, model, signer=studio.signer, card={}, lineage={})
        manifest, signature = store_bundle(bundle, studio.blobs)
        version = ModelVersion(
            id=new_id("mv"), project="default", name=name, number=1, family=name, task="classification", labels=model.labels_,
            bundle=manifest, signature=signature, size_bytes=info.size_bytes,
        )  # fmt: skip
        service = Service(id=new_id("sv"), project="default", name=name, replicas=1, scaling=Scaling.model_validate(scaling))
        studio.tables.commit(Changes(puts=[version, service], pointers=[Pointer(kind="service", key=service.id, target=version.id)]))
    studio.tables.close()
    lock.release()


class Tree:
    """``wenfang up`` on a free port."""

    def __init__(self, home):
        import socket

        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        environment = {**os.environ, "WENFANG_BOOTSTRAP_KEY": KEY, "WENFANG_SERVE__CACHE_BYTES": "0", "WENFANG_SERVE__GRPC_PORT": "0"}
        command = [sys.executable, "-m", "wenfang.doors.cli", "up", "--home", str(home), "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until and self.call("GET", "/control/alive")[0] != 200:
            time.sleep(0.05)

    def call(self, method, path, body=None):
        """(status, JSON); status 0 while nobody listens."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=json.dumps(body) if body is not None else None, headers={"x-api-key": KEY, "content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        except OSError:
            return 0, {}
        finally:
            connection.close()

    def replicas(self, service):
        """How many the routing table has."""
        return self.call("GET", f"/api/v1/services/{service}")[1]["service"]["replicas"]

    def stop(self):
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def cold_starts(tree, service, times):
    """Seconds from a request at none to its answer."""
    found = []
    for _ in range(times):
        while tree.replicas(service):
            time.sleep(0.1)
        time.sleep(1.0)
        began = time.perf_counter()
        status, _ = tree.call("POST", f"/predict/{service}", {"inputs": ["退款什么时候到账"]})
        found.append(time.perf_counter() - began)
        if status != 200:
            raise SystemExit(f"{service}: {status}")
    return found


class Arrivals:
    """An open loop of single texts over keep-alive connections; remembers when each answer came, its status and its wait."""

    def __init__(self, port, service):
        self.port = port
        self.requests = [load.request_bytes(f"/predict/{service}", json.dumps({"inputs": [t.format(n=n)]}, ensure_ascii=False).encode(), key=KEY) for n, t in enumerate(TEXTS)]
        self.idle, self.answers = [], []

    async def _one(self, data):
        start = time.monotonic()
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        await reader.readexactly(int(head[at + 15 : head.find(b"\r", at)]))
        self.idle.append((reader, writer))
        self.answers.append((time.monotonic(), int(head[9:12]), time.monotonic() - start))

    async def run(self, per_s, seconds, *, until=lambda: False):
        """Let texts arrive at random times."""
        rng, tasks = random.Random(7), set()
        begun = at = time.monotonic()
        while at < begun + seconds and not until():
            at += rng.expovariate(per_s)
            if (wait_s := at - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.ensure_future(self._one(rng.choice(self.requests)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


async def _watched(tree, service, seen, over):
    """Note each change of the number of replicas that answer in the gateway."""
    import urllib.request

    def ready():
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{tree.port}/metrics", headers={"x-api-key": KEY})) as reply:
            lines = reply.read().decode().splitlines()
        return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("wenfang_replicas_ready{") and f'model="{service}:' in line)

    while not over.is_set():
        n = await asyncio.to_thread(ready)
        if not seen or seen[-1][1] != n:
            seen.append((time.monotonic(), n))
        await asyncio.sleep(0.1)


async def step(tree, service, capacity_per_s, share_low, share_high, seconds):
    """Few, many, few again; what was seen."""
    seen, over, arrivals = [], asyncio.Event(), Arrivals(tree.port, service)
    watch = asyncio.ensure_future(_watched(tree, service, seen, over))
    await arrivals.run(share_low * capacity_per_s, 6.0)
    stepped = time.monotonic()
    await arrivals.run(share_high * capacity_per_s, seconds)
    fell = time.monotonic()
    await arrivals.run(share_low * capacity_per_s, 40.0, until=lambda: seen[-1][1] <= 1)
    back = time.monotonic()
    over.set()
    await watch
    return stepped, fell, back, seen, arrivals.answers


def main(times=5, seconds=15.0):
    models = {"linear": fitted("linear"), "transformer": fitted("transformer", epochs=1, hidden=256, layers=6, heads=4)}
    scaling = {
        "min": 0,
        "max": 2,
        "idle_s": 2,
        "cold_start_s": 60,
        "target": {"queue_ms": 100},
        "cooldown": {"up_s": 1, "down_s": 5},
        "resources": {"cores": len(os.sched_getaffinity(0)) / 2},
    }
    with tempfile.TemporaryDirectory(prefix="wenfang-bench-") as folder:
        publish(Path(folder) / "home", models, scaling)
        tree = Tree(Path(folder) / "home")
        try:
            print(f"load average {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
            for service in models:
                waits = cold_starts(tree, service, times)
                print(f"{service:12} from none: median {statistics.median(waits):.2f} s, worst {max(waits):.2f} s of {times}", flush=True)
            tree.call("POST", "/api/v1/services/transformer/scale", {"min": 1, "max": 1})
            requests = Arrivals(tree.port, "transformer").requests
            peak = load.run(tree.port, requests, concurrency=16, seconds=4.0, warm_s=1.0).per_s
            tree.call("POST", "/api/v1/services/transformer/scale", {"min": 1, "max": 2})
            print(f"one replica of transformer answers {peak:.0f} texts/s")
            stepped, fell, back, seen, answers = asyncio.run(step(tree, "transformer", peak, 0.2, 1.1, seconds))
            up = next((at - stepped for at, n in seen if at > stepped and n > 1), float("nan"))
            wrong = [status for _, status, _ in answers if status != 200]
            print(f"step from 20 % to 110 % of that: second replica serving after {up:.2f} s; back to one {back - fell:.1f} s after the load fell (cool-down 5 s)")
            late = sorted(wait for at, status, wait in answers if stepped + 5 < at < fell and status == 200)
            print(f"{len(answers)} answers, {len(wrong)} of them no 200 {sorted(set(wrong))}; p95 from 5 s after the step on: {1000 * late[int(0.95 * len(late))]:.0f} ms")
            for line in reversed(tree.call("GET", "/api/v1/services/transformer/decisions?lang=en&limit=12")[1]["decisions"]):
                print(f"  {line['at'][11:19]} {line['present']} → {line['wanted']}  {line['why']}")
        finally:
            tree.stop()


if __name__ == "__main__":
    main()
