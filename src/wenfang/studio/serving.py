"""What the records say shall be served, made so: replicas started, the routing table switched, old replicas stopped.

Order of a switch: new replicas answer → the table is written → every gateway says it uses the new table and that what began by the
old one is answered → old replicas stop. A request therefore never meets a replica that is not there.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from typing import Any

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.ports import Runtime
from wenfang.core.records import ModelVersion
from wenfang.serve.routing import ROUTES_FILE, RoutingTable, write_table

from .app import Studio
from .counts import present_table
from .replicas import Replicas, replica_name
from .wanted import wanted_table

__all__ = ["Serving"]

STRAY_AFTER_S = 300.0
log = logging.getLogger("wenfang.serving")


class Serving:
    """Makes the process tree follow the records. One at a time; safe to repeat."""

    def __init__(self, studio: Studio, runtime: Runtime) -> None:
        self.studio = studio
        self.runtime = runtime
        self.replicas = Replicas(studio, runtime)
        self.run = studio.home.run
        self._lock = threading.Lock()
        self._table = present_table(studio)
        self.counts: dict[str, int] = {}
        """Replicas by id of the service, where the autoscaler has said it; else the routing table knows."""
        self._routed_once: set[str] = set()
        self._switched_at = time.time()

    @property
    def table(self) -> RoutingTable:
        """The present one."""
        return self._table

    # ------------------------------------------------------------ making it so
    def settle(self) -> None:
        """Make processes and routes follow the records; when it returns, every gateway answers by the new table."""
        with self._lock:
            table = wanted_table(self.studio, self._table, self.counts)
            running = self.runtime.processes()
            routed = {replica_name(id, i) for id, m in table.models.items() for i in range(len(m.sockets))}
            strays = self._strays(running, routed)
            if table == self._table and not strays and routed <= running.keys() and (self.run / ROUTES_FILE).is_file():
                return
            for id in list(table.models):
                version = self.studio.tables.get(ModelVersion, id)
                if version is None:
                    continue
                try:
                    self.replicas.start(version, len(table.models[id].sockets))
                except (WenfangError, OSError) as e:
                    if getattr(e, "code", "") == "process.not-answering":
                        raise  # where processes run is away: that says nothing of the model
                    log.exception("model version %s cannot be served", id)
                    _without(table, id, self._table)
            if table != self._table or not (self.run / ROUTES_FILE).is_file():
                self._switch(RoutingTable(epoch=self._table.epoch + 1, services=table.services, models=table.models, keys=table.keys, rates=table.rates))
            still = {replica_name(id, i) for id, m in self._table.models.items() for i in range(len(m.sockets))}
            for name in self._strays(self.runtime.processes(), still):
                self.runtime.stop(name)

    def _switch(self, table: RoutingTable) -> None:
        write_table(self.run / ROUTES_FILE, table)
        self._table, self._switched_at = table, time.time()
        for path in sorted(self.run.glob("gateway-*.sock")):
            try:
                client = FrameClient(path, timeout_s=60.0)
            except Broken:  # that gateway is being started and will read the file itself
                continue
            try:
                client.call("routes", epoch=table.epoch, drained=True)
            except WenfangError as e:
                log.warning("%s did not take epoch %s: %s", path.name, table.epoch, e)
            finally:
                client.close()

    def _strays(self, running: dict[str, dict[str, Any]], routed: set[str]) -> set[str]:
        """Replicas that nothing routes to.

        One that was routed and is older than the last switch goes at once. A younger one, or one never routed, may belong to a deploy
        that is not committed yet (in a job's process, say): it has time.
        """
        idle = {n: p for n, p in running.items() if n.startswith("replica-") and n not in routed and p["state"] not in {"exited", "stopping"}}
        self._routed_once |= routed
        born = {n: p.get("started_at") or 0.0 for n, p in idle.items()}
        return {n for n, at in born.items() if (n in self._routed_once and at < self._switched_at) or time.time() - at > STRAY_AFTER_S}

    def clean_cache(self) -> None:
        """Drop half-unpacked folders of an earlier life."""
        for leftover in self.studio.home.cache.glob(".unpack-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _without(table: RoutingTable, id: str, old: RoutingTable) -> None:
    """Leave services of a model that cannot start on what they had, or out."""
    del table.models[id]
    for name, service in list(table.services.items()):
        if service.model == id:
            before = old.services.get(name)
            if before is not None and before.model in old.models and before.model != id:
                table.services[name] = before
                table.models.setdefault(before.model, old.models[before.model])
            else:
                del table.services[name]
