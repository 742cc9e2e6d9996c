"""The routing table that the records ask for: services, their model versions and replicas, keys, limits. Reads records, starts nothing."""

from __future__ import annotations

from itertools import takewhile

import msgspec

from wenfang.core.ids import now
from wenfang.core.records import ApiKey, GraphVersion, ModelVersion, Project, Service
from wenfang.guard.roles import permissions_of
from wenfang.serve.flow import Rate
from wenfang.serve.interface import LABELS_LISTED
from wenfang.serve.routing import Principal, RoutedGraph, RoutedModel, RoutedService, RoutingTable, replica_socket

from .app import Studio
from .counts import Counts, may_grow, replicas_now
from .targets import main_model, models_of, routed_graph, target_of

__all__ = ["routed_model", "wanted_table"]


def wanted_table(studio: Studio, present: RoutingTable, counts: Counts) -> RoutingTable:
    """The table the records ask for.

    Args:
        studio: whose records.
        present: the table that holds now; its epoch is kept.
        counts: of replicas, where they follow the load.
    """
    tables = studio.tables
    services: dict[str, RoutedService] = {}
    models: dict[str, RoutedModel] = {}
    graphs: dict[str, RoutedGraph] = {}
    targets = {p.key: p.target for p in tables.pointers("service")}
    growing: set[str] = set()
    for service in tables.find(Service):
        target = target_of(tables, targets.get(service.id, ""))
        if target is None:
            continue
        main = main_model(target)
        wanted = max(int(isinstance(target, GraphVersion)), replicas_now(service, main, present, counts))  # who asks its first step would wake nobody: a graph does not rest
        for version in models_of(tables, target):
            models[version.id] = routed_model(studio, version, wanted, models.get(version.id))
        for before in _warm(studio, service) if service.keep_warm_s else ():
            count = len(present.models[before.id].sockets) if before.id in present.models else service.replicas
            models[before.id] = routed_model(studio, before, count, models.get(before.id), warm=True)
        if may_grow(service, main, counts):
            growing |= {version.id for version in models_of(tables, target)}
        if isinstance(target, GraphVersion):
            graphs[target.id] = routed_graph(target)
        services[service.name] = RoutedService(project=service.project, model=main, rate=_rate(service.rate), graph=target.id if isinstance(target, GraphVersion) else "")
    models |= {id: msgspec.structs.replace(models[id], grows=True) for id in growing}
    rates = {p.name: Rate(**p.rate) for p in tables.find(Project) if p.rate}
    return RoutingTable(epoch=present.epoch, services=services, models=models, keys=_keys(studio), rates=rates, graphs=graphs)


def routed_model(studio: Studio, version: ModelVersion, count: int, beside: RoutedModel | None = None, *, warm: bool = False) -> RoutedModel:
    """``count`` replicas of ``version`` as the table names them; ``beside``: what another service wants of it."""
    if beside is not None:
        count, warm = max(count, len(beside.sockets)), warm or beside.warm
    sockets = [str(replica_socket(studio.home.run, version.id, i)) for i in range(count)]
    return RoutedModel(version=f"{version.name}:{version.number}", task=version.task, sockets=sockets, labels=version.labels[:LABELS_LISTED], warm=warm)


def _warm(studio: Studio, service: Service) -> list[ModelVersion]:
    """What answered before the present version, while it is kept warm."""
    history = studio.tables.pointers("service", service.id)
    present = [*takewhile(lambda p: p.target == history[0].target, history)]
    if len(present) == len(history) or (now() - present[-1].at).total_seconds() >= service.keep_warm_s:
        return []
    target = target_of(studio.tables, history[len(present)].target)
    return [] if target is None else models_of(studio.tables, target)


def _keys(studio: Studio) -> dict[str, Principal]:
    return {
        k.digest: Principal(
            id=k.id, permissions=sorted(permissions_of(k.role)), project=k.project, expires_at=k.expires_at.timestamp() if k.expires_at else None, rate=_rate(k.rate)
        )
        for k in studio.tables.find(ApiKey)
        if k.revoked_at is None and (k.expires_at is None or k.expires_at > now())
    }


def _rate(given: dict[str, float]) -> Rate | None:
    return Rate(**given) if given else None
