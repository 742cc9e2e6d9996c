"""One replica kept on a Ray cluster: an actor somewhere, the process in it, the file at home that says where; begun again when either is gone."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wenfang.core.errors import BY_STATUS, Broken, WenfangError
from wenfang.core.frames import from_error
from wenfang.core.home import Home
from wenfang.core.places import Place, write_place

from .agent import Agent, files_of

__all__ = ["Kept", "RayAgent"]

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
ALIVE_RESETS_S = 30.0
LOOK_S = 0.2
LOOK_TIMEOUT_S = 2.0
"""Two looks in a row that take longer, and the machine is taken for lost."""
ROOM_S = 45.0
"""Until a cluster that has no room now must have found some."""
PART_BYTES = 4 << 20
LEASE_S = 60.0
"""A replica that nobody has looked at for so long ends."""
log = logging.getLogger("wenfang.cluster")


class Joined(Protocol):
    """The cluster as a replica's keeper sees it."""

    home: Home
    address: str
    resources: Mapping[str, float]
    certificate: Path
    ray: Any
    """The library, connected."""
    lost: threading.Event


class RayAgent(Agent):
    """An agent that knows on which machine Ray has put it."""

    def where(self) -> str:
        """JSON: ``node`` and ``ip``."""
        ray: Any = importlib.import_module("ray")
        return json.dumps({"node": ray.get_runtime_context().get_node_id(), "ip": ray.util.get_node_ip_address()})


