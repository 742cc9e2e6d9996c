"""Settings → studio: the only module that names stores and runtimes."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wenfang.core.errors import Conflict, WenfangError
from wenfang.core.home import Home, HomeLock
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes, Runtime, Tables, Workers
from wenfang.core.records import ApiKey, Project
from wenfang.core.settings import Settings
from wenfang.guard.certificate import own_certificate
from wenfang.guard.keys import Ed25519Signer, TrustedKeys
from wenfang.runtimes.clustered import ClusterRuntime
from wenfang.runtimes.host import LocalReplicaHost
from wenfang.runtimes.local import LocalRuntime
from wenfang.runtimes.worker import LocalWorkers
from wenfang.stores import open_blobs, open_tables
from wenfang.stores.remote import RemoteTables
from wenfang.stores.served import TablesServer, serve_tables

from .app import Studio
from .autoscaler import Autoscaler
from .health import Health
from .keys import make_key
from .noticing import Noticing
from .queue import JobRunner
from .queue_workers import QueueWorkers
from .serving import Serving

__all__ = ["Control", "bootstrap_key", "cluster_processes", "open_control", "open_in_place", "open_worker"]

TICK_S = 0.3
NOTICE_TICKS = 7
"""Every so many ticks gateways are asked what they noticed."""
log = logging.getLogger("wenfang.control")


def _studio(home: Home, settings: Settings, tables: Tables) -> Studio:
    signer = Ed25519Signer(home.keys)
    host = LocalReplicaHost(home.keys)
    return Studio(
        home=home,
        settings=settings,
        tables=tables,
        blobs=open_blobs(settings.store.blobs, home),
        signer=signer,
        verifier=TrustedKeys(home.keys),
        host=host,
        measuring=host,
        workers=_workers(home, settings),
    )


def _runtime(home: Home, settings: Settings) -> Runtime:
    return LocalRuntime(home) if settings.runtime.address == "local:" else ClusterRuntime(home)


def _workers(home: Home, settings: Settings) -> Workers:
    where = settings.runtime
    if where.address == "local:" or not where.fits:
        return LocalWorkers()
    from wenfang.runtimes.ray_workers import RayWorkers

    return RayWorkers(where.address, name=Ed25519Signer(home.keys).key_id(), resources={"cpus": where.fit_cpus, "gpus": where.gpus}, room_s=where.room_s)


def cluster_processes(home: Home, settings: Settings) -> list[dict[str, Any]]:
    """The processes that the tree has beside the usual ones: none, or the one that holds the connection to the cluster.

    Raises:
        Invalid: `runtime.bad-address`; Unsupported: `runtime.needs-ray`; Broken: `runtime.cluster-away` within seconds.
    """
    if settings.runtime.address == "local:":
        return []
    from wenfang.runtimes.ray_actor import reachable

    reachable(settings.runtime.address)
    arguments = {
        "home": str(home.root), "address": settings.runtime.address, "name": Ed25519Signer(home.keys).key_id(),
        "resources": {"cpus": settings.runtime.cpus, "gpus": settings.runtime.gpus}, "certificate": str(own_certificate(home.keys)), "room_s": settings.runtime.room_s,
    }  # fmt: skip
    return [{"name": "cluster", "entry": "wenfang.runtimes.ray_cluster:main", "arguments": arguments}]


def _first_records(tables: Tables) -> None:
    if not tables.find(Project, where={"name": "default"}, limit=1):
        with suppress(Conflict):  # another process of a PostgreSQL installation was first
            tables.commit(Changes(puts=[Project(id=new_id("pj"), name="default")]))


def open_in_place(home: Home, settings: Settings) -> tuple[Studio, HomeLock]:
    """A studio that works in this very process, holding the home's lock.

    Raises:
        Conflict: `home.in-use`.
    """
    home.prepare()
    lock = HomeLock(home)
    try:
        tables = open_tables(settings.store.tables, home)
        _first_records(tables)
        return _studio(home, settings, tables), lock
    except BaseException:
        lock.release()
        raise


def open_worker(home: Home, settings: Settings) -> Studio:
    """The studio of a job process: records through the control process, blobs directly."""
    studio = _studio(home, settings, RemoteTables(home.run / "studio.sock"))
    studio.runtime = _runtime(home, settings)
    return studio


def bootstrap_key(studio: Studio, key: str | None) -> str | None:
    """Make the first admin key, if there is none; returns it to be shown once (None if ``key`` was given or one exists)."""
    if any(k.role == "admin" and k.project is None and k.revoked_at is None for k in studio.tables.find(ApiKey)):
        return None
    record, secret = make_key(name="first-admin", role="admin", project=None, key=key)
    studio.tables.commit(Changes(puts=[record]))
    return None if key else secret


@dataclass
class Control:
    """The control process: its studio, the reconcile loop, the socket job processes write through."""

    studio: Studio
    serving: Serving
    workers: QueueWorkers
    runner: JobRunner
    autoscaler: Autoscaler
    server: TablesServer
    health: Health
    stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Follow the records until closed; a fault is logged and tried again."""
        self.serving.clean_cache()
        noticing, ticks = Noticing(self.studio.home.run, self.studio.tables), 0
        self.health.start()
        threading.Thread(target=self.autoscaler.run, args=(self.stop,), name="autoscaler", daemon=True).start()
        while not self.stop.is_set():
            try:
                self.runner.tick()
                self.serving.settle()
                self.workers.settle()
                if ticks % NOTICE_TICKS == 0:
                    noticing.tick()
                ticks += 1
                self.serving.renew()
            except (WenfangError, OSError):
                log.exception("reconcile")
            self.stop.wait(TICK_S)

    def close(self) -> None:
        """Stop following and let go of the database."""
        self.stop.set()
        self.health.close()
        self.server.close()
        self.studio.tables.close()


def open_control(home: Home, settings: Settings) -> Control:
    """Everything the control process holds."""
    tables = open_tables(settings.store.tables, home)
    _first_records(tables)
    studio = _studio(home, settings, tables)
    runtime = _runtime(home, settings)
    studio.runtime = runtime
    serving = Serving(studio, runtime)
    autoscaler = Autoscaler(studio, serving)
    workers = QueueWorkers(studio, runtime)

    def settle() -> None:
        autoscaler.settle()
        workers.settle()

    studio.settle, studio.roll = settle, serving.roll
    path: Path = home.run / "studio.sock"
    serve = settings.serve
    health = Health(serving.paths, serving.replace, every_s=serve.probe_every_s, patience_s=max(1.0, serve.deadline_s / 2))
    return Control(studio, serving, workers, JobRunner(studio, runtime), autoscaler, serve_tables(tables, path), health)
