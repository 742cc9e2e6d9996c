"""What stands between a client and a replica, measured with a gateway of its own: processor time for a request and for a batch, and the way itself.

Then the model of the queue is asked for what was just measured, the machine loaded to the full: how far it is off is told, and taken into account.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wenfang.core.ports import MeasuredReplica

from .client import Heard, ask_at_once, predict_request
from .gateway import SERVICE, MeasuredGateway
from .measure import Pair, length_of
from .search import Machine
from .simulate import Traffic
from .times import HostModel

__all__ = ["Way", "ask_bodies", "measure_way"]

AT_ONCE_MAX = 64
WAKING = 0.3
"""Share of the gateway's time for a lone request that is taken as the batch's where batches never grew."""


@dataclass(frozen=True, slots=True)
class Way:
    """What was found.

    Args:
        machine: with the host as it is, the client elsewhere.
        client_ms: processor time of the measuring client for a request.
        gateway_bytes: memory of the gateway.
        lone_ms: (median, p99) of one request at a time through the gateway.
        full_per_s: requests answered in a second by the machine at its limit, gateway and client on the same cores.
        expected_per_s: what the model expected there, before it was corrected.
    """

    machine: Machine
    client_ms: float
    gateway_bytes: int
    lone_ms: tuple[float, float]
    full_per_s: float
    expected_per_s: float


def ask_bodies(texts: Sequence[Pair], key: str, service: str = SERVICE) -> list[bytes]:
    """A request for each text."""
    inputs = [{"text": a, "text_b": b} if b else a for a, b in texts]
    return [predict_request(f"/predict/{service}", json.dumps({"inputs": [i]}, ensure_ascii=False).encode(), key) for i in inputs]


def measure_way(
    machine: Machine,
    gateway: MeasuredGateway,
    replicas: Sequence[MeasuredReplica],
    *,
    texts: Sequence[Pair],
    single_ms: float,
    seconds: float = 1.5,
    told: Callable[[], None] = lambda: None,
) -> Way:
    """Load the gateway with one request at a time, then to the full.

    Args:
        machine: with times and speeds; its host knows nothing of gateways yet.
        gateway: before ``replicas``, and asked by nobody else.
        replicas: all of them.
        texts: what is asked.
        single_ms: median round trip of a single text to a replica, as these texts come.
        seconds: for each of the two.
        told: called after each.
    """
    requests = ask_bodies(texts, gateway.key)
    ask_at_once(gateway.port, requests, 4, seconds=0.2, warm_s=0.0)
    lone, lone_cpu_ms, _ = _watched(gateway, requests, 1, seconds)
    told()
    at_once = max(2, min(AT_ONCE_MAX, 4 * len(replicas) * machine.curve.batch_max))
    full, full_cpu_ms, batch = _watched(gateway, requests, at_once, 1.5 * seconds)
    told()
    part = 1 - 1 / batch
    batch_ms = WAKING * lone_cpu_ms if part < 0.2 else min(0.9 * lone_cpu_ms, max(0.0, (lone_cpu_ms - full_cpu_ms) / part))
    client_ms = 1000 * full.cpu_s / max(len(full.latencies_ms), 1)
    path_ms = max(0.0, lone.ms(0.5) - single_ms - lone_cpu_ms - 1000 * lone.cpu_s / max(len(lone.latencies_ms), 1))
    host = replace(machine.host, request_ms=round(lone_cpu_ms - batch_ms, 5), batch_ms=round(batch_ms, 5), path_ms=round(path_ms, 4))
    lengths = tuple(length_of(t) for t in texts)
    corrected, expected = _corrected(replace(machine, host=host), lengths, len(replicas), at_once=at_once, client_ms=client_ms, full_per_s=full.per_s)
    return Way(corrected, client_ms, gateway.memory_bytes(), (lone.ms(0.5), lone.ms(0.99)), full.per_s, expected)


def _watched(gateway: MeasuredGateway, requests: Sequence[bytes], at_once: int, seconds: float) -> tuple[Heard, float, float]:
    """(what was heard, the gateway's processor time for a request, texts in a batch)."""
    batches, cpu_s = gateway.batches(), gateway.cpu_s()
    heard = ask_at_once(gateway.port, requests, at_once, seconds=seconds, warm_s=0.0)
    cpu_s, after = gateway.cpu_s() - cpu_s, gateway.batches()
    requests_all = max(1.0, after[1] - batches[1])  # those that came in after the end were answered, too
    return heard, 1000 * cpu_s / requests_all, max(1.0, requests_all / max(1.0, after[0] - batches[0]))


def _corrected(machine: Machine, lengths: Sequence[int], replicas: int, *, at_once: int, client_ms: float, full_per_s: float) -> tuple[Machine, float]:
    """The machine with its cores as fast as they were when all had to do; and the rate that was expected before."""
    traffic = Traffic(lengths, at_once=at_once)
    requests = 3000

    def rate(host: HostModel) -> float:
        return replace(machine, host=replace(host, client_ms=client_ms)).outcome(traffic, machine.policy(replicas), requests=requests).answered_per_s

    expected = rate(machine.host)
    host, off = machine.host, full_per_s / max(expected, 1e-9)
    for _ in range(3):
        if math.isclose(off, 1.0, abs_tol=0.02):
            break
        speeds = list(host.speeds) or [1.0]
        for n in range(1, len(speeds)):  # one alone was measured alone
            speeds[n] = min(1.0, max(0.3, speeds[n] * (1 + (off - 1) * n / (len(speeds) - 1))))
        host = replace(host, speeds=tuple(speeds))
        off = full_per_s / max(rate(host), 1e-9)
    return replace(machine, host=host), expected
