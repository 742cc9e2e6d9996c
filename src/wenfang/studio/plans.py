"""The operation that says what a rate needs: measured on this machine, reckoned with the gateway's own policy."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from wenfang.core.durable import write_file
from wenfang.core.errors import Conflict, Denied, Invalid, Unsupported
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import ModelVersion
from wenfang.core.words import say
from wenfang.serve.asking import WRITING
from wenfang.serve.planning.machine import Measured, measure_machine
from wenfang.serve.planning.measure import length_of
from wenfang.serve.planning.search import Found, Wanted, find
from wenfang.serve.planning.simulate import Traffic

from .app import Studio
from .batch import PATH
from .bundles import unpack_bundle
from .names import ProjectName
from .plan_picture import rate_picture
from .plan_says import costs, row, sentences
from .plan_texts import Recent, recent_arrivals, texts_of
from .services import find_service

__all__: list[str] = []

GATEWAY = "wenfang.doors.gateway:main"


class Plan(Request):
    """A rate and a limit."""

    service: str = Field(json_schema_extra={"positional": True})
    rps: float = Field(gt=0, le=1_000_000, description="requests each second")
    p99: str | float = Field(description="limit of the p99 of a request, such as 50ms")
    file: str | None = Field(None, description="texts as they come in: any format that imports", json_schema_extra=PATH)
    dataset: str | None = Field(None, description="instead of a file: dv_… or name:number or name (its newest)")
    text: str | None = Field(None, description="column of the text; guessed unless given")
    text_b: str | None = Field(None, description="column of the second text of pairs; guessed unless given")
    texts_each: int | None = Field(None, ge=1, le=1000, description="texts in one request; as they came lately unless given, else 1")
    dispersion: float | None = Field(
        None, ge=0, le=1000, description="of arrivals: 1 by chance (Poisson), more in bursts, less at even times; as they came lately unless given, else 1"
    )
    askers: int = Field(1, ge=1, le=1000, description="keys that share the rate; they take turns")
    client_ms: float = Field(0.0, ge=0, le=1000, description="processor time a request takes of a client on the same cores; 0: clients are elsewhere")
    measure_s: float = Field(8.0, ge=1, le=600, description="how long service times are measured; the whole takes about three times as long")
    followed: int = Field(6000, ge=500, le=1_000_000, description="requests followed in each simulation: more, less noise")
    plot: str | None = Field(None, description="file for the picture: latency over rate, .svg", json_schema_extra=PATH)
    project: ProjectName = "default"


class Planned(Answer):
    """What the rate needs and what it will be like."""

    service: str
    model: str
    met: bool = Field(description="the limit holds at the rate on this machine")
    replicas: int = Field(description="the fewest that hold it; else those that come nearest")
    threads: int = Field(1, description="of each replica")
    batch: int = Field(description="texts in one batch at most")
    gateways: int
    cores: int = Field(description="of this machine")
    cores_needed: int = Field(description="0: no number is enough")
    expected: dict[str, Any] | None = Field(description="at the rate, each figure with low and high; none where more comes in than goes out")
    highest_per_s: float = Field(description="within the limit, with these replicas")
    machine_per_s: float = Field(description="within the limit, with as many as are best here")
    machine_replicas: int
    headroom: float = Field(description="share by which the rate may grow within the limit")
    memory_bytes: int = Field(description="of the replicas and gateways")
    free_bytes: int = Field(description="memory of this machine that was free")
    cost: dict[str, Any]
    says: list[tuple[str, dict[str, Any]]]
    table: list[dict[str, float]] = Field(description="other rates, with those replicas")
    measured: dict[str, Any]


@operation("service.plan", permission="service:write", http="POST /api/v1/services/{service}/plan", long=True)
def plan_service(studio: Studio, request: Plan) -> Planned:
    """Say what a rate of requests needs within a limit of latency: replicas, batch, memory, cost, head-room; measured on this machine."""
    limit_ms = milliseconds(request.p99)
    service = find_service(studio, request.service)
    pointer = studio.tables.pointer("service", service.id)
    if pointer is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    version = studio.get(ModelVersion, pointer.target)
    if version.task in WRITING:
        raise Unsupported("plan.writes", service=service.name)
    plot = _plot_path(studio, request)
    recent = recent_arrivals(studio, version)
    texts, said = texts_of(studio, version, recent=recent, file=request.file, dataset=request.dataset, text=request.text, text_b=request.text_b, project=service.project)
    measured = _measured(studio, version, texts, request)
    if limit_ms < measured.way.lone_ms[0]:
        raise Invalid("plan.limit-too-low", limit_ms=limit_ms, lone_ms=round(measured.way.lone_ms[0], 3))
    traffic = _traffic(request, texts, recent)
    studio.progress.stage("plan-search")
    found = find(measured.machine, Wanted(traffic, limit_ms), told=studio.progress.advance)
    answer = _answered(studio, version, request, found, measured, traffic, limit_ms, said)
    if plot is not None and answer.table:
        title = say("plan.title", service=service.name, model=answer.model, replicas=found.replicas if found.met else found.machine_per_s[1], cores=answer.cores)
        write_file(plot, rate_picture(answer.table, title=title, limit_ms=limit_ms, rate_per_s=request.rps).encode())
    return answer


def _traffic(request: Plan, texts: list[tuple[str, str]], recent: Recent | None) -> Traffic:
    """What is asked for; where nothing was said, as it came lately."""
    each = request.texts_each or (max(1, round(recent.texts / max(recent.requests, 1))) if recent is not None else 1)
    dispersion = request.dispersion if request.dispersion is not None else min(1000.0, recent.dispersion) if recent is not None else 1.0
    return Traffic(tuple(map(length_of, texts)), request.rps, texts_each=each, dispersion=dispersion, askers=request.askers)


def milliseconds(given: str | float) -> float:
    """``50ms``, ``0.05s``, or a bare number.

    >>> milliseconds("50ms"), milliseconds("0.05 s"), milliseconds(50)
    (50.0, 50.0, 50.0)
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|)", str(given).strip())
    value = float(found[1]) * (1000 if found[2] == "s" else 1) if found else 0.0
    if not 0 < value <= 3_600_000:
        raise Invalid("plan.bad-limit", value=str(given)[:40])
    return value


