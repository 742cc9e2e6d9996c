"""This machine and one model version, measured: replicas and a gateway of their own are started, asked, and stopped. Knows nothing of services or doors."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wenfang.core.ports import MeasuringHost
from wenfang.core.settings import Serve

from .gateway import MeasuredGateway
from .measure import Pair, Timed, measure_speeds, measure_times, said_curve
from .search import REPLICAS_MAX, Machine
from .times import HostModel
from .way import Way, measure_way

__all__ = ["Measured", "free_bytes", "measure_machine"]

TOGETHER_MAX = 8
"""Replicas that are started to see how they slow each other down; more cores are taken to go like these."""
KEPT_FREE = 0.1
"""Share of the free memory that a plan leaves alone."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known now.

    Args:
        machine: for the search.
        timed: of one replica.
        way: of the gateway.
        replica_bytes: memory of a replica.
        free_bytes: memory that processes may still take.
        load: runnable processes for each core before anything was started: far above 0, the figures say more of the neighbours.
    """

    machine: Machine
    timed: Timed
    way: Way
    replica_bytes: int
    free_bytes: int
    load: float


def free_bytes() -> int:
    """Memory that new processes may take; 0: unknown."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        return 0
    return 0


def measure_machine(
    host: MeasuringHost, bundle: Path, *, texts: Sequence[Pair], serve: Serve, task: str, gateway_entry: str, budget_s: float = 8.0, told: Callable[[], None] = lambda: None
) -> Measured:
    """Start what is needed, measure, stop it.

    Args:
        host: starts processes as serving does.
        bundle: unpacked.
        texts: as they come in; at least one.
        serve: the installation's [serve].
        task: of the model; one that writes texts is not measured here.
        gateway_entry: ``module:function`` of a gateway process.
        budget_s: for the service times; the rest takes about as long again.
        told: called after each step.

    Raises:
        WenfangError: what starting or asking raised.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    cores, free = len(os.sched_getaffinity(0)), free_bytes()
    with ExitStack() as stack:
        first = host.start(bundle, batch_max=serve.batch_max)
        stack.callback(first.close)
        told()
        curve = said_curve(first, serve.batch_max)
        timed = measure_times(first, texts, curve=curve, budget_s=budget_s, told=told)
        replica_bytes = first.memory_bytes()
        fit = max(1, int((1 - KEPT_FREE) * free / max(replica_bytes, 1))) if free else REPLICAS_MAX
        replicas = [first]
        for _ in range(min(cores, TOGETHER_MAX, fit) - 1):
            replicas.append(host.start(bundle, batch_max=serve.batch_max))
            stack.callback(replicas[-1].close)
        speeds = measure_speeds(replicas, texts, curve=curve, seconds=min(0.6, budget_s / 12))
        told()
        machine = Machine(timed.times, HostModel(cores, speeds), curve, timed.rounds, serve.queue_max, min(fit, REPLICAS_MAX))
        gateway = stack.enter_context(MeasuredGateway(host, gateway_entry, sockets=[r.path for r in replicas], serve=serve, task=task))
        way = measure_way(machine, gateway, replicas, texts=texts, single_ms=statistics.median(timed.single_ms or (0.0,)), seconds=min(1.5, budget_s / 4), told=told)
        return Measured(way.machine, timed, way, max(r.memory_bytes() for r in replicas), free, load)
