"""The capacity plan beside what then happens: ``python -m bench plan``, or ``python -m bench.plan --kind bert --loads 0.3,0.5,0.7,0.85``.

The plan measures a model and this machine and says what each rate will be like. Then that rate comes at random times (an open loop) through
a real gateway, five times, and medians are put beside each other. The client runs on the same cores: its processor time is part of
the plan. Loads are shares of the highest rate the replicas answer in a closed loop, as the plan expects it. ``formula`` is what M/G/k with
mean batches says. Asked: p95 within 25 %, p99 within 40 %, never optimistic by more than 20 %. The load average says how busy the machine was.
"""

import argparse
import os
import random
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench import _bert_like
from bench._gateway import HERE, KEY, World
from bench._gateway import replica as others
from wenfang.core.examples import Output
from wenfang.core.settings import Serve
from wenfang.runtimes.host import LocalReplicaHost
from wenfang.serve.planning.client import ask_at_once, ask_at_random
from wenfang.serve.planning.formula import by_formula
from wenfang.serve.planning.machine import measure_machine
from wenfang.serve.planning.measure import length_of
from wenfang.serve.planning.search import expect
from wenfang.serve.planning.simulate import Traffic
from wenfang.serve.planning.way import ask_bodies
from wenfang.serve.replica import serve

KINDS = ("bert", "timed", "echo")


class Timed:
    """A model of known times that keeps no core busy: 3 ms a batch and 0.1 ms for each code point of the padded batch."""

    task = "classification"
    labels_ = ("a", "b")

    def predict(self, batch, *, top_k=1):
        """Waits, then answers."""
        time.sleep((3.0 + 0.1 * len(batch) * max(map(len, batch))) / 1000)
        return [Output(label="a", score=0.5) for _ in batch]


def replica(arguments):
    """Entry of a replica process."""
    if arguments["kind"] == "timed":
        serve(Timed(), arguments)
    else:
        others(arguments)


def measured(kind, pairs, settings):
    """What the plan knows."""
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    host = LocalReplicaHost(Path("keys"), entry="bench.plan:replica", arguments={"kind": kind})
    return measure_machine(host, Path("bench"), texts=pairs, serve=settings, task="classification", gateway_entry="wenfang.doors.gateway:main")


def compare(machine, pairs, replicas, share, *, kind, client_ms, seconds, rounds):
    """One row: a rate, what was expected, what came."""
    traffic = Traffic(tuple(length_of(p) for p in pairs), at_once=32 * replicas)
    policy = machine.policy(replicas)
    busy = replace(machine, host=replace(machine.host, client_ms=client_ms))
    rate = share * busy.outcome(traffic, policy, requests=4000).answered_per_s
    traffic = replace(traffic, at_once=0, rate_per_s=rate)
    said = expect(busy, traffic, policy)
    formula = [by_formula(machine.times, busy.host, traffic, policy=policy, share=q) for q in (0.95, 0.99)]
    found = []
    with World(kind, replicas, entry="bench.plan:replica") as world:
        requests = ask_bodies(pairs, KEY, "bench")
        ask_at_once(world.port, requests, 8, seconds=0.5)
        for turn in range(rounds):
            heard = ask_at_random(world.port, requests, rate, seconds=seconds, seed=turn)
            assert set(heard.statuses) <= {200, 429}, heard.statuses
            found.append((heard.ms(0.5), heard.ms(0.95), heard.ms(0.99), heard.per_s, os.getloadavg()[0]))
    return rate, said, formula, [statistics.median(column) for column in zip(*found, strict=True)]


def main(argv=()):
    parser = argparse.ArgumentParser(prog="python -m bench.plan", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="bert")
    parser.add_argument("--loads", default="0.3,0.5,0.7,0.85")
    parser.add_argument("--replicas", type=int, default=0, help="0: one for each core")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(argv)
    replicas = asked.replicas or len(os.sched_getaffinity(0))
    pairs = [(t, "") for t in random.Random(1).sample(_bert_like.texts(), 1000)]
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    begun = time.perf_counter()
    known = measured(asked.kind, pairs, Serve())
    times, host, way = known.machine.times, known.machine.host, known.way
    print(f"measured in {time.perf_counter() - begun:.1f} s: batches of {times.sizes} texts of {times.lengths} code points:")
    for size, row in zip(times.sizes, times.ms, strict=True):
        print(f"  {size:4} " + " ".join(f"{ms:8.2f}" for ms in row))
    print(
        f"  padded {times.padded}, core share {times.cpu_share}, expected off by {100 * known.timed.error:.1f} % (median), rounds {min(known.timed.rounds):.2f}-{max(known.timed.rounds):.2f}, spread p50 {times.spread[len(times.spread) // 2]:.2f} p99 {times.spread[-2]:.2f}\n"
        f"  {known.machine.curve}; speeds {host.speeds}; gateway {host.request_ms:.3f} ms a request, {host.batch_ms:.3f} a batch; way {host.path_ms:.3f} ms; client {way.client_ms:.3f} ms\n"
        f"  full: {way.full_per_s:.0f}/s, expected {way.expected_per_s:.0f}; one at a time: p50 {way.lone_ms[0]:.2f} ms; replica {known.replica_bytes / 1e6:.0f} MB, gateway {way.gateway_bytes / 1e6:.0f} MB"
    )
    print(
        f"{'load':>5} {'rate/s':>7} {'p50 said':>9} {'p50':>7} {'p95 said':>9} {'p95':>7} {'ratio':>6} {'p99 said':>9} {'p99':>7} {'ratio':>6} {'formula p95, p99':>17} {'answered':>8} load"
    )
    for share in map(float, asked.loads.split(",")):
        rate, said, formula, came = compare(known.machine, pairs, replicas, share, kind=asked.kind, client_ms=way.client_ms, seconds=asked.seconds, rounds=asked.rounds)
        print(
            f"{share:5.2f} {rate:7.1f} {said.p50_ms.value:9.2f} {came[0]:7.2f} {said.p95_ms.value:9.2f} {came[1]:7.2f} {said.p95_ms.value / came[1]:6.2f}"
            f" {said.p99_ms.value:9.2f} {came[2]:7.2f} {said.p99_ms.value / came[2]:6.2f} {formula[0]:8.1f} {formula[1]:8.1f} {came[3]:8.1f} {came[4]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