def _plot_path(studio: Studio, request: Plan) -> Path | None:
    if request.plot is None:
        return None
    if studio.actor is None or not studio.actor.local:
        raise Denied("plan.plot-is-local")
    path = Path(request.plot).expanduser()
    if path.suffix.lower() != ".svg":
        raise Invalid("plan.plot-name", path=request.plot[:200])
    return path


def _measured(studio: Studio, version: ModelVersion, texts: list[tuple[str, str]], request: Plan) -> Measured:
    if studio.measuring is None:
        raise Unsupported("plan.not-here")
    bundle = unpack_bundle(version, studio.blobs, studio.home.cache)
    serve, progress = studio.settings.serve, studio.progress
    progress.stage("plan-measure")
    found = measure_machine(studio.measuring, bundle, texts=texts, serve=serve, task=version.task, gateway_entry=GATEWAY, budget_s=request.measure_s, told=progress.advance)
    return replace(found, machine=replace(found.machine, host=replace(found.machine.host, client_ms=request.client_ms), requests=request.followed))


def _answered(
    studio: Studio, version: ModelVersion, request: Plan, found: Found, measured: Measured, traffic: Traffic, limit_ms: float, said: tuple[str, dict[str, Any]]
) -> Planned:
    machine, way, cores = measured.machine, measured.way, measured.machine.host.cores
    cost = costs(found, studio.settings.price, cores=cores, rate_per_s=request.rps, replica_bytes=measured.replica_bytes, gateway_bytes=way.gateway_bytes)
    expected = None if found.expected is None else {k: v for k, v in asdict(found.expected).items() if k not in {"rate_per_s", "refused"}}
    return Planned(
        service=request.service,
        model=f"{version.name}:{version.number}",
        met=found.met,
        replicas=found.replicas,
        threads=1,
        batch=found.batch,
        gateways=found.gateways,
        cores=cores,
        cores_needed=found.cores,
        expected=expected,
        highest_per_s=round(found.highest_per_s, 2),
        machine_per_s=round(found.machine_per_s[0], 2),
        machine_replicas=found.machine_per_s[1],
        headroom=round(found.highest_per_s / request.rps - 1, 4),
        memory_bytes=found.replicas * measured.replica_bytes + found.gateways * way.gateway_bytes,
        free_bytes=measured.free_bytes,
        cost=cost,
        says=[*sentences(found, measured, cost, rate_per_s=request.rps, limit_ms=limit_ms, client_ms=request.client_ms), said],
        table=[row(e) for e in found.table],
        measured={
            "times": asdict(machine.times) | {"spread": [machine.times.spread[int(q * (len(machine.times.spread) - 1))] for q in (0.0, 0.5, 0.95, 1.0)]},
            "host": asdict(machine.host),
            "curve": asdict(machine.curve),
            "traffic": asdict(replace(traffic, lengths=sorted(traffic.lengths)[:: max(1, len(traffic.lengths) // 20)])),
            "rounds": machine.rounds,
            "error": round(measured.timed.error, 4),
            "lone_ms": way.lone_ms,
            "client_ms": round(way.client_ms, 4),
            "full_per_s": round(way.full_per_s, 1),
            "full_expected_per_s": round(way.expected_per_s, 1),
            "replica_bytes": measured.replica_bytes,
            "gateway_bytes": way.gateway_bytes,
            "load": round(measured.load, 2),
        },
    )
