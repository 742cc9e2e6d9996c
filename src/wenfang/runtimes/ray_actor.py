"""An actor of a Ray cluster with our agent in it: placed, brought what it needs, asked. What it says comes as JSON or bytes; its errors are ours.

Knows nothing of what the process in it is for.
"""

from __future__ import annotations

import importlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wenfang.core.errors import BY_STATUS, Broken, Invalid, Unsupported

from .agent import Agent

__all__ = ["Actor", "RayAgent", "join", "reachable"]

KNOCK_S = 3.0
CONNECT_S = 60.0
"""A refusal within half a minute ends the tree with its reason; a cluster that is only slow is tried again by a tree that stands."""
ASK_S = 30.0
PART_BYTES = 4 << 20
LEASE_S = 60.0
"""An actor that nobody has looked at for so long ends."""


def reachable(address: str) -> tuple[str, int]:
    """Host and port of ``ray://HOST:PORT``, where somebody answers.

    Raises:
        Invalid: `runtime.bad-address`.
        Unsupported: `runtime.needs-ray`.
        Broken: `runtime.cluster-away`.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or 10001
    except ValueError as e:
        raise Invalid("runtime.bad-address", address=address[:200]) from e
    if parts.scheme != "ray" or not host or parts.username or parts.path.strip("/"):
        raise Invalid("runtime.bad-address", address=address[:200])
    if find_spec("ray") is None:
        raise Unsupported("runtime.needs-ray")
    try:
        socket.create_connection((host, port), KNOCK_S).close()
    except OSError as e:
        raise Broken("runtime.cluster-away", address=address, timeout_s=KNOCK_S, reason=e.strerror or str(e)) from e
    return host, port


def join(address: str, namespace: str) -> Any:
    """The library, connected to the cluster.

    Raises:
        Invalid, Unsupported, Broken: as ``reachable``; Broken: `runtime.cluster-away` within a minute.
    """
    reachable(address)
    ray: Any = importlib.import_module("ray")
    importlib.import_module("ray.util.scheduling_strategies")
    pool = ThreadPoolExecutor(1, thread_name_prefix="ray-connect")
    joining = pool.submit(ray.init, address, namespace=namespace, log_to_driver=False, configure_logging=False)
    pool.shutdown(wait=False)
    try:
        joining.result(CONNECT_S)
    except Late as e:
        raise Broken("runtime.cluster-away", address=address, timeout_s=CONNECT_S, reason="no answer") from e
    except Exception as e:  # Ray raises a dozen unrelated classes: another version, no token, no room
        raise Broken("runtime.cluster-away", address=address, timeout_s=CONNECT_S, reason=f"{type(e).__name__}: {e}"[:300]) from e
    return ray


class RayAgent(Agent):
    """An agent that knows on which machine Ray has put it."""

    def where(self) -> str:
        """JSON: ``node`` and ``ip``."""
        ray: Any = importlib.import_module("ray")
        return json.dumps({"node": ray.get_runtime_context().get_node_id(), "ip": ray.util.get_node_ip_address()})


class Actor:
    """A handle on one actor, here or found again.

    Args:
        ray: the library, connected.
        handle: of a ``RayAgent``.
        node: ``node`` and ``ip`` of its machine.
    """

    def __init__(self, ray: Any, handle: Any, node: Mapping[str, str]) -> None:
        self.ray = ray
        self.handle = handle
        self.node = node

    @classmethod
    def placed(cls, ray: Any, name: str, resources: Mapping[str, float], *, detached: bool, room_s: float, not_on: str = "", given_up: Callable[[], bool] = lambda: False) -> Actor:
        """A new one where there is room for ``cpus`` and ``gpus``.

        Args:
            ray: the library, connected.
            name: of its process.
            resources: its share.
            detached: it outlives this process.
            room_s: until a cluster that has no room now must have found or made some.
            not_on: a machine that is lost, though Ray may not have noticed yet.
            given_up: asked while there is no room yet: whether nobody wants it any more.

        Raises:
            Broken: `runtime.no-room`.
        """
        strategy: Any = "SPREAD"
        others = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != not_on] if not_on else []
        if others:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(others[hash(name) % len(others)], soft=True)
        options: dict[str, Any] = {"max_restarts": 0, "max_concurrency": 1, "num_cpus": resources["cpus"], "num_gpus": resources["gpus"], "scheduling_strategy": strategy}
        if detached:
            options |= {"name": name, "lifetime": "detached"}
        handle = ray.remote(RayAgent).options(**options).remote(name.partition("#")[0], LEASE_S)
        there, until = handle.where.remote(), time.monotonic() + room_s
        while not ray.wait([there], timeout=0.5)[0]:
            if given_up() or time.monotonic() > until:
                ray.kill(handle)
                raise Broken("runtime.no-room", name=name.partition("#")[0], cpus=resources["cpus"], gpus=resources["gpus"], wait_s=room_s)
        return cls(ray, handle, json.loads(ray.get(there, timeout=ASK_S)))

    def ask(self, method: str, *given: Any, timeout_s: float = ASK_S) -> Any:
        """What the agent's ``method`` returns; raises what Ray raises."""
        return self.ray.get(getattr(self.handle, method).remote(*given), timeout=timeout_s)

    def do(self, method: str, *given: Any) -> None:
        """Have the agent do something that may go wrong; its error is raised here."""
        if said := self.ask(method, *given):
            error = json.loads(said)
            raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])

    def bring(self, files: Mapping[str, tuple[Path, str]]) -> None:
        """Have these files on its machine; those whose content is there already are not sent."""
        wanted = {digest: path for path, digest in files.values()}
        for digest in json.loads(self.ask("missing", json.dumps(sorted(wanted)))):
            with open(wanted[digest], "rb") as f:
                left = wanted[digest].stat().st_size
                while True:
                    part = f.read(PART_BYTES)
                    left -= len(part)
                    self.do("bring", digest, part, left <= 0)
                    if left <= 0:
                        break

    def fetch(self, path: str, size: int, to: Path) -> None:
        """Bring one of its files here.

        Raises:
            Broken: `runtime.carried-damaged` when it is shorter than it was.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(to, "wb") as f:
            while f.tell() < size:
                part = self.ask("part", path, f.tell(), min(PART_BYTES, size - f.tell()))
                if not part:
                    raise Broken("runtime.carried-damaged", name=to.name)
                f.write(part)

    def kill(self) -> None:
        """End it, and with it what runs in it."""
        self.ray.kill(self.handle)
