"""One replica kept on a Ray cluster: an actor somewhere, the process in it, the file at home that says where; begun again when either is gone."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import from_error
from wenfang.core.home import Home
from wenfang.core.places import Place, write_place

from .agent import CERTIFICATE, PLACE, files_of
from .ray_actor import Actor

__all__ = ["Kept"]

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
ALIVE_RESETS_S = 30.0
LOOK_S = 0.2
LOOK_TIMEOUT_S = 2.0
"""Two looks in a row that take longer, and the machine is taken for lost."""
log = logging.getLogger("wenfang.cluster")


class Joined(Protocol):
    """The cluster as a replica's keeper sees it."""

    home: Home
    address: str
    resources: Mapping[str, float]
    room_s: float
    certificate: Path
    ray: Any
    """The library, connected."""
    lost: threading.Event


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
        self._actor: Actor | None = None
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
            "started_at": self._started_at, "error": self._error, "node": actor.node.get("ip") if alive and (actor := self._actor) is not None else None,
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
        node = self._actor.node if self._actor is not None else {"ip": "?", "node": ""}
        log.warning("%s on %s is lost: %s", self.name, node["ip"], type(e).__name__)
        self._error = from_error(Broken("runtime.node-lost", name=self.name, node=node["ip"]))
        self._lost_node = node["node"]
        self._drop()

    def _drop(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            try:
                actor.kill()
            except Exception as e:  # it may be gone already, and so may the cluster: then the lease ends it
                log.info("%s could not be ended: %s", self.name, type(e).__name__)

    def _end(self) -> None:
        self.place.unlink(missing_ok=True)
        if self._actor is not None:
            try:
                self._actor.ask("stop", self._grace_s, timeout_s=self._grace_s + 5.0)
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
        call: dict[str, Any] = {"entry": self.entry, "files": {name: digest for name, (_, digest) in files.items()}}
        call["paths"] = {"bundle": "bundle/", "keys": "keys/", "socket": PLACE, "certificate": CERTIFICATE}
        call["arguments"] = {**self.arguments, "host": "0.0.0.0"}  # noqa: S104 the certificate says who may enter
        certificate = self.cluster.certificate.read_bytes()
        call["digest"] = hashlib.sha256(json.dumps(call, sort_keys=True).encode() + certificate).hexdigest()
        if self._actor is None and self._found(call["digest"]):
            return
        if self._actor is None:
            self._actor = Actor.placed(
                self.ray, f"{self.name}#{time.time_ns()}", self.cluster.resources, detached=True, room_s=self.cluster.room_s, not_on=self._lost_node, given_up=self._stop.is_set
            )
            log.info("%s goes to %s", self.name, self._actor.node["ip"])
        self._actor.bring(files)
        self._actor.do("start", json.dumps(call), certificate)
        self._starts += 1
        self._started_at = time.time()

    def _found(self, digest: str) -> bool:
        """Whether an actor of an earlier cluster process runs just this; one that runs something else is ended."""
        for entry in self.ray.util.list_named_actors():
            if entry.startswith(f"{self.name}#"):
                actor = Actor(self.ray, self.ray.get_actor(entry), {})
                try:
                    seen = json.loads(actor.ask("look", timeout_s=LOOK_TIMEOUT_S))
                except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError):
                    continue
                if seen["running"] and seen["digest"] == digest and self._actor is None:
                    self._actor, self._seen, self._started_at = actor, seen, time.time()
                    actor.node = json.loads(actor.ask("where"))
                    log.info("%s was found on %s", self.name, actor.node["ip"])
                else:
                    actor.kill()
        return self._actor is not None

    # ------------------------------------------------------------ watching
    def _watch(self) -> None:
        """Look at it until it ends; when it listens, say where."""
        silent, told, actor = 0, None, self._actor
        assert actor is not None
        with open(self.cluster.home.logs / f"{self.name}.log", "ab") as lines:
            while not self._stop.wait(LOOK_S):
                try:
                    seen = self._seen = json.loads(actor.ask("look", timeout_s=LOOK_TIMEOUT_S))
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
                    write_place(self.place, Place(actor.node["ip"], told, str(self.cluster.certificate)))
                    log.info("%s listens on %s port %d", self.name, actor.node["ip"], told)
                self._become("running")
