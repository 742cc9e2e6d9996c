"""A store of records on an SQL database: everything the databases have in common. How a connection is had is the subclass's business.

Connections stand in autocommit; a commit says BEGIN and COMMIT itself. Commits come one after another (a lock of the database),
so the numbers of events, pointers and audit entries have no gaps and a reader never sees a later one before an earlier one.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel

from wenfang.core.chain import seal
from wenfang.core.durable import crash_point
from wenfang.core.errors import Broken, WenfangError
from wenfang.core.ids import now
from wenfang.core.ports import Changes
from wenfang.core.records import AuditEntry, Event, Pointer, Record

from ._rows import Plan, Row, changed, columns_of, exists, exists_already, plan, record_of, shapes_of, storable
from ._schema import HEAD, OWN_TABLES
from ._statements import Statements
from .base import TableStore

__all__ = ["REMEMBER_COMMITS", "SqlTables"]

R = TypeVar("R", bound=Record)
L = TypeVar("L", bound=BaseModel)
REMEMBER_COMMITS = timedelta(days=1)
PRUNE_EVERY = 1000
EVENT_FIELDS = ("seq", "id", "at", "kind", "actor", "subject", "data")
POINTER_FIELDS = ("seq", "kind", "key", "target", "at", "actor")
AUDIT_FIELDS = ("seq", "at", "actor", "operation", "subject", "outcome", "code", "request_id", "detail", "previous", "hash")


class SqlTables(TableStore):
    """What SQLite and PostgreSQL share. A subclass gives cursors, names its errors and says how a writer waits for the others."""

    errors: ClassVar[tuple[type[Exception], ...]]
    """What its driver raises."""
    integrity: ClassVar[type[Exception]]
    """What its driver raises when a unique constraint is broken."""
    begin: ClassVar[tuple[str, ...]]
    """Statements that begin a writing transaction and wait for other writers."""
    list_tables: ClassVar[str]
    """Lists every table there is."""
    sql: ClassVar[Statements]
    _remembered: ClassVar = count(1)

    # ------------------------------------------------------------ what a subclass gives
    @abstractmethod
    def _cursor(self) -> Any:
        """A context manager of a driver's cursor in autocommit."""

    @abstractmethod
    def _told(self, e: Exception) -> WenfangError:
        """A driver's error as ours."""

    @abstractmethod
    def _upgrade(self, cursor: Any) -> None:
        """Run the migrations on the cursor's connection."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the database is, for messages; never a password."""

    # ------------------------------------------------------------ schema
    def _prepare(self) -> None:
        """Bring the schema up to date and forget old commit ids."""
        with self._session() as cursor:
            if self._schema(cursor) != HEAD:
                with self._transaction(cursor):
                    if self._schema(cursor) != HEAD:  # another process may have been first
                        self._upgrade(cursor)
            self._prune(cursor)

    def _prune(self, cursor: Any) -> None:
        cursor.execute(self.sql.prune_commits, {"before": (now() - REMEMBER_COMMITS).isoformat()})

    def _schema(self, cursor: Any) -> str | None:
        cursor.execute(self.list_tables)
        present = {row[0] for row in cursor.fetchall()}
        if "alembic_version" not in present:
            if foreign := present & OWN_TABLES:
                raise Broken("store.foreign-tables", path=self.place, found=sorted(foreign)[:5])
            return None
        cursor.execute("SELECT version_num FROM alembic_version")
        row = cursor.fetchone()
        found = row[0] if row else None
        if found is not None and found != HEAD:
            from ._migrate import known_schemas

            if found not in known_schemas():
                raise Broken("store.schema-newer", path=self.place, found=found, known=HEAD)
        return found

    # ------------------------------------------------------------ reading
    @contextmanager
    def _session(self) -> Generator[Any]:
        try:
            with self._cursor() as cursor:
                yield cursor
        except self.errors as e:
            raise self._told(e) from e

    def _all(self, statement: str, values: Mapping[str, Any]) -> list[Any]:
        with self._session() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def get(self, kind: type[R], id: str) -> R | None:
        """The record, or None."""
        if not storable(id):
            return None
        rows = self._all(self.sql.get[kind], {"id": id})
        return record_of(kind, id, rows[0][0]) if rows else None

    def find(self, kind: type[R], *, where: Mapping[str, Any] | None = None, limit: int = 1000, after: str | None = None, newest_first: bool = False) -> list[R]:
        """Records whose indexed fields equal ``where``, by id."""
        shapes = shapes_of(kind, where, after)
        values: Row = {"limit": max(limit, 0)}
        for name, shape in shapes:
            if shape != "null":
                assert where is not None
                values[f"where_{name}"] = where[name] if shape == "=" else self._list([v for v in where[name] if v is not None])
        if after is not None:
            values["after"] = after
        rows = self._all(self.sql.find(kind, shapes, after is not None, newest_first), values)
        return [record_of(kind, id, body) for id, body in rows]

    def _list(self, values: list[Any]) -> Any:
        """A list as the driver takes it."""
        return json.dumps(values)

    def pointer(self, kind: str, key: str) -> Pointer | None:
        """What ``key`` stands for now."""
        if not (storable(kind) and storable(key)):
            return None
        rows = self._all(self.sql.pointer, {"kind": kind, "key": key})
        return _pointer(rows[0]) if rows else None

    def pointers(self, kind: str, key: str | None = None) -> list[Pointer]:
        """The history of one key, newest first; without a key, the present pointer of every key, by key."""
        if not storable(kind) or (key is not None and not storable(key)):
            return []
        rows = self._all(self.sql.pointers_now, {"kind": kind}) if key is None else self._all(self.sql.pointer_history, {"kind": kind, "key": key})
        return [_pointer(row) for row in rows]

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events in order."""
        return [_event(row) for row in self._all(self.sql.events, {"after": after, "limit": max(limit, 0)})]

    def audit(self, after: int = 0, limit: int = 1000) -> list[AuditEntry]:
        """Audit entries in order."""
        return [_audit(row) for row in self._all(self.sql.audit, {"after": after, "limit": max(limit, 0)})]

    # ------------------------------------------------------------ writing
    def commit(self, changes: Changes, *, once: str | None = None) -> None:
        """Write all or nothing, durably."""
        made = plan(changes)
        if made.empty():
            return
        with self._session() as cursor, self._transaction(cursor):
            if once is not None:
                cursor.execute(self.sql.seen_commit, {"id": once})
                if cursor.fetchone():
                    return
                cursor.execute(self.sql.insert_commit, {"id": once, "at": now().isoformat()})
                if next(self._remembered) % PRUNE_EVERY == 0:
                    self._prune(cursor)
            self._write_records(cursor, made)
            self._write_logs(cursor, made)

    @contextmanager
    def _transaction(self, cursor: Any) -> Generator[None]:
        for statement in self.begin:
            cursor.execute(statement)
        try:
            yield
            crash_point("commit")
            cursor.execute("COMMIT")
        except BaseException:
            self._roll_back(cursor)
            raise
        crash_point("committed")

    def _roll_back(self, cursor: Any) -> None:
        try:
            cursor.execute("ROLLBACK")
        except self.errors:
            return  # the database rolled back itself (disk full) or is gone; the first error is the one to tell

    def _write_records(self, cursor: Any, made: Plan) -> None:
        for n, (kind, row) in enumerate(made.puts):
            try:
                cursor.execute(self.sql.insert[kind], row)
            except self.integrity as e:
                raise self._clash(cursor, kind, row, made.puts[:n]) from e
        for kind, row in made.updates:
            try:
                values = {f"new_{name}": row[name] for name in columns_of(kind)[2:]}
                cursor.execute(self.sql.update[kind], {**values, "row_id": row["id"], "old_revision": row["old_revision"]})
            except self.integrity as e:
                raise exists(kind, row, kind.unique) from e
            if cursor.rowcount != 1:
                raise changed(kind, row["id"])

    def _clash(self, cursor: Any, kind: type[Record], row: Row, before: list[tuple[type[Record], Row]]) -> WenfangError:
        """Which fields of a new row met another: its id, there already or put just before, or else its unique fields."""
        self._roll_back(cursor)  # PostgreSQL answers nothing inside a failed transaction
        cursor.execute(self.sql.get[kind], {"id": row["id"]})
        same_id = cursor.fetchone() is not None or any(k is kind and r["id"] == row["id"] for k, r in before)
        return exists(kind, row, ("id",) if same_id else kind.unique)

    def _write_logs(self, cursor: Any, made: Plan) -> None:
        for rows, last, insert in ((made.pointers, self.sql.last_pointer_seq, self.sql.insert_pointer), (made.events, self.sql.last_event_seq, self.sql.insert_event)):
            if rows:
                cursor.execute(last)
                seq = cursor.fetchone()[0]
                for n, row in enumerate(rows, seq + 1):
                    try:
                        cursor.execute(insert, {**row, "seq": n})
                    except self.integrity as e:
                        raise exists_already("Event", f"id={row['id']}") from e
        if made.audit:
            cursor.execute(self.sql.last_audit)
            seq, previous = cursor.fetchone() or (0, "")
            for n, entry in enumerate(made.audit, seq + 1):
                sealed = seal(entry, previous, n)
                row: Row = json.loads(sealed.model_dump_json())
                cursor.execute(self.sql.insert_audit, {**row, "detail": json.dumps(row["detail"], ensure_ascii=False)})
                previous = sealed.hash


def _line(model: type[L], table: str, fields: tuple[str, ...], row: Any, packed: str = "") -> L:
    """One line of a log; ``packed`` is the field that is kept as JSON text."""
    values: Row = dict(zip(fields, row, strict=True))
    try:
        if packed:
            values[packed] = json.loads(values[packed])
        return model.model_validate(values)
    except (ValueError, TypeError) as e:  # no JSON, or (a ValueError too) no such line
        raise Broken("store.damaged-row", table=table, id=values["seq"]) from e


def _pointer(row: Any) -> Pointer:
    return _line(Pointer, "pointers", POINTER_FIELDS, row)


def _event(row: Any) -> Event:
    return _line(Event, "events", EVENT_FIELDS, row, packed="data")


def _audit(row: Any) -> AuditEntry:
    return _line(AuditEntry, "audit", AUDIT_FIELDS, row, packed="detail")
