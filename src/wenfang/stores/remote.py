"""Tables at the other end of a socket: what job processes use, because only the control process opens SQLite.

When the control process goes away, calls wait for its successor. Reading can be repeated as it is; a commit carries an id that the
store writes down in the same transaction, so a commit whose answer was lost is not done twice.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.ports import Changes, Tables
from wenfang.core.records import AuditEntry, Event, Pointer, Record

from .tables._rows import json_of, shapes_of, storable

__all__ = ["RemoteTables"]

R = TypeVar("R", bound=Record)
WAIT_S = 30.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 0.5


class RemoteTables(Tables):
    """The tables of the control process. Each call has a connection to itself; idle ones are kept.

    Args:
        path: the socket.
        wait_s: how long a call waits for the control process to come back.
    """

    def __init__(self, path: Path, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._wait_s = wait_s
        self._idle: list[FrameClient] = []
        self._lock = threading.Lock()
        self._closed = False

    def _call(self, name: str, **arguments: Any) -> Any:
        """Call and, while nobody answers, call again.

        Raises:
            Broken: `process.not-answering` after ``wait_s``.
            WenfangError: whatever the store at the other end raises.
        """
        deadline, pause_s = time.monotonic() + self._wait_s, PAUSE_MIN_S
        while True:
            client: FrameClient | None = None
            try:
                client = self._take()
                answer = client.call(name, **arguments)
            except WenfangError as e:
                if not e.code.startswith("process."):  # the store's own answer; the connection is in order
                    self._give_back(client)
                    raise
                self._hang_up(client)
                if e.code != "process.not-answering" or time.monotonic() + pause_s > deadline:
                    raise
            except BaseException:
                self._hang_up(client)  # a frame may have been cut in two
                raise
            else:
                self._give_back(client)
                return answer
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    def _take(self) -> FrameClient:
        with self._lock:
            if self._closed:
                raise Broken("store.closed", path=self._path.name)
            if self._idle:
                return self._idle.pop()
        return FrameClient(self._path)

    def _give_back(self, client: FrameClient | None) -> None:
        if client is None:
            return
        with self._lock:
            if not self._closed:
                self._idle.append(client)
                return
        client.close()

    def _hang_up(self, client: FrameClient | None) -> None:
        """Close a connection that failed, and the idle ones with it: they lead to the same process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in (*idle, *((client,) if client else ())):
            one.close()

    # ------------------------------------------------------------ the port
    def get(self, kind: type[R], id: str) -> R | None:
        """The record, or None."""
        if not storable(id):
            return None
        body = self._call("get", kind=kind.table, id=id)
        return None if body is None else kind.model_validate_json(body)

    def find(self, kind: type[R], *, where: Mapping[str, Any] | None = None, limit: int = 1000, after: str | None = None, newest_first: bool = False) -> list[R]:
        """Records whose indexed fields equal ``where``, by id."""
        shapes = shapes_of(kind, where, after)
        plain: dict[str, Any] = {name: list(where[name]) if shape.startswith("any") else where[name] for name, shape in shapes} if where else {}
        bodies = self._call("find", kind=kind.table, where=plain, limit=limit, after=after, newest_first=newest_first)
        return [kind.model_validate_json(body) for body in bodies]

    def pointer(self, kind: str, key: str) -> Pointer | None:
        """What ``key`` stands for now."""
        if not (storable(kind) and storable(key)):
            return None
        body = self._call("pointer", kind=kind, key=key)
        return None if body is None else Pointer.model_validate_json(body)

    def pointers(self, kind: str, key: str | None = None) -> list[Pointer]:
        """The history of one key, newest first; without a key, the present pointer of every key."""
        if not (storable(kind) and storable(key or "")):
            return []
        return [Pointer.model_validate_json(body) for body in self._call("pointers", kind=kind, key=key)]

    def commit(self, changes: Changes, *, once: str | None = None) -> None:
        """Write all or nothing, durably, and once however often the connection breaks."""
        self._call(
            "commit",
            once=once or secrets.token_hex(16),
            puts=[(r.table, json_of(r)) for r in changes.puts],
            updates=[(r.table, json_of(r), revision) for r, revision in changes.updates],
            pointers=[json_of(p) for p in changes.pointers],
            events=[json_of(e) for e in changes.events],
            audit=[json_of(e) for e in changes.audit],
        )

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events in order."""
        return [Event.model_validate_json(body) for body in self._call("events", after=after, limit=limit)]

    def audit(self, after: int = 0, limit: int = 1000) -> list[AuditEntry]:
        """Audit entries in order."""
        return [AuditEntry.model_validate_json(body) for body in self._call("audit", after=after, limit=limit)]

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for client in idle:
            client.close()
