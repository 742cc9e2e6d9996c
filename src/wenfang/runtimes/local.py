"""The process tree of one machine as a ``Runtime``: a client of the supervisor's socket. Knows nothing of what the processes do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wenfang.core.errors import Broken
from wenfang.core.frames import FrameClient, raise_error
from wenfang.core.home import Home

from .supervisor import Process, supervise

__all__ = ["LocalRuntime", "Process", "supervise"]


class LocalRuntime:
    """Asks the supervisor of ``home``. Thread-safe: every call is a connection of its own.

    Raises (all methods):
        Broken: `process.not-answering` when no supervisor runs.
        Conflict: `runtime.shutting-down`.
    """

    def __init__(self, home: Home, timeout_s: float = 10.0, *, socket: str = "supervisor.sock") -> None:
        self.socket: Path = home.run / socket
        self.timeout_s = timeout_s

    def _call(self, name: str, **arguments: Any) -> Any:
        client = FrameClient(self.socket, self.timeout_s)
        try:
            return client.call(name, **arguments)
        finally:
            client.close()

    def ensure(self, name: str, entry: str, arguments: Mapping[str, Any], *, restart: bool) -> None:
        """Have a process ``name`` running ``module:function`` with these arguments (JSON); a no-op if it runs already."""
        self._call("ensure", process=name, entry=entry, arguments=dict(arguments), restart=restart)

    def stop(self, name: str, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns at once. A no-op if there is none."""
        self._call("stop", process=name, grace_s=grace_s)

    def processes(self) -> dict[str, dict[str, Any]]:
        """By name: ``pid``, ``state`` (running, stopping, backing-off, exited), ``code``, ``starts``, ``started_at``, ``error``."""
        return self._call("processes")

    def upgrade(self) -> None:
        """Begin to turn the tree into the program that is installed now; returns when that program is found to run.

        Raises:
            Broken: `runtime.upgrade-refused`: it does not run; nothing has changed.
            Unsupported: `runtime.no-upgrade`; Conflict: `runtime.upgrade-under-way`.
        """
        self._call("upgrade")
        try:
            while (state := self._call("upgrade_state"))["checking"]:
                time.sleep(0.05)
        except Broken:  # between two programs
            return
        if state["refusal"]:
            raise_error(state["refusal"])

    def shutdown(self) -> None:
        """Begin to stop the whole tree in order; returns at once."""
        self._call("shutdown")
