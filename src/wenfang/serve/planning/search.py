"""From measured times to an answer: how many replicas a rate needs, what it will be like, and how much this machine can hold. Knows no processes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from wenfang.serve.costs import CostCurve

from .simulate import Outcome, Policy, Traffic, simulate
from .times import HostModel, ServiceTimes

__all__ = ["Expected", "Found", "Machine", "Span", "Wanted", "expect", "find", "highest_rate", "needed_cores"]

REQUESTS = 6_000
"""Followed where many cases are compared; twice as many, each of ``DRAWS`` times, where a figure is told."""
DRAWS = 5
NEAR = 0.02
"""The highest rate is found to this share."""
REPLICAS_MAX = 64
"""Of one service, as ``service.deploy`` takes them."""
GATEWAY_FULL = 0.7
"""A gateway that is busier than this wants another beside it."""
BEYOND = 64
"""Replicas up to which a bigger machine is simulated; beyond, it is reckoned in proportion."""


@dataclass(frozen=True, slots=True)
class Span:
    """A figure and between what it lay when drawn again: other arrivals, other texts, the service times as slow or fast as they were in any round."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What a rate will be like."""

    rate_per_s: float
    p50_ms: Span
    p95_ms: Span
    p99_ms: Span
    utilisation: Span
    """Of the replicas, 0..1."""
    cores_busy: float
    gateway_busy: float
    batch_mean: float
    refused: float


