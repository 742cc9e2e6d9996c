"""Requests that wait, are put into batches and answered, on a clock of numbers: the pool's own ``choose`` and ``Turns`` over measured service times.

One gateway does one thing at a time, in order; each replica has one batch; all of them and the client share the cores. Exact in what it
models: events are taken one after another, what is being computed goes as fast as the cores in demand allow. Knows no processes and no clock.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wenfang.serve.batching import Item, Ticket, choose
from wenfang.serve.costs import CostCurve
from wenfang.serve.turns import RANKS, Turns

from .times import HostModel, ServiceTimes

__all__ = ["Outcome", "Policy", "Traffic", "simulate"]

ARRIVING = 0.6
"""Share of the gateway's time for a request that is spent before it waits; the rest writes the answer."""
WARM_UP = 0.1
"""Share of the requests that is not counted: the queue begins empty."""
_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes.

    Args:
        lengths: code points of texts, as they occur; drawn from.
        rate_per_s: requests, at random times whatever is answered; 0: a closed loop.
        at_once: of a closed loop: askers, each of whom asks again as soon as it is answered.
        texts_each: texts in one request.
        dispersion: variance of the arrivals in a long time by their mean; 1: Poisson, more: bursts.
        askers: keys that share the rate; they take turns.
    """

    lengths: Sequence[int]
    rate_per_s: float = 0.0
    at_once: int = 0
    texts_each: int = 1
    dispersion: float = 1.0
    askers: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are answered.

    Args:
        replicas: of one thread each.
        curve: what a replica says of itself: decides who shares a batch.
        queue_max: texts that may wait; what comes then is refused (in an open loop).
    """

    replicas: int
    curve: CostCurve
    queue_max: int = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, the beginning left out."""

    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    answered_per_s: float
    refused: float
    """Share of the requests."""
    replica_busy: float
    """Share of the time that a replica has a batch, 0..1."""
    gateway_busy: float
    cores_busy: float
    """Cores that compute, on average."""
    batch_mean: float


class _Computing:
    """Whoever computes one thing after another: its jobs in order, each (ms, what then, with what)."""

    __slots__ = ("jobs", "now")

    def __init__(self) -> None:
        self.jobs: deque[tuple[float, int, Any]] = deque()
        self.now: tuple[float, int, Any] | None = None


_ASKED, _ARRIVED, _ANSWERED, _WRITTEN, _HEARD = range(5)


class _Simulation:
    """Three kinds of clock: of the world, of those who compute, and of the replicas (which may wait for somebody else while they hold a batch)."""

    def __init__(self, times: ServiceTimes, host: HostModel, traffic: Traffic, policy: Policy, seed: int) -> None:
        self.times, self.host, self.traffic, self.policy = times, host, traffic, policy
        self.rng, self.lengths, self.spread = random.Random(seed), traffic.lengths, times.spread
        self.now: float = 0.0
        self.computed: float = 0.0
        self.served: float = 0.0
        self.client, self.gateway = _Computing(), _Computing()
        self.desks: list[tuple[float, int, _Computing]] = []
        self.busy: list[tuple[float, int, list[Item]]] = []
        self.timers: list[tuple[float, int, Ticket]] = []
        self.number = 0
        self.free = policy.replicas
        self.waiting: list[Item] = []
        self.turns = Turns()
        self.arrivals_waiting = 0
        self.latencies: list[float] = []
        self.refused = self.done = self.texts = self.batches = 0
        self.counting = False
        self.began = self.replica_ms = self.gateway_ms = self.core_ms = 0.0
        self.speed = self.pace = self.cores = 1.0
        self.speeds: dict[tuple[int, int], tuple[float, float, float]] = {}
        self.arrivals = _gaps(traffic, self.rng)

    # ------------------------------------------------------------ clocks
    def set_speed(self) -> None:
        """As fast as those who compute now let each other."""
        crowd = (len(self.desks), len(self.busy))
        known = self.speeds.get(crowd)
        if known is None:
            share = self.times.cpu_share
            demand = crowd[0] + crowd[1] * share
            speed = self.host.speed(demand)
            known = self.speeds[crowd] = (speed, 1.0 / (share / speed + 1.0 - share), min(self.host.cores, demand))
        self.speed, self.pace, self.cores = known

    def run(self, requests: int) -> None:
        """Until so many requests are answered or refused."""
        for _ in range(self.traffic.at_once):
            self.ask(self.now)
        next_at = next(self.arrivals)
        warm = int(WARM_UP * requests)
        desks, busy, timers, pop = self.desks, self.busy, self.timers, heapq.heappop
        while self.done < requests:
            self.set_speed()
            desk_at = self.now + (desks[0][0] - self.computed) / self.speed if desks else _NEVER
            replica_at = self.now + (busy[0][0] - self.served) / self.pace if busy else _NEVER
            timer_at = timers[0][0] if timers else _NEVER
            at = min(next_at, desk_at, replica_at, timer_at)
            passed = at - self.now
            if passed > 0:
                self.now = at
                self.computed += passed * self.speed
                self.served += passed * self.pace
                self.replica_ms += passed * len(busy)
                self.core_ms += passed * self.cores
                if self.gateway.now is not None:
                    self.gateway_ms += passed
            if at == desk_at:
                self.finish(pop(desks)[2])
            elif at == replica_at:
                self.compute(self.gateway, self.host.batch_ms, _ANSWERED, pop(busy)[2])
            elif at == timer_at:
                self.heard(pop(timers)[2])
            else:
                self.ask(at)
                next_at = at + next(self.arrivals)
            if not self.counting and self.done >= warm:
                self.begin_counting()

    def begin_counting(self) -> None:
        """The queue is as it usually is."""
        self.counting, self.began = True, self.now
        self.replica_ms = self.gateway_ms = self.core_ms = 0.0
        self.latencies.clear()
        self.refused = self.texts = self.batches = 0

    # ------------------------------------------------------------ the way of a request
    def compute(self, desk: _Computing, ms: float, kind: int, what: Any) -> None:
        """Give somebody something to do, behind what it has."""
        if ms <= 0 and desk.now is None:
            self.after(kind, what)
            return
        desk.jobs.append((ms, kind, what))
        if desk.now is None:
            self.next_of(desk)

    def next_of(self, desk: _Computing) -> None:
        """Begin the next job, if there is one."""
        desk.now = desk.jobs.popleft() if desk.jobs else None
        if desk.now is not None:
            self.number += 1
            heapq.heappush(self.desks, (self.computed + desk.now[0], self.number, desk))

    def finish(self, desk: _Computing) -> None:
        """A job is done."""
        assert desk.now is not None
        _, kind, what = desk.now
        self.next_of(desk)
        self.after(kind, what)

    def ask(self, at: float) -> None:
        """A client sends a request."""
        self.compute(self.client, self.host.client_ms / 2, _ASKED, Ticket(self.traffic.texts_each, 1, at, _NEVER, self.written))

    def after(self, kind: int, what: Any) -> None:
        """Something has come a step further."""
        if kind == _ASKED:
            self.arrivals_waiting += 1
            self.compute(self.gateway, ARRIVING * self.host.request_ms, _ARRIVED, what)
        elif kind == _ARRIVED:
            self.arrived(what)
        elif kind == _ANSWERED:
            self.answered(what)
        elif kind == _WRITTEN:
            self.compute(self.client, self.host.client_ms / 2, _HEARD, what)
        elif self.traffic.at_once and self.host.path_ms:  # the next request comes later by the way there and back
            self.number += 1
            heapq.heappush(self.timers, (self.now + self.host.path_ms, self.number, what))
        else:
            self.heard(what)

    def arrived(self, ticket: Ticket) -> None:
        """The gateway has read it: it waits, or is refused."""
        self.arrivals_waiting -= 1
        n = self.traffic.texts_each
        if not self.traffic.at_once and len(self.waiting) + n > self.policy.queue_max:
            self.refused += 1
            self.done += 1
        else:
            items = [Item("", index, ticket) for index in range(n)]
            for item in items:
                item.length = self.lengths[int(self.rng.random() * len(self.lengths))]
            owner = str(self.rng.randrange(self.traffic.askers)) if self.traffic.askers > 1 else ""
            self.turns.line_up(self.waiting, items, owner, RANKS["online"])
        if not self.arrivals_waiting:  # what came in one turn of the loop is put into batches together
            self.dispatch()

    def dispatch(self) -> None:
        """As the pool does: a free replica takes what waits."""
        while self.free and self.waiting:
            batch = choose(self.waiting, self.policy.curve, -(-len(self.waiting) // self.free))
            self.turns.served(batch)
            self.free -= 1
            ms = self.times.batch_ms([item.length for item in batch]) * self.spread[int(self.rng.random() * len(self.spread))]
            self.number += 1
            heapq.heappush(self.busy, (self.served + ms, self.number, batch))
            self.batches += 1
            self.texts += len(batch)

    def answered(self, batch: list[Item]) -> None:
        """The gateway has an answer: the replica is given the next batch first, then each request its own."""
        self.free += 1
        self.dispatch()
        for item in batch:
            item.ticket.answer(item.index, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] nobody reads it

    def written(self, ticket: Ticket) -> None:
        """All texts of a request are answered."""
        self.compute(self.gateway, (1 - ARRIVING) * self.host.request_ms, _WRITTEN, ticket)

    def heard(self, ticket: Ticket) -> None:
        """The client has it."""
        self.done += 1
        self.latencies.append(self.now - ticket.started + (0.0 if self.traffic.at_once else self.host.path_ms))
        if self.traffic.at_once:
            self.ask(self.now)


def _gaps(traffic: Traffic, rng: random.Random) -> Iterator[float]:
    """Milliseconds between requests: gamma where they come more evenly than by chance, two exponentials where they come in bursts."""
    if not traffic.rate_per_s:
        while True:
            yield _NEVER
    mean_ms, cv2 = 1000 / traffic.rate_per_s, traffic.dispersion
    if cv2 < 0.05:
        while True:
            yield mean_ms
    while cv2 < 1.0:
        yield rng.gammavariate(1 / cv2, mean_ms * cv2)
    often = 0.5 * (1 + math.sqrt((cv2 - 1) / (cv2 + 1)))  # balanced means: either kind of gap takes half of the time
    while True:
        share = often if rng.random() < often else 1 - often
        yield rng.expovariate(2 * share / mean_ms)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted values; 0 where there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def simulate(times: ServiceTimes, host: HostModel, traffic: Traffic, *, policy: Policy, requests: int = 20_000, seed: int = 0) -> Outcome:
    """What ``traffic`` would meet; equal arguments give equal outcomes.

    Args:
        times: of a batch.
        host: on which everything runs.
        traffic: what comes; more than can be answered is refused when the queue is full.
        policy: replicas and how texts are put into batches.
        requests: how many to follow.
        seed: of arrivals, lengths and spread.

    Cost: 15-40 µs a request.
    """
    world = _Simulation(times, host, traffic, policy, seed)
    world.run(requests)
    ordered = sorted(world.latencies)
    passed = max(world.now - world.began, 1e-9)
    counted = max(len(ordered) + world.refused, 1)
    return Outcome(
        requests=len(ordered),
        p50_ms=quantile(ordered, 0.5),
        p95_ms=quantile(ordered, 0.95),
        p99_ms=quantile(ordered, 0.99),
        mean_ms=sum(ordered) / max(len(ordered), 1),
        answered_per_s=1000 * len(ordered) / passed,
        refused=world.refused / counted,
        replica_busy=world.replica_ms / passed / policy.replicas,
        gateway_busy=world.gateway_ms / passed,
        cores_busy=world.core_ms / passed,
        batch_mean=world.texts / max(world.batches, 1),
    )
