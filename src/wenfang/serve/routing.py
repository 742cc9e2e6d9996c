"""The routing table: which service answers with which model version, where its replicas listen, and whose key may ask.

An immutable value with an epoch, written by the control process and read by gateways; a gateway needs nothing else to answer.
Knows nothing of HTTP, stores or how replicas are started.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken

from .flow import Rate
from .graphs import Graph

__all__ = ["ROUTES_FILE", "Principal", "RoutedGraph", "RoutedModel", "RoutedService", "RoutingTable", "read_table", "replica_socket", "write_table"]

ROUTES_FILE = "routes.json"


class RoutedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model version and its replicas."""

    version: str
    """``name:number``, said in every answer."""
    task: str
    sockets: list[str]
    """Paths of the replicas' Unix sockets."""
    labels: list[str] = []
    warm: bool = False
    """Nobody asks it now, but somebody may in an instant: its replicas stay connected."""
    grows: bool = False
    """More replicas may come: a queue that stands is no overload yet."""


class RoutedService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named endpoint."""

    project: str
    model: str
    """Key of ``RoutingTable.models``."""
    rate: Rate | None = None
    shares: dict[str, float] = {}
    """While versions answer side by side: how many requests of one go to which model; else empty, all go to ``model``."""
    graph: str = ""
    """Key of ``RoutingTable.graphs``; then ``model`` is the first of those that answer. Empty: the model answers alone."""


class RoutedGraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several model versions that answer as one."""

    version: str
    """``name:number``, said in every answer."""
    task: str
    labels: list[str]
    graph: Graph


class Principal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whoever holds a key."""

    id: str
    permissions: list[str]
    project: str | None = None
    """None: every project."""
    expires_at: float | None = None
    """Seconds since 1970, UTC."""
    rate: Rate | None = None

    def may(self, permission: str, project: str) -> bool:
        """Whether the role has the permission (or ``*``) in that project."""
        return (permission in self.permissions or "*" in self.permissions) and (self.project is None or self.project == project)

    def expired(self) -> bool:
        """Whether the key's time is over."""
        return self.expires_at is not None and time.time() >= self.expires_at


class RoutingTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a gateway needs to know."""

    epoch: int
    services: dict[str, RoutedService] = {}
    """By name."""
    models: dict[str, RoutedModel] = {}
    """By id of the model version."""
    keys: dict[str, Principal] = {}
    """By SHA-256 of the key, hexadecimal."""
    rates: dict[str, Rate] = {}
    """By project; those that have a limit."""
    graphs: dict[str, RoutedGraph] = {}
    """By id."""

    def needs(self, service: RoutedService) -> set[str]:
        """Ids of the model versions that answer for a service."""
        return {service.model} if not service.graph else {step.model for step in self.graphs[service.graph].graph.steps.values()}


_decoder = msgspec.json.Decoder(RoutingTable)


def read_table(path: Path) -> RoutingTable:
    """The table in ``path``.

    Raises:
        Broken: `serve.no-routes`: missing, unreadable, or a service names a model that is not there.
    """
    try:
        table = _decoder.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as e:
        raise Broken("serve.no-routes", reason=getattr(e, "strerror", None) or str(e)) from e
    lost = sorted(name for name, s in table.services.items() if (s.graph and s.graph not in table.graphs) or not (table.needs(s) | s.shares.keys()) <= table.models.keys())
    if lost:
        raise Broken("serve.no-routes", reason=f"no model for {lost}")
    return table


def write_table(path: Path, table: RoutingTable) -> None:
    """Replace ``path`` atomically and durably, readable by the owner only."""
    write_file(path, msgspec.json.encode(table), mode=0o600)


def replica_socket(run: Path, model_version: str, index: int) -> Path:
    """Where replica ``index`` of a model version listens; short, since a socket's path may have 107 bytes.

    >>> replica_socket(Path("/h/run"), "mv_01jd3kexample0123456789abc", 2)
    PosixPath('/h/run/r123456789abc-2.sock')
    """
    return run / f"r{model_version[-12:]}-{index}.sock"
