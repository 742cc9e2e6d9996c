"""The ``cluster`` process of a tree: it holds the connection to Ray and keeps replicas on Ray's machines, each in an actor of its own.

The actors are detached: when this process dies they go on, and the next one finds them by their names. Only bytes and JSON cross; what
Ray itself sends stays inside its cluster. Knows processes by name and entry string, and nothing of what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wenfang.core.discreet import begin_log
from wenfang.core.errors import Broken, Conflict
from wenfang.core.home import Home

from .calls import serve_calls
from .clustered import CLUSTER_SOCKET
from .ray_actor import join
from .ray_kept import Kept

__all__ = ["Cluster", "main"]

log = logging.getLogger("wenfang.cluster")


class Cluster:
    """A connection to Ray, and the replicas kept there.

    Args:
        home: prepared; place files are written where replicas' sockets would lie.
        address: ``ray://HOST:PORT`` of Ray's client port.
        name: of the installation: actors of two installations on one cluster do not meet.
        resources: ``cpus`` and ``gpus`` of each replica, fractions too.
        certificate: PEM file that replicas and their callers hold.
        room_s: until a cluster that has no room now must have found or made some.
    """

    def __init__(self, home: Home, address: str, *, name: str, resources: Mapping[str, float], certificate: Path, room_s: float = 45.0) -> None:
        self.home = home
        self.address = address
        self.resources = resources
        self.certificate = certificate
        self.room_s = room_s
        self.namespace = f"wenfang-{name}"
        self.ray: Any = None
        self.lost = threading.Event()
        """The connection to Ray is gone for good."""
        self._kept: dict[str, Kept] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def connect(self) -> None:
        """Join the cluster.

        Raises:
            Broken: `runtime.cluster-away`, within a minute.
        """
        self.ray = join(self.address, self.namespace)
        log.info("joined %s as %s", self.address, self.namespace)

    # ------------------------------------------------------------ calls
    def answer(self, message: dict[str, Any]) -> Any:
        """One call of the socket; what takes time goes on in a thread of the process it is about."""
        call = message.pop("call", None)
        if call == "ensure":
            return self.ensure(message["process"], message["entry"], message["arguments"], restart=bool(message["restart"]))
        if call == "stop":
            return self.stop(message["process"], float(message["grace_s"]))
        if call == "processes":
            return self.processes()
        raise Broken("runtime.unknown-call", socket=CLUSTER_SOCKET, call=str(call)[:80])

    def ensure(self, name: str, entry: str, arguments: Mapping[str, Any], *, restart: bool) -> None:
        """Have it running; a no-op if it runs, starts, or waits for its next start."""
        with self._lock:
            if self._stopping:
                raise Conflict("runtime.shutting-down")
            known = self._kept.get(name)
            if known is None or known.state == "exited":
                self._kept[name] = Kept(self, name, entry, arguments, restart=restart)
            elif known.state == "stopping":
                known.successor = lambda: self.ensure(name, entry, arguments, restart=restart)

    def stop(self, name: str, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns at once."""
        with self._lock:
            if kept := self._kept.get(name):
                kept.stop(grace_s)

    def processes(self) -> dict[str, dict[str, Any]]:
        """By name, as the supervisor says it, and ``node``."""
        with self._lock:
            return {name: kept.as_message() for name, kept in self._kept.items()}

    def close(self, grace_s: float = 5.0) -> None:
        """Stop everything that is kept, and leave the cluster."""
        with self._lock:
            self._stopping = True
            kept = [*self._kept.values()]
        for one in kept:
            one.stop(grace_s)
        for one in kept:
            one.gone.wait(grace_s + 5.0)
        if self.ray is not None and not self.lost.is_set():
            with contextlib.suppress(Exception):  # it may have died before us
                self.ray.shutdown()

    async def run(self) -> None:
        """Answer calls until SIGTERM, or until the cluster is lost.

        Raises:
            Broken: `runtime.cluster-lost`: what was kept lives on for a minute, the next process finds it again.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        path = self.home.run / CLUSTER_SOCKET
        server = await serve_calls(path, self.answer)
        try:
            while not stop.is_set() and not self.lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.5)
        finally:
            server.close()
            path.unlink(missing_ok=True)
        if self.lost.is_set():
            raise Broken("runtime.cluster-lost", address=self.address)
        await asyncio.to_thread(self.close)


def main(arguments: dict[str, Any], ready: Callable[[], None] | None = None) -> None:
    """Entry of the ``cluster`` process.

    Args:
        arguments: ``home``, ``address``, ``name``, ``resources``, ``certificate``, perhaps ``room_s``.
        ready: called once joined.

    Raises:
        Broken: `runtime.cluster-away`, `runtime.cluster-lost`.
    """
    begin_log()
    cluster = Cluster(
        Home(Path(arguments["home"])),
        arguments["address"],
        name=arguments["name"],
        resources=arguments["resources"],
        certificate=Path(arguments["certificate"]),
        room_s=float(arguments.get("room_s", 45.0)),
    )
    cluster.connect()
    if ready is not None:
        ready()
    asyncio.run(cluster.run())
