"""A process tree whose replicas are on the machines of a cluster, as a ``Runtime``. Knows neither the cluster nor what the processes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wenfang.core.home import Home

from .local import LocalRuntime

__all__ = ["CLUSTER_SOCKET", "ClusterRuntime"]

CLUSTER_SOCKET = "cluster.sock"
ELSEWHERE = "replica-"


class ClusterRuntime:
    """Replicas through the ``cluster`` process of the tree, everything else through its supervisor. Thread-safe.

    Raises (all methods):
        Broken: `process.not-answering` when one of the two is away: half an answer would look like lost replicas.
    """

    def __init__(self, home: Home, timeout_s: float = 10.0) -> None:
        self._tree = LocalRuntime(home, timeout_s)
        self._cluster = LocalRuntime(home, timeout_s, socket=CLUSTER_SOCKET)

    def _of(self, name: str) -> LocalRuntime:
        return self._cluster if name.startswith(ELSEWHERE) else self._tree

    def ensure(self, name: str, entry: str, arguments: Mapping[str, Any], *, restart: bool) -> None:
        """Have a process ``name`` running ``module:function`` with these arguments (JSON); a no-op if it runs already."""
        self._of(name).ensure(name, entry, arguments, restart=restart)

    def stop(self, name: str, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns at once. A no-op if there is none."""
        self._of(name).stop(name, grace_s)

    def processes(self) -> dict[str, dict[str, Any]]:
        """What both have, by name; those of the cluster also say their ``node``."""
        return {**self._tree.processes(), **self._cluster.processes()}

    def shutdown(self) -> None:
        """Begin to stop the whole tree in order, the cluster's part too; returns at once."""
        self._tree.shutdown()
