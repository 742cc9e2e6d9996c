"""What the records say shall be served, made so: replicas started, the routing table switched, old replicas stopped.

Order of a switch: new replicas answer → the table is written → every gateway says it uses the new table and that what began by the
old one is answered → old replicas stop. A request therefore never meets a replica that is not there.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from wenfang.core.errors import Broken, Conflict, WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.ports import Runtime
from wenfang.core.records import ModelVersion, Service
from wenfang.runtimes.renewal import RENEW_FILE
from wenfang.serve.routing import ROUTES_FILE, RoutingTable, replica_socket, write_table

from .app import Studio
from .changing import Change
from .counts import present_table, replicas_now
from .replicas import ALIVE, Replicas, replica_name, try_replica
from .wanted import routed_model, wanted_table

__all__ = ["Serving"]

STRAY_AFTER_S = 300.0
AGAIN_FIRST_S = 1.0
AGAIN_MAX_S = 60.0
log = logging.getLogger("wenfang.serving")


class _Failed(NamedTuple):
    """A model version that does not answer."""

    again_at: float
    wait_s: float
    error: Exception


class Serving:
    """Makes the process tree follow the records. One at a time; safe to repeat."""

    def __init__(self, studio: Studio, runtime: Runtime) -> None:
        self.studio = studio
        self.runtime = runtime
        self.replicas = Replicas(studio, runtime)
        self.run = studio.home.run
        self._lock = threading.Lock()
        self._table = present_table(studio)
        self.counts: dict[str, tuple[str, int, int]] = {}
        """The autoscaler's; where it has said nothing, the routing table knows."""
        self._routed_once: set[str] = set()
        self._began = self._switched_at = time.time()
        self._settled = False
        self._failed: dict[str, _Failed] = {}
        """By model version."""
        self._changes: dict[str, Change] = {}
        """By service: whose replicas are being changed one by one."""
        self._spares: set[str] = set()
        """Model versions with one replica more while their replicas are started again."""

    @property
    def table(self) -> RoutingTable:
        """The present one."""
        return self._table

    def paths(self) -> dict[str, str]:
        """Sockets of the replicas that the table names, by the names of their processes."""
        return {replica_name(id, i): path for id, model in self._table.models.items() for i, path in enumerate(model.sockets)}

    def replace(self, name: str) -> None:
        """End the process of a replica that does not answer, however it is, and have it started again."""
        self.runtime.stop(name, grace_s=0.0)
        self.settle()

    # ------------------------------------------------------------ making it so
    def settle(self) -> None:
        """Make processes and routes follow the records; when it returns, every gateway answers by the new table."""
        with self._lock:
            table = self._wanted()
            running = self.runtime.processes()
            routed = _names(table)
            strays = self._strays(running, routed)
            up = {name for name, p in running.items() if p["state"] in ALIVE}
            if table == self._table and not strays and routed <= up and (self.run / ROUTES_FILE).is_file():
                return
            for id in list(table.models):
                try:
                    self._have(id, len(table.models[id].sockets))
                except (WenfangError, OSError) as e:
                    if getattr(e, "code", "") == "process.not-answering":
                        raise  # where processes run is away: that says nothing of the model
                    self._cannot(id, e)
                    _without(table, id, self._table)
            if table != self._table or not (self.run / ROUTES_FILE).is_file():
                self._switch(msgspec.structs.replace(table, epoch=self._table.epoch + 1))
            self._settled = True
            for name in self._strays(self.runtime.processes(), _names(self._table)):
                self.runtime.stop(name)

    def _wanted(self) -> RoutingTable:
        """What the records ask for, and what replicas that are being changed one by one make of it."""
        table = wanted_table(self.studio, self._table, self.counts)
        for change in self._changes.values():
            change.laid_over(table)
        for id in self._spares & table.models.keys():
            model = table.models[id]
            table.models[id] = msgspec.structs.replace(model, sockets=[*model.sockets, str(replica_socket(self.run, id, len(model.sockets)))])
        return table

    def _have(self, id: str, count: int) -> None:
        """Have the replicas of a model version; those of one that nothing was routed to yet must answer. What answers already is never waited for."""
        version = self.studio.tables.get(ModelVersion, id)
        if version is None:
            return
        failed = self._failed.get(id)
        if id in self._table.models and self._settled:
            self.replicas.ensure(version, count)
        elif failed is None:
            self.replicas.start(version, count)
        else:
            if time.monotonic() > failed.again_at:
                self.replicas.ensure(version, count)
            if not self.replicas.answer(id, count):
                raise failed.error
        self._failed.pop(id, None)

    def _cannot(self, id: str, error: Exception) -> None:
        """Take note of a model version that does not answer; its next try is later each time."""
        failed = self._failed.get(id)
        if failed is not None and time.monotonic() < failed.again_at:
            return
        if failed is None:
            log.error("model version %s cannot be served: %s", id, error)
        wait_s = min(AGAIN_MAX_S, 2 * failed.wait_s) if failed else AGAIN_FIRST_S
        self._failed[id] = _Failed(time.monotonic() + wait_s, wait_s, error)

    # ------------------------------------------------------------ one by one
    def roll(self, service: Service, version: ModelVersion, probes: Sequence[str] = ()) -> Callable[[], None]:
        """Change the replicas of ``service`` to those of ``version`` one by one, with one process more than it has. Both answer meanwhile; at the end only the new.

        The records are the caller's to change. What is returned forgets the change: then the records alone count again.

        Raises:
            Conflict: `service.change-under-way`, `service.other-task`.
            WenfangError: why a replica does not start; the old ones are back.
        """
        count = max(1, replicas_now(service, version.id, self._table, self.counts))
        with self._lock:
            old = self._table.services.get(service.name)
            before = self._table.models.get(old.model) if old else None
            if service.name in self._changes:
                raise Conflict("service.change-under-way", service=service.name)
            if before is not None and before.task != version.task:
                raise Conflict("service.other-task", service=service.name, task=before.task, other=version.task)
            if old is None or before is None or old.model == version.id:
                change = None
            else:
                change = self._changes[service.name] = Change(service.name, old.model, before, routed_model(self.studio, version, count), version.id)
        if change is None:
            self.replicas.start(version, count)
            return self.settle
        try:
            self._step_by_step(change, version, probes)
        except BaseException:
            self._forget(service.name)
            raise
        return partial(self._forget, service.name)

    def _step_by_step(self, change: Change, version: ModelVersion, probes: Sequence[str]) -> None:
        while not change.done:
            self.replicas.start(version, change.new + 1)
            try_replica(self.studio, version, change.new, probes)
            change.step()
            self.settle()
            for index in change.gone:
                self.replicas.until_gone(change.old_id, index)

    def _forget(self, service: str) -> None:
        """Its records are written, or it failed."""
        self._changes.pop(service, None)
        self.settle()

    # ------------------------------------------------------------ a new program
    def renew(self) -> None:
        """After an upgrade: start every replica that is older than it again, one by one, with one more beside while that goes on."""
        note = self.run / RENEW_FILE
        if not note.is_file():
            return
        before = float(json.loads(note.read_text(encoding="utf-8"))["before"])
        for id in list(self._table.models):
            try:
                self._renew(id, before)
            except (WenfangError, OSError):
                log.exception("replicas of %s were not all started again", id)
            finally:
                self._spares.discard(id)
                self.settle()
        note.unlink()

    def _renew(self, id: str, before: float) -> None:
        version, count = self.studio.tables.get(ModelVersion, id), len(self._table.models[id].sockets)
        running = self.runtime.processes()
        old = [i for i in range(count) if (running.get(replica_name(id, i), {}).get("started_at") or before) < before]
        if version is None or not old:
            return
        self.replicas.start(version, count + 1)
        self._spares.add(id)
        self.settle()
        for i in old:
            self.runtime.stop(replica_name(id, i))
            self.replicas.until_gone(id, i)
            self.replicas.start(version, count + 1)

    # ------------------------------------------------------------ switching
    def _switch(self, table: RoutingTable) -> None:
        """Write the table; return when every gateway goes by it and what began by the one before is answered."""
        write_table(self.run / ROUTES_FILE, table)
        self._table, self._switched_at = table, time.time()
        gateways = sorted(self.run.glob("gateway-*.sock"))
        for drained in (False, True):  # first nobody goes by the old table, then what is left of it
            for path in gateways:
                try:
                    client = FrameClient(path, timeout_s=60.0)
                except Broken:  # that gateway is being started and reads the file when it listens
                    continue
                try:
                    client.call("routes", epoch=table.epoch, drained=drained)
                except WenfangError as e:
                    log.warning("%s did not take epoch %s: %s", path.name, table.epoch, e)
                finally:
                    client.close()

    def _strays(self, running: dict[str, dict[str, Any]], routed: set[str]) -> set[str]:
        """Replicas that nothing routes to.

        One that was routed and is older than the last switch goes at once, and so does one of an earlier control process. A younger one,
        or one never routed, may belong to a deploy that is not committed yet (in a job's process, say): it has time.
        """
        idle = {n: p for n, p in running.items() if n.startswith("replica-") and n.removesuffix("~") not in routed and p["state"] not in {"exited", "stopping"}}
        self._routed_once |= routed
        born = {n: p.get("started_at") or 0.0 for n, p in idle.items()}
        return {n for n, at in born.items() if at < self._began or (n in self._routed_once and at < self._switched_at) or time.time() - at > STRAY_AFTER_S}

    def clean_cache(self) -> None:
        """Drop half-unpacked folders of an earlier life."""
        for leftover in self.studio.home.cache.glob(".unpack-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _names(table: RoutingTable) -> set[str]:
    """Processes of the replicas that the table names."""
    return {replica_name(id, i) for id, m in table.models.items() for i in range(len(m.sockets))}


def _without(table: RoutingTable, id: str, old: RoutingTable) -> None:
    """Leave services of a model that cannot start on what they had, or out."""
    del table.models[id]
    for name, service in list(table.services.items()):
        if id in table.needs(service):
            before = old.services.get(name)
            needs: set[str] = set() if before is None else old.needs(before)
            if before is not None and id not in needs and needs <= old.models.keys():
                table.services[name] = before
                for model in needs:
                    table.models.setdefault(model, old.models[model])
                if before.graph:
                    table.graphs.setdefault(before.graph, old.graphs[before.graph])
            else:
                del table.services[name]
