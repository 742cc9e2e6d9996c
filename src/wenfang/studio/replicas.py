"""Replicas of a model version as processes of the tree: started, waited for, found again by their names. Knows nothing of routes."""

from __future__ import annotations

import time
from pathlib import Path

from wenfang.core.errors import BY_STATUS, Broken
from wenfang.core.frames import recv_frame
from wenfang.core.places import connect
from wenfang.core.ports import Runtime
from wenfang.core.records import ModelVersion
from wenfang.serve.limits import hang_s
from wenfang.serve.routing import replica_socket

from .app import Studio
from .bundles import unpack_bundle

__all__ = ["READY_TIMEOUT_S", "Replicas", "replica_name"]

READY_TIMEOUT_S = 90.0


def replica_name(model_version: str, index: int) -> str:
    """What its process is called.

    >>> replica_name("mv_1", 0)
    'replica-mv_1-0'
    """
    return f"replica-{model_version}-{index}"


class Replicas:
    """Starts replicas in ``runtime``; safe to use from many threads and processes at once."""

    def __init__(self, studio: Studio, runtime: Runtime) -> None:
        self.studio = studio
        self.runtime = runtime
        self.run = studio.home.run

    def start(self, version: ModelVersion, count: int) -> None:
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
            "hang_s": hang_s(self.studio.settings.serve.deadline_s),
        }
        self.runtime.ensure(replica_name(version.id, index), "wenfang.serve.replica:main", arguments, restart=True)

    def _wait(self, version: ModelVersion, index: int, folder: Path, until: float) -> None:
        name = replica_name(version.id, index)
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


def _answers(path: Path) -> bool:
    try:
        with connect(path, 5.0) as sock:
            recv_frame(sock)
    except (OSError, EOFError):
        return False
    return True
