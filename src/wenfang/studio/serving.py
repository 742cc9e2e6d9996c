"""What the records say shall be served, made so: bundles unpacked, replicas started, the routing table switched, old replicas stopped.

Order of a switch: new replicas answer → the table is written → every gateway says it uses the new table and that what began by the
old one is answered → old replicas stop. A request therefore never meets a replica that is not there.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import BY_STATUS, Broken, WenfangError
from wenfang.core.examples import Output
from wenfang.core.frames import FrameClient, recv_frame, send_frame
from wenfang.core.ids import now
from wenfang.core.ports import Blobs, Runtime
from wenfang.core.records import ApiKey, ModelVersion, Project, Service
from wenfang.core.text import encodable
from wenfang.guard.roles import permissions_of
from wenfang.serve.flow import Rate
from wenfang.serve.routing import ROUTES_FILE, Principal, RoutedModel, RoutedService, RoutingTable, read_table, replica_socket, write_table
from wenfang.serve.wire import Ask

from .app import Studio

__all__ = ["Serving", "ask_served", "store_bundle", "unpack_bundle"]

READY_TIMEOUT_S = 90.0
STRAY_AFTER_S = 300.0
log = logging.getLogger("wenfang.serving")


def store_bundle(folder: Path, blobs: Blobs) -> tuple[str, str]:
    """Keep a bundle's files as blobs; returns the names of its manifest and of its signature."""
    manifest = (folder / "manifest.json").read_bytes()
    for name in json.loads(manifest)["files"]:
        blobs.put_file(folder / name)
    return blobs.put(manifest), blobs.put_file(folder / "manifest.sig")


def unpack_bundle(version: ModelVersion, blobs: Blobs, cache: Path) -> Path:
    """The bundle's folder under ``cache``; written beside and renamed, so that it is whole or not there."""
    target = cache / version.bundle
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as spare:
        folder = Path(spare) / "bundle"
        manifest = blobs.get(version.bundle)
        for name, entry in json.loads(manifest)["files"].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            blobs.fetch(entry["sha256"], path)
        write_file(folder / "manifest.json", manifest)
        blobs.fetch(version.signature, folder / "manifest.sig")
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster with the same bytes
                raise
    return target


def ask_served(studio: Studio, version: ModelVersion, texts: list[str], texts_b: list[str], top_k: int, options: Generation | None = None) -> list[Output]:
    """Ask a running replica of ``version``; without one, load the model here."""
    writes = version.task in {"generation", "chat"}
    options = options or Generation()
    asked = Ask(0, [encodable(t) for t in texts], top_k, [encodable(t) for t in texts_b], [options] * len(texts) if writes else [])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(60.0)
        try:
            sock.connect(str(replica_socket(studio.home.run, version.id, 0)))
            recv_frame(sock)
            send_frame(sock, asked)
            while (reply := recv_frame(sock))["type"] == "piece":
                pass  # a sign of life
        except (OSError, EOFError):
            from wenfang.models.bundle import open_bundle

            _, model = open_bundle(unpack_bundle(version, studio.blobs, studio.home.cache), verifier=studio.verifier)
            if writes:
                return model.generate(texts, [options] * len(texts))
            return model.match(texts, texts_b, top_k=top_k) if texts_b else model.predict(texts, top_k=top_k)
    for error in reply["errors"].values():
        raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
    return msgspec.convert(reply["outputs"], list[Output])


