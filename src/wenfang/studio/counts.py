"""How many replicas a service has: its number, or by the routing table, which is where the autoscaler's last word is kept."""

from __future__ import annotations

from collections.abc import Mapping

from wenfang.core.errors import WenfangError
from wenfang.core.ids import now
from wenfang.core.records import Service
from wenfang.serve.routing import ROUTES_FILE, RoutingTable, read_table
from wenfang.serve.windows import bounds_at

from .app import Studio

__all__ = ["Counts", "may_grow", "present_table", "replicas_now"]


def present_table(studio: Studio) -> RoutingTable:
    """What gateways route by now; an empty one if there is none."""
    try:
        return read_table(studio.home.run / ROUTES_FILE)
    except WenfangError:
        return RoutingTable(epoch=0)


Counts = Mapping[str, tuple[str, int, int]]
"""By id of the service: the model version, how many replicas of it the autoscaler wants, and how many it may have now."""


def replicas_now(service: Service, version: str, table: RoutingTable, counts: Counts | None = None) -> int:
    """How many replicas a service has with a model version, or shall begin with within the bounds that hold now.

    Args:
        service: its record.
        version: id of the model version.
        table: the present one.
        counts: the autoscaler's, where it runs.
    """
    if service.scaling is None:
        return service.replicas
    decided_for, decided, _ = (counts or {}).get(service.id, ("", 0, 0))
    if decided_for == version:
        return decided
    bounds = bounds_at(service.scaling, now())
    routed = table.services.get(service.name)
    if routed is None:
        return max(bounds.min, 1)
    count = len(table.models[routed.model].sockets)
    return max(bounds.min, min(bounds.max, count if routed.model == version else max(count, 1)))


def may_grow(service: Service, version: str, counts: Counts) -> bool:
    """Whether the autoscaler may have more replicas of this version answer for the service than it wants now."""
    decided_for, decided, most = counts.get(service.id, ("", 0, 0))
    return service.scaling is not None and decided_for == version and decided < most