@dataclass(frozen=True)
class Machine:
    """What is known of one machine and one model version.

    Args:
        times: of a batch.
        host: the machine.
        curve: what a replica says of itself.
        rounds: how slow the model was in each round of measuring, beside the median; at least one.
        queue_max: texts that may wait.
        replicas_max: that fit in memory.
        requests: followed in a simulation.
    """

    times: ServiceTimes
    host: HostModel
    curve: CostCurve
    rounds: tuple[float, ...] = (1.0,)
    queue_max: int = 1024
    replicas_max: int = REPLICAS_MAX
    requests: int = REQUESTS

    @cached_property
    def useful(self) -> int:
        """Replicas that may still help: more than there are cores do not, unless they wait for somebody else."""
        return max(1, min(self.replicas_max, REPLICAS_MAX, math.ceil(self.host.cores / max(self.times.cpu_share, self.host.cores / REPLICAS_MAX))))

    def policy(self, replicas: int, batch: int = 0) -> Policy:
        """With batches as the replicas have them, or smaller ones."""
        return Policy(replicas, replace(self.curve, batch_max=batch or self.curve.batch_max), self.queue_max)

    def outcome(self, traffic: Traffic, policy: Policy, *, requests: int = 0, seed: int = 0, slow: float = 1.0) -> Outcome:
        """One simulation."""
        times = self.times if slow == 1.0 else replace(self.times, ms=tuple(tuple(ms * slow for ms in row) for row in self.times.ms))
        return simulate(times, self.host, traffic, policy=policy, requests=requests or self.requests, seed=seed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked.

    Args:
        traffic: with its rate.
        p99_ms: limit.
    """

    traffic: Traffic
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """The answer.

    Args:
        met: whether the limit holds at the rate on this machine.
        replicas: the fewest that hold it; where none do, those that come nearest.
        batch: texts in one batch at most.
        gateways: that the rate needs.
        expected: at the rate; None where more comes in than goes out.
        highest_per_s: the highest rate that these replicas hold within the limit.
        machine_per_s: the highest rate that this machine holds within the limit, and with how many replicas.
        cores: that the rate needs; those of this machine where it holds.
        table: other rates.
    """

    met: bool
    replicas: int
    batch: int
    gateways: int
    expected: Expected | None
    highest_per_s: float
    machine_per_s: tuple[float, int]
    cores: int
    table: list[Expected]


def _holds(outcome: Outcome, p99_ms: float) -> bool:
    return outcome.p99_ms <= p99_ms and not outcome.refused


def expect(machine: Machine, traffic: Traffic, policy: Policy, *, requests: int = 0) -> Expected:
    """The median of ``DRAWS`` simulations, each with arrivals of its own and the service times of one round; and the least and most."""
    slow = sorted(machine.rounds)
    pick = [slow[round(i * (len(slow) - 1) / (DRAWS - 1))] for i in range(DRAWS)]
    drawn = [machine.outcome(traffic, policy, requests=requests or 2 * machine.requests, seed=seed, slow=pick[seed]) for seed in range(DRAWS)]

    def span(figure: Callable[[Outcome], float]) -> Span:
        values = [figure(o) for o in drawn]
        return Span(statistics.median(values), min(values), max(values))

    return Expected(
        rate_per_s=traffic.rate_per_s,
        p50_ms=span(lambda o: o.p50_ms),
        p95_ms=span(lambda o: o.p95_ms),
        p99_ms=span(lambda o: o.p99_ms),
        utilisation=span(lambda o: o.replica_busy),
        cores_busy=statistics.median(o.cores_busy for o in drawn),
        gateway_busy=statistics.median(o.gateway_busy for o in drawn),
        batch_mean=statistics.median(o.batch_mean for o in drawn),
        refused=statistics.median(o.refused for o in drawn),
    )


def highest_rate(machine: Machine, wanted: Wanted, policy: Policy) -> float:
    """The highest rate within the limit, to 2 %; 0 where not even a request now and then is answered in time.

    Cost: a dozen short simulations.
    """
    crowd = min(machine.queue_max, 8 * policy.replicas * policy.curve.batch_max)
    most = machine.outcome(replace(wanted.traffic, rate_per_s=0.0, at_once=max(4, crowd // wanted.traffic.texts_each)), policy).answered_per_s

    def holds(rate_per_s: float) -> bool:
        return _holds(machine.outcome(replace(wanted.traffic, rate_per_s=rate_per_s), policy), wanted.p99_ms)

    low, high = 0.0, most
    if not holds(0.02 * most):
        return 0.0
    while high - low > NEAR * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def find(machine: Machine, wanted: Wanted, *, shares: Sequence[float] = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0), told: Callable[[], None] = lambda: None) -> Found:
    """What the rate needs, what it will be like, and what this machine can hold.

    Args:
        machine: measured.
        wanted: rate and limit.
        shares: of the highest rate, in the table.
        told: called after each step.

    Cost: some ten thousand requests for each of about 60 simulations: half a minute.
    """
    replicas, met = _fewest(machine, wanted)
    batch = _best_batch(machine, wanted, replicas)
    told()
    policy = machine.policy(replicas, batch)
    expected = expect(machine, wanted.traffic, policy)
    while met and (expected.p99_ms.value > wanted.p99_ms or expected.refused):  # a longer look says otherwise
        if replicas == machine.useful:
            met = False
        else:
            replicas += 1
            policy = machine.policy(replicas, batch)
            expected = expect(machine, wanted.traffic, policy)
    told()
    highest = highest_rate(machine, wanted, policy)
    by_count = {replicas: highest} | {n: highest_rate(machine, wanted, machine.policy(n, batch)) for n in {machine.useful, max(1, machine.useful - 1)} - {replicas}}
    best = max(by_count, key=lambda n: by_count[n])
    told()
    shown, most = (policy, highest) if met else (machine.policy(best, batch), by_count[best])
    rates = sorted({round(share * most, 3) for share in shares if most})
    table = [expect(machine, replace(wanted.traffic, rate_per_s=rate), shown, requests=machine.requests) for rate in rates]
    told()
    needed = machine.host.cores if met else needed_cores(machine, wanted, batch)
    full = expected.refused > 0.01
    gateways = max(1, math.ceil(wanted.traffic.rate_per_s * _gateway_ms(machine, expected.batch_mean) / 1000 / GATEWAY_FULL))
    return Found(met, replicas, batch, gateways, None if full else expected, highest, (by_count[best], best), needed, table)


def _gateway_ms(machine: Machine, batch_mean: float) -> float:
    """Processor time of the gateway for a request, its part of a batch included."""
    return machine.host.request_ms + machine.host.batch_ms / max(batch_mean, 1.0)


def _fewest(machine: Machine, wanted: Wanted) -> tuple[int, bool]:
    """The fewest replicas that hold the limit at the rate; where none do, as many as are useful."""
    low, high = 1, machine.useful
    if not _holds(machine.outcome(wanted.traffic, machine.policy(high)), wanted.p99_ms):
        nearer = min({high, max(1, high - 1)}, key=lambda n: machine.outcome(wanted.traffic, machine.policy(n)).p99_ms)  # the gateway may want a core of its own
        return nearer, _holds(machine.outcome(wanted.traffic, machine.policy(nearer)), wanted.p99_ms)
    while low < high:
        middle = (low + high) // 2
        if _holds(machine.outcome(wanted.traffic, machine.policy(middle)), wanted.p99_ms):
            high = middle
        else:
            low = middle + 1
    return high, True


def _best_batch(machine: Machine, wanted: Wanted, replicas: int) -> int:
    """The batch limit with the least p99 at the rate; the replica's own unless another is better by a twentieth."""
    own = machine.curve.batch_max
    sizes = [own] + [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if own / 8 <= size < own]
    p99 = {size: machine.outcome(wanted.traffic, machine.policy(replicas, size)) for size in sizes}
    best = min(sizes, key=lambda size: (p99[size].refused, p99[size].p99_ms))
    return best if (p99[best].refused, p99[best].p99_ms) < (p99[own].refused, 0.95 * p99[own].p99_ms) else own


def needed_cores(machine: Machine, wanted: Wanted, batch: int = 0) -> int:
    """Cores of a machine like this one, only bigger, that hold the limit at the rate; 0 where no number does.

    Replicas and gateways have a core each. More gateways than one are reckoned as one that is so much faster.
    """
    gateways = max(1, math.ceil(wanted.traffic.rate_per_s * _gateway_ms(machine, 1.0) / 1000 / GATEWAY_FULL))
    host = replace(machine.host, request_ms=machine.host.request_ms / gateways, batch_ms=machine.host.batch_ms / gateways)

    def bigger(replicas: int) -> Machine:
        return replace(machine, host=replace(host, cores=replicas + gateways + 1))

    def holds(replicas: int) -> bool:
        return _holds(bigger(replicas).outcome(wanted.traffic, machine.policy(replicas, batch)), wanted.p99_ms)

    high = 1
    while not holds(high):
        if high >= BEYOND:
            most = highest_rate(bigger(high), wanted, machine.policy(high, batch))
            return math.ceil(high * wanted.traffic.rate_per_s / most) + gateways if most else 0
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return max(machine.host.cores + 1, high + gateways)