class Serving:
    """Makes the process tree follow the records. One at a time; safe to repeat."""

    def __init__(self, studio: Studio, runtime: Runtime) -> None:
        self.studio = studio
        self.runtime = runtime
        self.run = studio.home.run
        self._lock = threading.Lock()
        self._table = self._last_table()
        self._routed_once: set[str] = set()
        self._switched_at = time.time()

    def _last_table(self) -> RoutingTable:
        try:
            return read_table(self.run / ROUTES_FILE)
        except WenfangError:
            return RoutingTable(epoch=0)

    # ------------------------------------------------------------ what shall be
    def wanted(self) -> RoutingTable:
        """The table the records ask for."""
        tables = self.studio.tables
        services: dict[str, RoutedService] = {}
        models: dict[str, RoutedModel] = {}
        targets = {p.key: p.target for p in tables.pointers("service")}
        for service in tables.find(Service):
            version = tables.get(ModelVersion, targets.get(service.id, ""))
            if version is None:
                continue
            count = max(service.replicas, len(models[version.id].sockets) if version.id in models else 0)
            sockets = [str(replica_socket(self.run, version.id, i)) for i in range(count)]
            models[version.id] = RoutedModel(version=f"{version.name}:{version.number}", task=version.task, sockets=sockets, labels=version.labels[:1000])
            services[service.name] = RoutedService(project=service.project, model=version.id, rate=_rate(service.rate))
        keys = {
            k.digest: Principal(
                id=k.id, permissions=sorted(permissions_of(k.role)), project=k.project, expires_at=k.expires_at.timestamp() if k.expires_at else None, rate=_rate(k.rate)
            )
            for k in tables.find(ApiKey)
            if k.revoked_at is None and (k.expires_at is None or k.expires_at > now())
        }
        return RoutingTable(epoch=self._table.epoch, services=services, models=models, keys=keys, rates={p.name: Rate(**p.rate) for p in tables.find(Project) if p.rate})

    # ------------------------------------------------------------ making it so
    def start_replicas(self, version: ModelVersion, count: int) -> None:
        """Have ``count`` replicas of ``version`` answering.

        Raises:
            WenfangError: what a replica refused with; Broken: `service.not-ready`.
        """
        folder = unpack_bundle(version, self.studio.blobs, self.studio.home.cache)
        until = time.monotonic() + READY_TIMEOUT_S
        for i in range(count):
            self._ensure(version, i, folder)
        for i in range(count):
            self._wait(version, i, folder, until)

    def _ensure(self, version: ModelVersion, index: int, folder: Path) -> None:
        label = f"{version.name}:{version.number}"
        arguments = {
            "bundle": str(folder),
            "socket": str(replica_socket(self.run, version.id, index)),
            "keys": str(self.studio.home.keys),
            "name": label,
            "batch_max": self.studio.settings.serve.batch_max,
        }
        self.runtime.ensure(f"replica-{version.id}-{index}", "wenfang.serve.replica:main", arguments, restart=True)

    def _wait(self, version: ModelVersion, index: int, folder: Path, until: float) -> None:
        name = f"replica-{version.id}-{index}"
        while not _answers(replica_socket(self.run, version.id, index)):
            state = self.runtime.processes().get(name, {})
            error = state.get("error")
            if error and state.get("state") != "running":
                self.runtime.stop(name)
                raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
            if time.monotonic() > until:
                raise Broken("service.not-ready", model=f"{version.name}:{version.number}", timeout_s=READY_TIMEOUT_S)
            time.sleep(0.05)
            self._ensure(version, index, folder)  # somebody may have stopped it as a stray meanwhile

    def settle(self) -> None:
        """Make processes and routes follow the records; when it returns, every gateway answers by the new table."""
        with self._lock:
            table = self.wanted()
            running = self.runtime.processes()
            routed = {f"replica-{id}-{i}" for id, m in table.models.items() for i in range(len(m.sockets))}
            strays = self._strays(running, routed)
            if table == self._table and not strays and routed <= running.keys() and (self.run / ROUTES_FILE).is_file():
                return
            for id in list(table.models):
                version = self.studio.tables.get(ModelVersion, id)
                if version is None:
                    continue
                try:
                    self.start_replicas(version, len(table.models[id].sockets))
                except (WenfangError, OSError):
                    log.exception("model version %s cannot be served", id)
                    _without(table, id, self._table)
            if table != self._table or not (self.run / ROUTES_FILE).is_file():
                self._switch(RoutingTable(epoch=self._table.epoch + 1, services=table.services, models=table.models, keys=table.keys, rates=table.rates))
            still = {f"replica-{id}-{i}" for id, m in self._table.models.items() for i in range(len(m.sockets))}
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


def _rate(given: dict[str, float]) -> Rate | None:
    return Rate(**given) if given else None


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


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(str(path))
            recv_frame(sock)
        except (OSError, EOFError):
            return False
        return True
