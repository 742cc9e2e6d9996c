"""Records in memory: the twin of the SQL stores for fast tests. Behaves as they do, and forgets when the process ends."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

from wenfang.core.chain import seal
from wenfang.core.errors import Broken
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import RECORDS, AuditEntry, Event, Pointer, Record

from ._rows import Plan, Row, changed, exists, exists_already, plan, record_of, shapes_of
from .base import TableStore

__all__ = ["MemoryTables"]

R = TypeVar("R", bound=Record)


class MemoryTables(TableStore):
    """Tables in this process."""

    form = "memory:"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[type[Record], dict[str, Row]] = {kind: {} for kind in RECORDS}
        self._ids: dict[type[Record], list[str]] = {kind: [] for kind in RECORDS}
        self._unique: dict[type[Record], dict[tuple[Any, ...], str]] = {kind: {} for kind in RECORDS}
        self._pointers: list[Pointer] = []
        self._events: list[Event] = []
        self._event_ids: set[str] = set()
        self._audit: list[AuditEntry] = []
        self._seen: set[str] = set()
        self._closed = False

    @classmethod
    def open(cls, url: str, home: Home) -> Self:  # noqa: ARG003 it is nowhere
        """A new empty store."""
        return cls()

    def _check_open(self) -> None:
        if self._closed:
            raise Broken("store.closed", path="memory:")

    def get(self, kind: type[R], id: str) -> R | None:
        """The record, or None."""
        with self._lock:
            self._check_open()
            row = self._rows[kind].get(id)
        return record_of(kind, id, row["body"]) if row else None

    def find(self, kind: type[R], *, where: Mapping[str, Any] | None = None, limit: int = 1000, after: str | None = None, newest_first: bool = False) -> list[R]:
        """Records whose indexed fields equal ``where``, by id."""
        wanted: dict[str, set[Any]] = {}
        for name, shape in shapes_of(kind, where, after):
            assert where is not None
            wanted[name] = set(where[name]) if shape.startswith("any") else {where[name]} if shape == "=" else {None}
        found: list[Row] = []
        with self._lock:
            self._check_open()
            ids = self._ids[kind]
            first, last = (0, len(ids)) if after is None else (0, bisect_left(ids, after)) if newest_first else (bisect_right(ids, after), len(ids))
            order = range(last - 1, first - 1, -1) if newest_first else range(first, last)
            for n in order:
                if len(found) >= limit:
                    break
                row = self._rows[kind][ids[n]]
                if all(row[name] in values for name, values in wanted.items()):
                    found.append(row)
        return [record_of(kind, row["id"], row["body"]) for row in found]

    def pointer(self, kind: str, key: str) -> Pointer | None:
        """What ``key`` stands for now."""
        history = self.pointers(kind, key)
        return history[0] if history else None

    def pointers(self, kind: str, key: str | None = None) -> list[Pointer]:
        """The history of one key, newest first; without a key, the present pointer of every key, by key."""
        with self._lock:
            self._check_open()
            if key is not None:
                return [p for p in reversed(self._pointers) if p.kind == kind and p.key == key]
            newest = {p.key: p for p in self._pointers if p.kind == kind}
        return [newest[k] for k in sorted(newest)]

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events in order."""
        with self._lock:
            self._check_open()
            return [e.model_copy(deep=True) for e in self._events[max(after, 0) : max(after, 0) + max(limit, 0)]]

    def audit(self, after: int = 0, limit: int = 1000) -> list[AuditEntry]:
        """Audit entries in order."""
        with self._lock:
            self._check_open()
            return [e.model_copy(deep=True) for e in self._audit[max(after, 0) : max(after, 0) + max(limit, 0)]]

    # ------------------------------------------------------------ writing
    def commit(self, changes: Changes, *, once: str | None = None) -> None:
        """Write all or nothing."""
        made = plan(changes)
        undo: list[Callable[[], object]] = []
        with self._lock:
            self._check_open()
            if once is not None and once in self._seen:
                return
            try:
                self._write(made, changes, undo)
            except BaseException:
                for step in reversed(undo):
                    step()
                raise
            if once is not None:
                self._seen.add(once)

    def _write(self, made: Plan, changes: Changes, undo: list[Callable[[], object]]) -> None:
        for kind, row in made.puts:
            if row["id"] in self._rows[kind]:
                raise exists(kind, row, ("id",))
            self._claim(kind, row, undo)
            self._rows[kind][row["id"]] = row
            insort(self._ids[kind], row["id"])
            undo.append(partial(self._forget, kind, row["id"]))
        for kind, row in made.updates:
            old = self._rows[kind].get(row["id"])
            if old is None or old["revision"] != row["old_revision"]:
                raise changed(kind, row["id"])
            self._release(kind, old, undo)
            self._claim(kind, row, undo)
            self._rows[kind][row["id"]] = row
            undo.append(partial(self._rows[kind].update, {old["id"]: old}))
        new_events = {e.id for e in changes.events}
        if taken := (new_events & self._event_ids) or (len(new_events) < len(changes.events) and new_events):
            raise exists_already("Event", f"id={min(taken)}")
        # nothing below can fail
        self._event_ids |= new_events
        self._pointers += [p.model_copy(update={"seq": n}) for n, p in enumerate(changes.pointers, len(self._pointers) + 1)]
        self._events += [e.model_copy(update={"seq": n}, deep=True) for n, e in enumerate(changes.events, len(self._events) + 1)]
        for entry in changes.audit:
            previous = self._audit[-1].hash if self._audit else ""
            self._audit.append(AuditEntry.model_validate_json(seal(entry, previous, len(self._audit) + 1).model_dump_json()))

    def _forget(self, kind: type[Record], id: str) -> None:
        del self._rows[kind][id]
        self._ids[kind].remove(id)

    def _claim(self, kind: type[Record], row: Row, undo: list[Callable[[], object]]) -> None:
        values = tuple(row[name] for name in kind.unique)
        if not values or None in values:
            return
        if values in self._unique[kind]:
            raise exists(kind, row, kind.unique)
        self._unique[kind][values] = row["id"]
        undo.append(lambda: self._unique[kind].pop(values))

    def _release(self, kind: type[Record], row: Row, undo: list[Callable[[], object]]) -> None:
        values = tuple(row[name] for name in kind.unique)
        if self._unique[kind].pop(values, None) is not None:
            undo.append(lambda: self._unique[kind].update({values: row["id"]}))

    def close(self) -> None:
        """Forget nothing, but answer no more."""
        self._closed = True
