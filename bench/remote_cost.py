"""What a replica on a TLS port costs against one on a Unix socket: ``python -m bench remote_cost``.

The same gateway and echo-like replica, one short text a request, interleaved; processor time of gateway and replica for one request, and the ratio.
"""

import json
import statistics
import tempfile
from pathlib import Path

from bench import load
from bench._bert_like import texts
from bench._gateway import KEY, World
from wenfang.guard.certificate import own_certificate


def main(seconds=3.0, rounds=3):
    asked = [load.request_bytes("/predict/bench", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in texts(500)]
    with tempfile.TemporaryDirectory(prefix="wfb") as folder, World("echo", 1) as near, World("echo", 1, host="127.0.0.1", certificate=str(own_certificate(Path(folder)))) as far:
        print(f"{'c':>3} {'where':6} {'req/s':>8} {'p50 ms':>7} {'gateway CPU ms':>14} {'replica CPU ms':>14}")
        for concurrency in (1, 16, 64):
            costs = {"socket": [], "tls": []}
            for _ in range(rounds):
                for name, world in (("socket", near), ("tls", far)):
                    load.run(world.port, asked, concurrency=concurrency, seconds=0.3, warm_s=0)
                    before = [world.cpu_s(world.gateway), world.cpu_s(world.replicas[0])]
                    found = load.run(world.port, asked, concurrency=concurrency, seconds=seconds, warm_s=0)
                    n = len(found.latencies_s)
                    costs[name].append([1000 * (world.cpu_s(p) - b) / n for p, b in zip((world.gateway, world.replicas[0]), before, strict=True)] + [found.per_s, found.ms(0.5)])
            for name, runs in costs.items():
                gateway, replica, rate, p50 = (statistics.median(column) for column in zip(*runs, strict=True))
                print(f"{concurrency:3} {name:6} {rate:8.0f} {p50:7.2f} {gateway:14.4f} {replica:14.4f}")


if __name__ == "__main__":
    main()
