"""A capacity plan in words and money."""

from __future__ import annotations

from typing import Any

from wenfang.core.settings import Price
from wenfang.serve.planning.machine import Measured
from wenfang.serve.planning.search import Expected, Found

__all__ = ["costs", "row", "sentences"]

BUSY = 0.5
"""Runnable processes a core, above which the measurement says so."""
OFF = 0.1
"""The model of the queue was this far off at full load: said, too."""
Said = list[tuple[str, dict[str, Any]]]


def row(expected: Expected) -> dict[str, float]:
    """A row of the table."""
    return {
        "rate_per_s": round(expected.rate_per_s, 1),
        "p50_ms": round(expected.p50_ms.value, 2),
        "p95_ms": round(expected.p95_ms.value, 2),
        "p99_ms": round(expected.p99_ms.value, 2),
        "p99_low_ms": round(expected.p99_ms.low, 2),
        "p99_high_ms": round(expected.p99_ms.high, 2),
        "utilisation": round(expected.utilisation.value, 3),
        "batch_mean": round(expected.batch_mean, 2),
    }


def costs(found: Found, price: Price, *, cores: int, rate_per_s: float, replica_bytes: int, gateway_bytes: int) -> dict[str, Any]:
    """Whole cores and memory by the hour: those of the plan, or of the bigger machine where this one is too small.

    >>> costs(Found(True, 2, 8, 1, None, 0, (0, 1), 4, []), Price(core_hour=0.25, gigabyte_hour=0.1, currency="CNY"), cores=4, rate_per_s=100, replica_bytes=10**9, gateway_bytes=0)["per_hour"]
    0.95
    """
    paid = min(cores, found.replicas + found.gateways) if found.met else found.cores
    replicas = found.replicas if found.met else max(1, found.cores - found.gateways)
    gigabytes = (replicas * replica_bytes + found.gateways * gateway_bytes) / 1e9
    per_hour = paid * price.core_hour + gigabytes * price.gigabyte_hour
    return {
        "cores": paid,
        "memory_gb": round(gigabytes, 3),
        "per_hour": round(per_hour, 4),
        "per_million": round(per_hour / (rate_per_s * 3600) * 1e6, 4),
        "currency": price.currency,
    }


def sentences(found: Found, measured: Measured, cost: dict[str, Any], *, rate_per_s: float, limit_ms: float, client_ms: float) -> Said:
    """What to know, the verdict first."""
    said = _met(found, rate_per_s, limit_ms) if found.met else _not_met(found, measured, rate_per_s, limit_ms)
    if found.met and found.batch < measured.machine.curve.batch_max:
        said.append(("plan.batch", {"batch": found.batch, "own": measured.machine.curve.batch_max}))
    if found.gateways > 1:
        said.append(("plan.gateways", {"gateways": found.gateways}))
    if measured.machine.replicas_max < measured.machine.host.cores:
        said.append(("plan.cramped", {"replicas": measured.machine.replicas_max, "replica_mb": measured.replica_bytes / 1e6}))
    if found.met or found.cores:
        said.append(("plan.cost", cost))
    if client_ms:
        said.append(("plan.client", {"client_ms": client_ms}))
    way = measured.way
    if abs(way.full_per_s / max(way.expected_per_s, 1e-9) - 1) > OFF:
        said.append(("plan.off", {"full": way.full_per_s, "expected": way.expected_per_s}))
    if measured.load > BUSY:
        said.append(("plan.busy", {"load": measured.load}))
    return said


def _met(found: Found, rate_per_s: float, limit_ms: float) -> Said:
    assert found.expected is not None
    e, p99 = found.expected, found.expected.p99_ms
    about = {"rate_per_s": rate_per_s, "limit_ms": limit_ms, "replicas": found.replicas, "batch": found.batch}
    return [
        ("plan.met", about | {"p50": e.p50_ms.value, "p95": e.p95_ms.value, "p99": p99.value, "low": p99.low, "high": p99.high, "busy": e.utilisation.value}),
        ("plan.headroom", {"per_s": found.highest_per_s, "share": max(0.0, found.highest_per_s / rate_per_s - 1)}),
        ("plan.holds", {"per_s": found.machine_per_s[0], "replicas": found.machine_per_s[1]}),
    ]


def _not_met(found: Found, measured: Measured, rate_per_s: float, limit_ms: float) -> Said:
    if not found.cores:
        said: Said = [("plan.never-met", {"limit_ms": limit_ms})]
    else:
        said = [("plan.not-met", {"rate_per_s": rate_per_s, "limit_ms": limit_ms, "cores": found.cores, "have": measured.machine.host.cores})]
    said.append(("plan.full", {}) if found.expected is None else ("plan.nearest", {"p99": found.expected.p99_ms.value}))
    per_s = found.machine_per_s[0]
    if per_s:
        said.append(("plan.holds", {"per_s": per_s, "replicas": found.machine_per_s[1]}))
        if found.expected is not None:
            said.append(("plan.faster", {"p99": found.expected.p99_ms.high * 1.1, "times": rate_per_s / per_s}))
    return said
