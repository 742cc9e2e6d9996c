"""Replicas of a model version as processes of the tree: started, waited for, found again by their names. Knows nothing of routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from wenfang.core.errors import BY_STATUS, Broken, WenfangError
from wenfang.core.frames import recv_frame
from wenfang.core.places import connect
from wenfang.core.ports import Runtime
from wenfang.core.records import ModelVersion, Service
from wenfang.serve.limits import hang_s
from wenfang.serve.probing import PROBES, probe
from wenfang.serve.routing import ROUTES_FILE, read_table, replica_socket

from .app import Studio
from .bundles import unpack_bundle

__all__ = ["ALIVE", "READY_TIMEOUT_S", "Replicas", "replica_name", "try_replica"]

READY_TIMEOUT_S = 90.0
DEATHS_MAX = 3
"""One that ended so often while it was waited for will not answer."""
ALIVE = frozenset(("running", "starting", "backing-off"))


def replica_name(model_version: str, index: int | str) -> str:
    """What its process is called.

    >>> replica_name("mv_1", 0)
    'replica-mv_1-0'
    """
    return f"replica-{model_version}-{index}"


class Replicas:
    """Starts replicas in ``runtime``; safe to use from many threads and processes at once.

    Args:
        studio: whose records and settings.
        runtime: where they run.
        memory_bytes: that one may take at most, where no service with its model version says more; 0: as the settings say.
    """

    def __init__(self, studio: Studio, runtime: Runtime, memory_bytes: int = 0) -> None:
        self.studio = studio
        self.runtime = runtime
        self.run = studio.home.run
        self.memory_bytes = memory_bytes

    def start(self, version: ModelVersion, count: int) -> None:
        """Have ``count`` replicas of ``version`` answering.

        Raises:
            WenfangError: what a replica refused with; Broken: `service.not-ready`, `service.replica-dies`.
        """
        folder = self.ensure(version, count)
        until = time.monotonic() + READY_TIMEOUT_S
        for i in range(count):
            self._wait(version, i, folder, until)

    def ensure(self, version: ModelVersion, count: int) -> Path:
        """Have ``count`` replicas of ``version`` as processes, whether they answer yet or not; returns the unpacked bundle."""
        folder = unpack_bundle(version, self.studio.blobs, self.studio.home.cache)
        running = self.runtime.processes()
        for i in range(count):
            if running.get(replica_name(version.id, i), {}).get("state") not in ALIVE:
                self._ensure(version, i, folder)
        return folder

    def answer(self, model_version: str, count: int) -> bool:
        """Whether all of them say hello now."""
        return all(_answers(replica_socket(self.run, model_version, i)) for i in range(count))

    def routed(self, version: ModelVersion) -> int:
        """How many of ``version`` the routing table names, asked or kept warm."""
        try:
            model = read_table(self.run / ROUTES_FILE).models.get(version.id)
        except WenfangError:
            return 0
        return len(model.sockets) if model else 0

    def drop(self, version: ModelVersion) -> None:
        """Stop what was started of ``version`` for nothing."""
        count = self.routed(version)
        for name in self.runtime.processes():
            if name.startswith(replica_name(version.id, "")) and int(name.rpartition("-")[2].rstrip("~")) >= count:
                self.runtime.stop(name)

    def until_gone(self, model_version: str, index: int) -> None:
        """Wait until the process of a replica that was stopped has ended."""
        while self.runtime.processes().get(replica_name(model_version, index), {}).get("state") == "stopping":
            time.sleep(0.02)

    def _ensure(self, version: ModelVersion, index: int, folder: Path) -> None:
        serve, name = self.studio.settings.serve, replica_name(version.id, index)
        label = f"{version.name}:{version.number}"
        arguments = {
            "bundle": str(folder),
            "socket": str(replica_socket(self.run, version.id, index)),
            "keys": str(self.studio.home.keys),
            "name": label,
            "batch_max": serve.batch_max,
            "curve": str(self.run / f"{version.id}.curve.json"),
            "hang_s": hang_s(serve.deadline_s),
            "memory_bytes": self._memory_bytes(version) or serve.replica_memory_bytes,
            "recycle_texts": serve.recycle_texts,
            "recycle_growth": serve.recycle_growth,
            "supervisor": str(self.run / "supervisor.sock"),
            "process": name,
        }
        self.runtime.ensure(name, "wenfang.serve.replica:main", arguments, restart=True)

    def _memory_bytes(self, version: ModelVersion) -> int:
        """What a replica may take: the most that a service with this model version says; 0: none says it."""
        tables = self.studio.tables
        mine = {p.key for p in tables.pointers("service") if p.target == version.id}
        return max([self.memory_bytes, *(s.scaling.resources.memory_bytes for s in tables.find(Service) if s.id in mine and s.scaling)])

    def _wait(self, version: ModelVersion, index: int, folder: Path, until: float) -> None:
        name = replica_name(version.id, index)
        began = 1 << 30
        while not _answers(replica_socket(self.run, version.id, index)):
            state = self.runtime.processes().get(name, {})
            error = state.get("error")
            if error and state.get("state") != "running":
                self.runtime.stop(name)
                raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
            began = min(began, state.get("starts", began))
            if state.get("state") == "backing-off" and state["starts"] - began >= DEATHS_MAX:
                raise Broken("service.replica-dies", model=f"{version.name}:{version.number}", times=DEATHS_MAX, exit_code=state.get("code"), name=name)
            if time.monotonic() > until:
                raise Broken("service.not-ready", model=f"{version.name}:{version.number}", timeout_s=READY_TIMEOUT_S)
            time.sleep(0.05)
            self._ensure(version, index, folder)  # somebody may have stopped it as a stray meanwhile


def try_replica(studio: Studio, version: ModelVersion, index: int, probes: Sequence[str] = ()) -> None:
    """Have one replica answer texts.

    Raises:
        Broken: `service.probe-failed`.
    """
    try:
        probe(replica_socket(studio.home.run, version.id, index), probes or PROBES)
    except WenfangError as e:
        raise Broken("service.probe-failed", model=f"{version.name}:{version.number}", replica=index, reason=e.detail()) from e


def _answers(path: Path) -> bool:
    try:
        with connect(path, 5.0) as sock:
            recv_frame(sock)
    except (OSError, EOFError):
        return False
    return True
