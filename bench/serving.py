"""Wenfang, LitServe and BentoML serving the same model in one run, beside the limit in process: ``python -m bench serving``.

Each peer has an environment of its own under ``.bench/`` (made here from ``bench/peers/requirements-*.txt`` when missing). One short
text a request, keep-alive, the same client; key check, metrics and guards are on in Wenfang, the peers have none. Rounds are interleaved
and medians printed. On a busy machine read the processor time per request: it is what neighbours distort least.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import load
from bench._bert_like import WORK, BertLike, model_path, texts
from bench._gateway import KEY, World
from bench.gateway_throughput import limit_per_s

PEERS = Path(__file__).parent / "peers"


class Peer:
    """A peer's server as a process tree of its own."""

    def __init__(self, name, command, cwd):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = (WORK / f"{name}.log").open("wb")
        environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(WORK / "bentoml-home")}
        start = time.perf_counter()
        self.process = subprocess.Popen([str(p).format(port=self.port) for p in command], cwd=cwd, stdout=self.log, stderr=self.log, env=environment, start_new_session=True)
        probe = load.request_bytes("/predict", json.dumps({"inputs": ["你好"]}).encode())
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                    s.sendall(probe)
                    if s.recv(65536).startswith(b"HTTP/1.1 200"):
                        break
            except OSError:
                pass
            if time.perf_counter() - start > 90 or self.process.poll() is not None:
                raise SystemExit(f"{name} did not start; see {self.log.name}")
            time.sleep(0.05)
        self.started_s = time.perf_counter() - start

    def processes(self):
        """The whole tree."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self):
        """Processor time of the tree so far."""
        return sum(p.cpu_times().user + p.cpu_times().system for p in self.processes())

    def memory_bytes(self):
        """PSS of the tree."""
        return sum(p.memory_full_info().pss for p in self.processes())

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


class Ours:
    """Wenfang's gateway and two replicas, measured like a peer."""

    def __init__(self):
        self.world = World("bert", 2)
        self.port, self.started_s = self.world.port, self.world.started_s

    def cpu_s(self):
        return sum(self.world.cpu_s(c) for c in (self.world.gateway, *self.world.replicas))

    def memory_bytes(self):
        return self.world.memory_bytes()

    def processes(self):
        return [self.world.gateway, *self.world.replicas]

    def close(self):
        self.world.__exit__()


def environment(name):
    """The peer's own virtual environment, made once."""
    python = WORK / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} into {WORK / name} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(WORK / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(PEERS / f"requirements-{name}.txt")], check=True)
    return python


def servers():
    """Name → (how to start it, path, key)."""
    lit, bento = environment("litserve"), environment("bentoml")
    serve = [bento.with_name("bentoml"), "serve", "bentoml_server:Bench", "--port", "{port}", "--host", "127.0.0.1"]
    return {
        "wenfang": (Ours, "/predict/bench", KEY),
        "litserve": (lambda: Peer("litserve", [lit, "litserve_server.py", "{port}"], PEERS), "/predict", ""),
        "bentoml": (lambda: Peer("bentoml", serve, PEERS), "/predict", ""),
    }


def main(seconds=4.0, rounds=3, concurrencies=(1, 16, 64)):
    model_path()
    batch = texts()
    models = [BertLike(), BertLike()]
    limit_per_s(models, batch, 1.0)
    rows, about, limits = {}, {}, []
    for _ in range(rounds):
        limits.append(limit_per_s(models, batch, seconds))
        for name, (start, path, key) in servers().items():
            requests = [load.request_bytes(path, json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=key) for t in batch]
            server = start()
            try:
                load.run(server.port, requests, concurrency=8, seconds=1.0, warm_s=0)
                for concurrency in concurrencies:
                    before = server.cpu_s()
                    found = load.run(server.port, requests, concurrency=concurrency, seconds=seconds, warm_s=0)
                    cpu_ms = 1000 * (server.cpu_s() - before) / len(found.latencies_s)
                    failed = sum(n for status, n in found.statuses.items() if status != 200)
                    rows.setdefault((name, concurrency), []).append((found.per_s, cpu_ms, found.ms(0.5), found.ms(0.99), failed))
                about.setdefault(name, []).append((server.started_s, server.memory_bytes() / 1e6, len(server.processes())))
            finally:
                server.close()
    limit, limit_cpu = (statistics.median(column) for column in zip(*limits, strict=True))
    print(f"limit in process: {limit:.0f} texts/s, {limit_cpu:.2f} CPU ms a text (two one-thread sessions, batches of 8 sorted in windows of 64)")
    print(f"{'server':10} {'c':>3} {'req/s':>7} {'of limit':>8} {'CPU ms':>7} {'limit CPU / CPU':>15} {'p50 ms':>7} {'p99 ms':>8} {'failed':>6}")
    for (name, concurrency), found in rows.items():
        per_s, cpu_ms, p50, p99, failed = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:10} {concurrency:3} {per_s:7.0f} {per_s / limit:8.2f} {cpu_ms:7.2f} {limit_cpu / cpu_ms:15.2f} {p50:7.1f} {p99:8.1f} {failed:6.0f}")
    for name, found in about.items():
        started_s, megabytes, processes = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:10} starts in {started_s:.1f} s, {megabytes:.0f} MB PSS in {processes:.0f} processes")


if __name__ == "__main__":
    main()
