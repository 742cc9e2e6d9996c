"""How many replicas a service has: its number, or by the routing table, which is where the autoscaler's last word is kept."""

from __future__ import annotations

from collections.abc import Mapping

from wenfang.core.errors import WenfangError
from wenfang.core.ids import now
from wenfang.core.records import Service
from wenfang.serve.routing import ROUTES_FILE, RoutingTable, read_table
from wenfang.serve.windows import bounds_at

from .app import Studio

__all__ = ["present_table", "replicas_now"]


def present_table(studio: Studio) -> RoutingTable:
    """What gateways route by now; an empty one if there is none."""
    try:
        return read_table(studio.home.run / ROUTES_FILE)
    except WenfangError:
        return RoutingTable(epoch=0)


def replicas_now(service: Service, version: str, table: RoutingTable, counts: Mapping[str, int] | None = None) -> int:
    """How many replicas a service has with a model version, or shall begin with, within the bounds that hold now.

    Args:
        service: its record.
        version: id of the model version.
        table: the present one.
        counts: by id of the service, where somebody knows better than the table.
    """
    if service.scaling is None:
        return service.replicas
    bounds = bounds_at(service.scaling, now())
    routed = table.services.get(service.name)
    if routed is None:
        return max(bounds.min, 1)
    count = (counts or {}).get(service.id, len(table.models[routed.model].sockets))
    return max(bounds.min, min(bounds.max, count if routed.model == version else max(count, 1)))
