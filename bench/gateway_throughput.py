"""Throughput through HTTP with keys, metrics and batching beside the limit in process, same model, same run: ``python -m bench gateway_throughput``.

The limit is two processes' worth of one-thread sessions over batches of 8 sorted in windows of 64, which is all that 64 connections
can show a server. Gate: at concurrency 64 at least 75 % of it. Rounds are interleaved, the best and the
median of each are printed. On a busy machine the ratio of processor times is the honest one: more processes get more of the cores.
"""

import json
import statistics
import threading
import time

from bench import load
from bench._bert_like import BertLike, texts
from bench._gateway import KEY, World


def limit_per_s(models, batch, seconds):
    """Texts per second in process: one thread a model, windows of 64 sorted by length, batches of 8; (texts/s, CPU ms per text)."""
    counts = [0] * len(models)
    until = time.perf_counter() + seconds

    def work(m, model):
        at = m * 997
        while time.perf_counter() < until:
            window = sorted((batch[(at + i) % len(batch)] for i in range(64)), key=len)
            at += 64
            for i in range(0, 64, 8):
                model.answers(window[i : i + 8])
                counts[m] += 8

    cpu, start = time.process_time(), time.perf_counter()
    threads = [threading.Thread(target=work, args=(m, model)) for m, model in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start), 1000 * (time.process_time() - cpu) / sum(counts)


def main(seconds=5.0, rounds=3, replicas=2):
    batch = texts()
    requests = [load.request_bytes("/predict/bench", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in batch]
    models = [BertLike() for _ in range(replicas)]
    limit_per_s(models, batch, 1.0)
    rows = {}
    with World("bert", replicas) as world:
        print(f"started in {world.started_s:.2f} s, {world.stats()['pools']['mv_bench']}")
        for _ in range(rounds):
            rows.setdefault("limit", []).append(limit_per_s(models, batch, seconds))
            for concurrency in (1, 16, 64):
                before = sum(world.cpu_s(c) for c in (world.gateway, *world.replicas))
                found = load.run(world.port, requests, concurrency=concurrency, seconds=seconds, warm_s=0)
                cpu = sum(world.cpu_s(c) for c in (world.gateway, *world.replicas)) - before
                assert set(found.statuses) == {200}, found.statuses
                rows.setdefault(f"c={concurrency}", []).append((found.per_s, 1000 * cpu / len(found.latencies_s), found.ms(0.5), found.ms(0.99)))
        memory = world.memory_bytes()
    limit = statistics.median(r[0] for r in rows["limit"])
    limit_cpu = statistics.median(r[1] for r in rows["limit"])
    print(f"{'':8} {'req/s median':>12} {'best':>7} {'of limit':>8} {'CPU ms':>7} {'limit CPU / CPU':>15} {'p50 ms':>7} {'p99 ms':>7}")
    for name, found in rows.items():
        middle = [statistics.median(column) for column in zip(*found, strict=True)]
        tail = f"{middle[2]:7.1f} {middle[3]:7.1f}" if len(middle) == 4 else ""
        print(f"{name:8} {middle[0]:12.1f} {max(r[0] for r in found):7.1f} {middle[0] / limit:8.2f} {middle[1]:7.2f} {limit_cpu / middle[1]:15.2f} {tail}")
    print(f"memory {memory / 1e6:.0f} MB PSS over {replicas + 1} processes")


if __name__ == "__main__":
    main()