class Kept:
    """One replica.

    Args:
        cluster: joined.
        name: of the process.
        entry: ``module:function``.
        arguments: JSON; ``bundle`` and ``keys`` are folders whose files go along (of ``keys`` the public ones), ``socket`` is where the place is told.
        restart: begin again when it ends by itself.
    """

    def __init__(self, cluster: Joined, name: str, entry: str, arguments: Mapping[str, Any], *, restart: bool) -> None:
        self.cluster = cluster
        self.ray = cluster.ray
        self.name = name
        self.entry = entry
        self.arguments = dict(arguments)
        self.restart = restart
        self.place = Path(self.arguments.pop("socket"))
        self.state = "starting"
        self.gone = threading.Event()
        self.successor: Callable[[], None] | None = None
        """Asked for while this one was still stopping."""
        self._stop = threading.Event()
        self._grace_s = 5.0
        self._actor: Any = None
        self._node: dict[str, str] = {}
        self._lost_node = ""
        self._seen: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None
        self._starts = 0
        self._started_at = time.time()
        """Before the first start: when it was asked for."""
        self._backoff_s = BACKOFF_FIRST_S
        threading.Thread(target=self._keep, name=name, daemon=True).start()

    def stop(self, grace_s: float) -> None:
        """Begin to stop; returns at once."""
        self._grace_s, self.successor = grace_s, None
        if self.state != "exited":
            self.state = "stopping"
        self._stop.set()

    def as_message(self) -> dict[str, Any]:
        """As the supervisor says it, and ``node``."""
        alive = self.state in {"running", "stopping"}
        return {
            "pid": self._seen.get("pid") if alive else None, "state": self.state, "code": self._seen.get("code"), "starts": self._starts,
            "started_at": self._started_at, "error": self._error, "node": self._node.get("ip") if alive else None,
        }  # fmt: skip

    # ------------------------------------------------------------ its life
    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                self._begin()
                self._watch()
            except WenfangError as e:
                log.warning("%s: %s", self.name, e)
                self._error = from_error(e)
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError) as e:
                self._lose(e)
            except Exception as e:  # Ray raises many unrelated classes: this one is tried again, the others go on
                log.exception("%s failed", self.name)
                self._error = from_error(Broken("runtime.actor-failed", name=self.name, kind=type(e).__name__))
                self._drop()
                if not self.ray.is_initialized():
                    self.cluster.lost.set()
                    return
            self.place.unlink(missing_ok=True)
            if not self._stop.is_set() and self.restart:
                self._rest()
            else:
                break
        self._end()

    def _become(self, state: str) -> None:
        if not self._stop.is_set():
            self.state = state

    def _rest(self) -> None:
        if time.time() - self._started_at > ALIVE_RESETS_S:
            self._backoff_s = BACKOFF_FIRST_S
        self._become("backing-off")
        self._stop.wait(self._backoff_s)
        self._backoff_s = min(BACKOFF_MAX_S, 2 * self._backoff_s)

    def _lose(self, e: Exception) -> None:
        """The machine or its worker does not answer: something new is begun elsewhere, and what may still be there ends by its lease."""
        log.warning("%s on %s is lost: %s", self.name, self._node.get("ip", "no machine"), type(e).__name__)
        if self._node:
            self._error = from_error(Broken("runtime.node-lost", name=self.name, node=self._node["ip"]))
            self._lost_node = self._node["node"]
        else:
            self._error = from_error(Broken("runtime.no-room", name=self.name, cpus=self.cluster.resources["cpus"], gpus=self.cluster.resources["gpus"], wait_s=ROOM_S))
        self._drop()

    def _drop(self) -> None:
        actor, self._actor, self._node = self._actor, None, {}
        if actor is not None:
            try:
                self.ray.kill(actor)
            except Exception as e:  # it may be gone already, and so may the cluster: then the lease ends it
                log.info("%s could not be ended: %s", self.name, type(e).__name__)

    def _end(self) -> None:
        self.place.unlink(missing_ok=True)
        if self._actor is not None:
            try:
                self.ray.get(self._actor.stop.remote(self._grace_s), timeout=self._grace_s + 5.0)
            except Exception as e:  # as above
                log.info("%s did not say that it stopped: %s", self.name, type(e).__name__)
        self._drop()
        self.state = "exited"
        self.gone.set()
        if self.successor is not None:
            self.successor()

    # ------------------------------------------------------------ beginning
    def _begin(self) -> None:
        self._become("starting")
        self._error = None
        files = {**files_of(Path(self.arguments["bundle"]), "bundle"), **files_of(Path(self.arguments["keys"]), "keys", "*.pub")}
        call: dict[str, Any] = {"entry": self.entry, "files": {name: digest for name, (_, digest) in files.items()}, "host": "0.0.0.0"}  # noqa: S104 the certificate says who may enter
        call["arguments"] = {k: v for k, v in self.arguments.items() if k not in {"bundle", "keys"}}
        certificate = self.cluster.certificate.read_bytes()
        call["digest"] = hashlib.sha256(json.dumps(call, sort_keys=True).encode() + certificate).hexdigest()
        if self._actor is None and self._found(call["digest"]):
            return
        actor: Any = self._actor or self._place_actor()
        wanted = {digest: path for path, digest in files.values()}
        for digest in json.loads(self._ask(actor.missing.remote(json.dumps(sorted(wanted))))):
            self._bring(digest, wanted[digest])
        self._raise(self._ask(actor.start.remote(json.dumps(call), certificate)))
        self._starts += 1
        self._started_at = time.time()

    def _found(self, digest: str) -> bool:
        """Whether an actor of an earlier cluster process runs just this; one that runs something else is ended."""
        for entry in self.ray.util.list_named_actors():
            if entry.startswith(f"{self.name}#"):
                actor = self.ray.get_actor(entry)
                try:
                    seen = json.loads(self.ray.get(actor.look.remote(), timeout=LOOK_TIMEOUT_S))
                except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError):
                    continue
                if seen["running"] and seen["digest"] == digest and self._actor is None:
                    self._actor, self._seen, self._started_at = actor, seen, time.time()
                    self._node = json.loads(self._ask(actor.where.remote()))
                    log.info("%s was found on %s", self.name, self._node["ip"])
                else:
                    self.ray.kill(actor)
        return self._actor is not None

    def _place_actor(self) -> Any:
        need = self.cluster.resources
        nodes = [n for n in self.ray.nodes() if n["Alive"]]
        if not any(n["Resources"].get("CPU", 0) >= need["cpus"] and n["Resources"].get("GPU", 0) >= need["gpus"] for n in nodes):
            log.warning("%s: no machine of the cluster is large enough now", self.name)
        strategy: Any = "SPREAD"
        if self._lost_node and (others := [n["NodeID"] for n in nodes if n["NodeID"] != self._lost_node]):
            strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(others[hash(self.name) % len(others)], soft=True)  # Ray may not have noticed yet
        options = {
            "name": f"{self.name}#{time.time_ns()}", "lifetime": "detached", "max_restarts": 0, "max_concurrency": 1,
            "num_cpus": need["cpus"], "num_gpus": need["gpus"], "scheduling_strategy": strategy,
        }  # fmt: skip
        self._actor = self.ray.remote(RayAgent).options(**options).remote(self.name, LEASE_S)
        self._node = json.loads(self.ray.get(self._actor.where.remote(), timeout=ROOM_S))
        log.info("%s goes to %s", self.name, self._node["ip"])
        return self._actor

    def _bring(self, digest: str, path: Path) -> None:
        left = path.stat().st_size
        with open(path, "rb") as f:
            while True:
                part = f.read(PART_BYTES)
                left -= len(part)
                self._raise(self._ask(self._actor.bring.remote(digest, part, left <= 0)))
                if left <= 0:
                    return

    def _ask(self, reference: Any) -> str:
        return self.ray.get(reference, timeout=30.0)

    @staticmethod
    def _raise(said: str) -> None:
        if said:
            error = json.loads(said)
            raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])

    # ------------------------------------------------------------ watching
    def _watch(self) -> None:
        """Look at it until it ends; when it listens, say where."""
        silent, told = 0, None
        with open(self.cluster.home.logs / f"{self.name}.log", "ab") as lines:
            while not self._stop.wait(LOOK_S):
                try:
                    seen = self._seen = json.loads(self.ray.get(self._actor.look.remote(), timeout=LOOK_TIMEOUT_S))
                except self.ray.exceptions.GetTimeoutError:
                    silent += 1
                    if silent >= 2:
                        raise
                    continue
                silent = 0
                if seen["log"]:
                    lines.write(seen["log"].encode())
                    lines.flush()
                if not seen["running"]:
                    self._error = seen["error"]
                    return
                if seen["port"] and seen["port"] != told:
                    told = seen["port"]
                    write_place(self.place, Place(self._node["ip"], told, str(self.cluster.certificate)))
                    log.info("%s listens on %s port %d", self.name, self._node["ip"], told)
                self._become("running")
