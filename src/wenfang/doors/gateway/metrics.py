"""Counters of one gateway and their Prometheus text. Counting is one dictionary look-up and one addition; nothing is formatted until asked for."""

from __future__ import annotations

import os
import resource
from bisect import bisect_left
from pathlib import Path
from typing import Any

from wenfang.serve.figures import WAIT_BOUNDS_MS
from wenfang.serve.router import Router

__all__ = ["BUCKETS_S", "Metrics", "render"]

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
Family = dict[str, Any]


class _Series:
    """Requests of one (service, protocol): a count by status, a histogram of seconds."""

    __slots__ = ("buckets", "by_status", "seconds")

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0


class Metrics:
    """What one gateway counts."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}
        self.connections = 0
        self.connections_total = 0
        self.auth_failures: dict[str, int] = {}
        self.rate_limited: dict[tuple[str, str], int] = {}
        """By (key, service or project; what ran out)."""
        self.cut_off: dict[str, int] = {}
        """Connections ended by a guard, by its code."""

    def observe(self, service: str, protocol: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Cost: under a microsecond.
        """
        series = self._series.get((service, protocol))
        if series is None:
            series = self._series[service, protocol] = _Series()
        series.by_status[status] = series.by_status.get(status, 0) + 1
        series.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        series.seconds += seconds

    def families(self, router: Router, gateway: str, in_flight: int = 0) -> list[Family]:
        """Everything as plain values: ``{"name", "type", "help", "samples": [[suffix, labels, value]]}``; can travel in a frame."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        mine: dict[str, str] = {"gateway": gateway}
        requests: list[Any] = []
        seconds: list[Any] = []
        for (service, protocol), series in self._series.items():
            labels = {**mine, "service": service, "protocol": protocol}
            requests += [["", {**labels, "status": str(status)}, n] for status, n in series.by_status.items()]
            seconds += _histogram(labels, BUCKETS_S, series.buckets, series.seconds)
        families = [
            _family("wenfang_requests_total", "counter", "Requests answered.", requests),
            _family("wenfang_request_seconds", "histogram", "From the headers to the answer.", seconds),
            _family("wenfang_requests_in_flight", "gauge", "Requests being answered.", [["", mine, in_flight]]),
            _family("wenfang_connections", "gauge", "Open connections.", [["", mine, self.connections]]),
            _family("wenfang_connections_total", "counter", "Connections accepted.", [["", mine, self.connections_total]]),
            _family("wenfang_auth_failures_total", "counter", "Requests without a right to be answered.", [["", {**mine, "reason": k}, n] for k, n in self.auth_failures.items()]),
            _family("wenfang_cut_off_total", "counter", "Connections a guard has ended.", [["", {**mine, "reason": k}, n] for k, n in self.cut_off.items()]),
            _family("wenfang_rate_limited_total", "counter", "Requests beyond a limit.", [["", {**mine, "owner": o, "what": w}, n] for (o, w), n in self.rate_limited.items()]),
            _family("wenfang_routes_epoch", "gauge", "Epoch of the routing table.", [["", mine, router.table.epoch]]),
            _family("wenfang_gateway_cpu_seconds_total", "counter", "Processor time of the gateway.", [["", mine, usage.ru_utime + usage.ru_stime]]),
            _family("wenfang_gateway_memory_bytes", "gauge", "Resident memory of the gateway.", [["", mine, _resident_bytes()]]),
        ]
        return families + _pool_families(router, mine)


def _pool_families(router: Router, mine: dict[str, str]) -> list[Family]:
    rows = [({**mine, "model": pool.version}, pool, pool.state()) for pool in router.pools.values()]
    sizes: list[Any] = []
    bounds = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    for labels, pool, _ in rows:
        buckets = [0] * (len(bounds) + 1)
        for size, n in pool.figures.batch_sizes.items():
            buckets[bisect_left(bounds, size)] += n
        sizes += _histogram(labels, bounds, buckets, pool.figures.texts)
    waits: list[Any] = []
    bounds_ms = WAIT_BOUNDS_MS[::4]
    for labels, pool, _ in rows:
        classes = [sum(pool.figures.waits[max(0, at - 3) : at + 1]) for at in range(0, len(WAIT_BOUNDS_MS), 4)]
        waits += _histogram(labels, tuple(ms / 1000 for ms in bounds_ms), [*classes, sum(pool.figures.waits) - sum(classes)], pool.figures.queue_ms / 1000)
    plain = (
        ("wenfang_queue_depth", "gauge", "Texts waiting for a replica.", "waiting"),
        ("wenfang_texts_in_flight", "gauge", "Texts in replicas.", "in_flight"),
        ("wenfang_replicas_ready", "gauge", "Replicas that answer.", "ready"),
        ("wenfang_texts_quarantined", "gauge", "Texts that no replica is given any more.", "quarantined"),
        ("wenfang_replicas_wanted", "gauge", "Replicas of the routing table.", "replicas"),
    )
    figures = (
        ("wenfang_texts_total", "Texts answered.", "texts"),
        ("wenfang_texts_asked_total", "Texts that needed a replica, refused ones too.", "asked"),
        ("wenfang_replica_restarts_total", "Connections to replicas that broke and came back.", "lost"),
        ("wenfang_replicas_recycled_total", "Replicas that left for a successor.", "recycled"),
        ("wenfang_texts_retried_total", "Texts given to another replica after one died.", "retried"),
        ("wenfang_requests_refused_total", "Requests refused because the queue was full.", "refused"),
        ("wenfang_texts_quarantined_total", "Texts that killed replicas and were quarantined.", "quarantined"),
        ("wenfang_requests_quarantined_total", "Requests refused for a quarantined text.", "turned_away"),
        ("wenfang_requests_late_total", "Requests whose deadline passed.", "late"),
    )
    return [
        _family("wenfang_batch_size", "histogram", "Texts in one batch.", sizes),
        _family("wenfang_queue_wait_seconds", "histogram", "Until a text went to a replica.", waits),
        _family("wenfang_replica_busy_seconds_total", "counter", "Time in which replicas had work.", [["", labels, p.figures.busy_s] for labels, p, _ in rows]),
        *(_family(name, kind, text, [["", labels, state[key]] for labels, _, state in rows]) for name, kind, text, key in plain),
        *(_family(name, "counter", text, [["", labels, getattr(pool.figures, key)] for labels, pool, _ in rows]) for name, text, key in figures),
        _family("wenfang_cache_hits_total", "counter", "Texts whose answer was kept from before.", [["", labels, p.sharing.hits] for labels, p, _ in rows if p.sharing]),
        _family("wenfang_texts_joined_total", "counter", "Texts answered with another request's.", [["", labels, p.sharing.joined] for labels, p, _ in rows if p.sharing]),
        _family("wenfang_graph_steps_total", "counter", "Texts by what came of a graph's step.", _graph_samples(router, mine)),
        _family("wenfang_cache_bytes", "gauge", "Texts and answers kept, estimated.", [["", mine, router.cache.size_bytes]] if router.cache else []),
        _family("wenfang_model_seconds_total", "counter", "Time replicas spent in the model.", [["", labels, pool.figures.model_ms / 1000] for labels, pool, _ in rows]),
    ]


def _graph_samples(router: Router, mine: dict[str, str]) -> list[Any]:
    return [["", {**mine, "graph": c.version, "step": step, "outcome": outcome}, n] for c in router.graphs for (step, outcome), n in c.counts.items()]


def _family(name: str, kind: str, text: str, samples: list[Any]) -> Family:
    return {"name": name, "type": kind, "help": text, "samples": samples}


def _histogram(labels: dict[str, str], bounds: tuple[float, ...], buckets: list[int], total: float) -> list[Any]:
    samples: list[Any] = []
    cumulative = 0
    for bound, n in zip((*map(_number, bounds), "+Inf"), buckets, strict=True):
        cumulative += n
        samples.append(["_bucket", {**labels, "le": bound}, cumulative])
    return [*samples, ["_sum", labels, total], ["_count", labels, cumulative]]


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def render(gateways: list[list[Family]]) -> bytes:
    """The families of one or more gateways as one Prometheus text exposition (format 0.0.4)."""
    merged: dict[str, Family] = {}
    for families in gateways:
        for family in families:
            merged.setdefault(family["name"], {**family, "samples": []})["samples"].extend(family["samples"])
    lines: list[str] = []
    for name, family in merged.items():
        lines += [f"# HELP {name} {family['help']}", f"# TYPE {name} {family['type']}"]
        for suffix, labels, value in family["samples"]:
            inner = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
            lines.append(f"{name}{suffix}{{{inner}}} {_number(value)}")
    return ("\n".join(lines) + "\n").encode()
