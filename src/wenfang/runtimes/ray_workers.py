"""Pieces of work on the machines of a Ray cluster: what lies beside the work's folder goes along, what it makes comes back. Knows nothing of what the work is."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wenfang.core.errors import BY_STATUS, Broken

from .agent import file_of
from .ray_actor import Actor, join
from .worker import died

__all__ = ["RayWorkers"]

LOOK_S = 0.3
TOLD_BYTES = 1 << 20


class RayWorkers:
    """Runs pieces of work in actors that end with this process; joins the cluster at the first one. Thread-safe.

    Args:
        address: ``ray://HOST:PORT``.
        name: of the installation.
        resources: ``cpus`` and ``gpus`` of each piece.
        room_s: until a cluster that has no room now must have found or made some.
    """

    elsewhere = True

    def __init__(self, address: str, *, name: str, resources: Mapping[str, float], room_s: float = 45.0) -> None:
        self.address = address
        self.resources = dict(resources)
        self.room_s = room_s
        self._namespace = f"wenfang-{name}"
        self._ray: Any = None
        self._lock = threading.Lock()

    def _joined(self) -> Any:
        with self._lock:
            if self._ray is None or not self._ray.is_initialized():
                self._ray = join(self.address, self._namespace)
            return self._ray

    def run(self, entry: str, arguments: Mapping[str, Any], folder: Path, *, heard: Callable[[Mapping[str, Any]], None], limit_s: float | None = None) -> None:
        """Run ``module:function`` on some machine until it ends; see ``core/ports.py``.

        Arguments that name a file beside ``folder`` are brought along, and ``folder`` comes back with what was made in it.

        Raises:
            WenfangError: what the entry refused with; as ``join``.
            Broken: `runtime.no-room`, `runtime.node-lost`, `runtime.worker-died`, `runtime.worker-overran`.
        """
        ray = self._joined()
        folder.mkdir(parents=True, exist_ok=True)
        actor = Actor.placed(ray, f"work-{secrets.token_hex(4)}", self.resources, detached=False, room_s=self.room_s)
        try:
            self._begin(actor, entry, arguments, folder)
            seen = self._follow(actor, entry, folder, heard, limit_s)
            if seen["error"]:
                raise BY_STATUS.get(seen["error"]["status"], Broken)(seen["error"]["code"], **seen["error"]["fields"])
            if seen["code"] != 0:
                raise died(entry, seen["code"], folder / "log")
            for path, size in json.loads(actor.ask("made", "work")).items():
                actor.fetch(f"work/{path}", size, folder / path)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as e:
            raise Broken("runtime.node-lost", name=entry, node=actor.node["ip"]) from e
        finally:
            with suppress(Exception):  # its machine may have gone: then there is nothing to end
                actor.ask("stop", 0.0)
            with suppress(Exception):
                actor.kill()

    @staticmethod
    def _begin(actor: Actor, entry: str, arguments: Mapping[str, Any], folder: Path) -> None:
        beside = {k: Path(v) for k, v in arguments.items() if isinstance(v, str) and v.startswith(f"{folder.parent}/") and Path(v).is_file()}
        files = {f"in/{path.name}": (path, file_of(path)) for path in beside.values()}
        paths = {"told": "work/told.jsonl", **{k: f"in/{path.name}" for k, path in beside.items()}, **{k: "work/" for k, v in arguments.items() if v == str(folder)}}
        actor.bring(files)
        call = {"entry": entry, "arguments": dict(arguments), "files": {name: digest for name, (_, digest) in files.items()}, "paths": {"made": "work/", **paths}, "digest": ""}
        actor.do("start", json.dumps(call), b"")

    @staticmethod
    def _follow(actor: Actor, entry: str, folder: Path, heard: Callable[[Mapping[str, Any]], None], limit_s: float | None) -> dict[str, Any]:
        """Pass on what it tells until it has ended; what it was like at the end."""
        until = None if limit_s is None else time.monotonic() + limit_s
        told, rest = 0, b""
        with open(folder / "log", "ab") as log:
            while True:
                seen: dict[str, Any] = json.loads(actor.ask("look"))
                log.write(seen["log"].encode())
                while data := actor.ask("part", "work/told.jsonl", told, TOLD_BYTES):
                    told += len(data)
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        heard(json.loads(line))
                if not seen["running"] and not seen["log"]:
                    return seen
                if until is not None and time.monotonic() > until:
                    raise Broken("runtime.worker-overran", name=entry, limit_s=round(limit_s or 0.0, 1))
                time.sleep(LOOK_S)
