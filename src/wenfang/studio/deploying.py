"""How a service comes to answer with another model version: the new replicas first, by one of three strategies, then the records.

`surge`: all new replicas beside all old ones. `rolling`: one more process than the service has, replicas change one by one and both
versions answer meanwhile. `blue-green`: as surge, and every new replica must answer texts before anything changes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from wenfang.core.errors import Conflict, Invalid, Unsupported, WenfangError
from wenfang.core.ids import new_id
from wenfang.core.operation import Answer
from wenfang.core.records import GraphVersion, ModelVersion, Service
from wenfang.serve.compatibility import Changes

from .app import Studio
from .bundles import unpack_bundle
from .callers import told_or_refused
from .counts import present_table, replicas_now
from .replicas import Replicas, try_replica
from .targets import Target, main_model, models_of

__all__ = ["Deployed", "Strategy", "Way", "deploy_version", "deployed", "serve_version"]

Strategy = Literal["surge", "rolling", "blue-green"]


class Way(NamedTuple):
    """What a deploy says of how; None: as the service has it."""

    strategy: Strategy | None = None
    keep_warm_s: float | None = None
    probes: Sequence[str] = ()
    allow_breaking: bool = False
    """Although it breaks those who call the service now."""


class Deployed(Answer):
    """What answers now."""

    service: str
    id: str
    model_version: str
    model: str
    replicas: int
    rate: dict[str, float] = Field(default_factory=dict, description="what all callers may ask each second")
    strategy: Strategy = Field("surge", description="how it changes to another version")
    keep_warm_s: float = Field(0.0, description="how long the version before keeps its replicas after a change")
    breaks: list[tuple[str, dict[str, Any]]] = Field(
        default_factory=list[tuple[str, dict[str, Any]]], description="what a deploy broke for those who called before: keys of sentences and what they name"
    )
    adds: list[tuple[str, dict[str, Any]]] = Field(default_factory=list[tuple[str, dict[str, Any]]], description="what is new for them")


AS_IT_HAS = Way()


def deployed(service: Service, version: Target, count: int) -> Deployed:
    """The answer about a service and what it answers with, by ``count`` replicas."""
    return Deployed(
        service=service.name, id=service.id, model_version=version.id, model=f"{version.name}:{version.number}", replicas=count,
        rate=service.rate, strategy=service.strategy, keep_warm_s=service.keep_warm_s,
    )  # fmt: skip


def deploy_version(studio: Studio, service_name: str, version: Target, replicas: int = 0, *, way: Way = AS_IT_HAS, **fields: Any) -> Deployed:
    """Put the records that make ``service_name`` answer with ``version``; with a process tree, only after its replicas answer.

    Args:
        studio: where.
        service_name: made if there is none.
        version: what it shall answer with.
        replicas: how many; 0: as before.
        way: how.
        fields: others of the record that change.

    Raises:
        Conflict: `service.name-taken`, `service.breaks-callers`, `service.change-under-way`, `service.other-task`.
        Invalid: `service.no-room-to-keep-warm`.
        WenfangError: why a replica does not start; what answered before still does.
    """
    found = studio.tables.find(Service, where={"name": service_name}, limit=1)
    if found and found[0].project != version.project:
        raise Conflict("service.name-taken", service=service_name)
    changes = told_or_refused(studio, found[0], version, allow_breaking=way.allow_breaking) if found else Changes()
    fields |= _how(studio, service_name, found[0] if found else None, way)
    if replicas:
        fields["replicas"] = replicas
    if found and all(getattr(found[0], name) == value for name, value in fields.items()):
        service = found[0]
    elif found:
        service = found[0].model_copy(update={**fields, "revision": found[0].revision + 1})
        studio.update(service, found[0].revision)
    else:
        fields.setdefault("replicas", studio.settings.serve.replicas or len(os.sched_getaffinity(0)))
        service = Service(id=new_id("sv"), project=version.project, name=service_name, **fields)
        studio.put(service)
    count = serve_version(studio, service, version, way.probes)
    studio.point("service", service.id, version.id)
    studio.tell("service.deployed", service.id, model_version=version.id, strategy=service.strategy)
    return deployed(service, version, count).model_copy(update={"breaks": changes.breaking, "adds": changes.added})


def _how(studio: Studio, name: str, found: Service | None, way: Way) -> dict[str, Any]:
    """Fields of the record."""
    strategy = way.strategy or (found.strategy if found else "surge")
    kept_s = found.keep_warm_s if found and strategy == found.strategy else 0.0
    if strategy == "blue-green" and not kept_s:
        kept_s = studio.settings.serve.keep_warm_s
    kept_s = kept_s if way.keep_warm_s is None else way.keep_warm_s
    if strategy == "rolling" and kept_s:
        raise Invalid("service.no-room-to-keep-warm", service=name)
    return {"strategy": strategy, "keep_warm_s": kept_s}


def serve_version(studio: Studio, service: Service, version: Target, probes: Sequence[str] = ()) -> int:
    """Have as many replicas of ``version`` (of a graph: of each model version it asks) answering as ``service`` begins with, one at least; returns how many.

    Raises:
        Unsupported: `graph.no-rolling`.
        WenfangError: why one does not start, or does not answer ``probes``; what was started for nothing is taken away.
    """
    models, table = models_of(studio.tables, version), present_table(studio)
    for model in models:
        unpack_bundle(model, studio.blobs, studio.home.cache)
    count = max(1, replicas_now(service, main_model(version), table))
    if studio.runtime is None:
        return count
    replicas = Replicas(studio, studio.runtime, service.scaling.resources.memory_bytes if service.scaling else 0)
    known = {model.id for model in models if replicas.routed(model) >= count}
    if service.strategy == "rolling" and studio.roll is not None and len(known) < len(models):
        routed = table.services.get(service.name)
        if isinstance(version, GraphVersion) or (routed is not None and routed.graph):
            raise Unsupported("graph.no-rolling", service=service.name)
        studio.afterwards.append(studio.roll(service, version, probes))
        return count
    texts = probes if isinstance(version, ModelVersion) else ()
    try:
        for model in models:
            replicas.start(model, count)
            for i in range(count) if texts or (service.strategy == "blue-green" and model.id not in known) else ():
                try_replica(studio, model, i, texts)
    except WenfangError:
        for model in models:
            replicas.drop(model)
        raise
    return count
