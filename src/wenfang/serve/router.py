"""Keeps a pool for every model version of the present routing table and changes tables without a gap.

A request takes its pool in one look-up of one immutable table. A new table becomes the present one only when its pools have a
replica that answers; the pools of the old one then finish what they have and close. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wenfang.core.errors import Broken, Invalid, NotFound, WenfangError
from wenfang.core.registry import nearest

from .cache import AnswerCache
from .composing import Composed
from .graphs import Plan
from .pool import Limits, Pool
from .routing import Principal, RoutedGraph, RoutedModel, RoutedService, RoutingTable, read_table

__all__ = ["Router"]

FINISHED_POLL_S = 0.005
log = logging.getLogger("wenfang.router")


class Router:
    """Must be used on a running loop.

    Args:
        routes: file of the routing table.
        limits: of every pool.
        cache: of all of them; None: every text is asked.
    """

    def __init__(self, routes: Path, limits: Limits, cache: AnswerCache | None = None) -> None:
        self.routes = routes
        self.limits = limits
        self.cache = cache
        self.on_quarantine: Callable[[Pool, str], None] | None = None
        """Told the pool and the digest of a text that was quarantined."""
        self.table = RoutingTable(epoch=-1)
        self._pools: dict[str, Pool] = {}
        self._composed: dict[str, tuple[Composed, RoutedModel]] = {}
        """By id of the graph."""
        self._by_name: dict[str, Composed] = {}
        """By name of the service; only those that answer with a graph."""
        self._draining: set[asyncio.Task[None]] = set()
        self.stranded = asyncio.Event()
        """A text came for which there is no replica, by intention; whoever starts them clears it."""
        self._turn = asyncio.Lock()

    @property
    def pools(self) -> dict[str, Pool]:
        """By id of the model version; only those of the present table, the warm ones too."""
        return self._pools

    @property
    def ready(self) -> bool:
        """A table is there and every service has a replica that answers, or none by intention."""
        return self.table.epoch >= 0 and all(self.service_ready(name) for name in self.table.services)

    def service_ready(self, name: str) -> bool:
        """Whether a service of the table can answer, or rests by intention."""
        composed = self._by_name.get(name)
        return composed.ready if composed is not None else bool(self._pools[self.table.services[name].model].answers)

    @property
    def graphs(self) -> list[Composed]:
        """Those that services answer with."""
        return [composed for composed, _ in self._composed.values()]

    def composed(self, name: str) -> Composed | None:
        """The graph that a service of the table answers with; None: a model version does."""
        return self._by_name.get(name)

    async def load(self, *, wait_s: float = 10.0, drain: bool = False) -> int:
        """Read the file and let its table become the present one; returns the epoch. From then on nothing new goes by the old one.

        Args:
            wait_s: for the first replica of each new model version; then the table is taken anyway, and requests wait in its queues.
            drain: also wait until the pools of the old table have finished.

        Raises:
            Broken: `serve.no-routes`; the present table stays.
        """
        async with self._turn:
            table = read_table(self.routes)
            if table != self.table:
                await self._take(table, wait_s)
        if drain and self._draining:
            await asyncio.gather(*self._draining)
        return self.table.epoch

    async def _take(self, table: RoutingTable, wait_s: float) -> None:
        asked, before = _asked(table), _asked(self.table)
        plans = {id: self._composed[id][0].plan if id in self._composed else _plan(graph) for id, graph in table.graphs.items()}
        used = asked | {m for m, routed in table.models.items() if routed.warm}
        fresh = {m: Pool(m, table.models[m].version, table.models[m].sockets, self.limits, self.cache) for m in used if m not in self._pools}
        for pool in fresh.values():
            pool.on_quarantine = self.on_quarantine
            pool.stranded = self.stranded
        if wanted := fresh.keys() & asked:
            await asyncio.gather(*(fresh[m].until_ready(wait_s) for m in wanted))
        kept = {m: pool for m, pool in self._pools.items() if m in used}
        for m, pool in kept.items():
            pool.set_sockets(table.models[m].sockets)
        left = [pool for m, pool in self._pools.items() if m not in kept]
        self._pools = kept | fresh
        through = self.graphs
        self._compose(table, plans)
        self.table = table
        for m, pool in self._pools.items():
            pool.expect_more(table.models[m].grows)
        gone = [composed for composed in through if composed not in self.graphs]
        for work in [*(_drained(pool, gone) for pool in left), *(_finished(pool, gone, all_of_it=m in before - asked) for m, pool in kept.items())]:
            task = asyncio.get_running_loop().create_task(work)
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
        log.info("epoch %d: %d services, %d model versions, %d keys", table.epoch, len(table.services), len(used), len(table.keys))

    def _compose(self, table: RoutingTable, plans: Mapping[str, Plan]) -> None:
        """Graphs over the pools of the new table; one that stays, stays with its pools and its counts."""
        composed: dict[str, tuple[Composed, RoutedModel]] = {}
        tasks = {id: model.task for id, model in table.models.items()}
        for id in sorted({s.graph for s in table.services.values()} - {""}):
            graph, kept = table.graphs[id], self._composed.get(id)
            one = kept[0] if kept is not None and all(self._pools[m] is pool for m, pool in kept[0].pools.items()) else Composed(graph.version, plans[id], self._pools, tasks)
            composed[id] = one, RoutedModel(graph.version, graph.task, [], graph.labels)
        self._composed = composed
        self._by_name = {name: composed[s.graph][0] for name, s in table.services.items() if s.graph}

    async def load_if_there(self, *, wait_s: float = 0.0) -> None:
        """At start: take the table that an earlier control process left, if any; ``wait_s`` as of ``load``."""
        try:
            await self.load(wait_s=wait_s)
        except WenfangError as e:
            log.info("no routing table yet: %s", e)

    def service(self, name: str, principal: Principal | None = None) -> RoutedService:
        """The service called ``name``; to a key of one project, services of others look like none.

        Raises:
            NotFound: `serve.unknown-service`.
        """
        service = self.table.services.get(name)
        scope = principal.project if principal is not None else None
        if service is None or scope not in {None, service.project}:
            seen = [n for n, s in self.table.services.items() if scope in {None, s.project}]
            raise NotFound("serve.unknown-service", service=name[:80], near=nearest(name[:80], seen) or "—")
        return service

    def target(self, service: RoutedService) -> tuple[Pool, RoutedModel]:
        """Where a request to ``service`` goes now; of a graph the pool of the first step that answers, and the graph as the model."""
        if service.graph:
            return self._pools[service.model], self._composed[service.graph][1]
        model = service.model if not service.shares else random.choices([*service.shares], [*service.shares.values()])[0]  # noqa: S311 no secret
        return self._pools[model], self.table.models[model]

    def numbered(self, service: RoutedService, number: str) -> tuple[Pool, RoutedModel] | None:
        """The version of that number, if it answers for ``service`` now."""
        if service.graph:
            target = self.target(service)
            return target if target[1].version.rpartition(":")[2] == number else None
        found = [m for m in (service.shares or {service.model: 1.0}) if self.table.models[m].version.rpartition(":")[2] == number]
        return (self._pools[found[0]], self.table.models[found[0]]) if found else None

    def close(self) -> None:
        """Hang up everywhere."""
        for pool in self._pools.values():
            pool.close()

    def state(self) -> dict[str, Any]:
        """For ``stats``."""
        return {"epoch": self.table.epoch, "ready": self.ready, "draining": len(self._draining), "pools": {m: p.state() for m, p in self._pools.items()}}


def _asked(table: RoutingTable) -> set[str]:
    """Model versions that requests go to."""
    return {m for s in table.services.values() for m in (s.shares or table.needs(s))}


def _plan(graph: RoutedGraph) -> Plan:
    """Raises Broken: `serve.no-routes`."""
    try:
        return Plan(graph.graph)
    except (Invalid, KeyError, msgspec.ValidationError) as e:
        raise Broken("serve.no-routes", reason=f"graph {graph.version}: {type(e).__name__}") from e


async def _drained(pool: Pool, gone: Sequence[Composed]) -> None:
    """Close a pool that is not of the table any more; requests on their way through a graph that has gone still ask it."""
    for composed in gone:
        if pool.model in composed.pools:
            await composed.until_idle()
    await pool.drain()


async def _finished(pool: Pool, gone: Sequence[Composed], *, all_of_it: bool) -> None:
    """Return when the replicas that left ``pool`` have answered what is with them; ``all_of_it``: when nothing waits there any more."""
    for composed in gone:
        if pool.model in composed.pools:
            await composed.until_idle()
    while pool.state()["leaving"] or (all_of_it and not pool.idle):
        await asyncio.sleep(FINISHED_POLL_S)
