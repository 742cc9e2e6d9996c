"""The SQL of a store, written once by SQLAlchemy for a dialect and then kept as text: a call costs what the driver costs."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Dialect, Table, Text, any_, bindparam, func, or_, select
from sqlalchemy.sql.elements import ClauseElement

from wenfang.core.records import Record

from ._rows import columns_of, is_int
from ._schema import AUDIT, COMMITS, EVENTS, POINTERS, TABLES

__all__ = ["Statements"]

Shapes = tuple[tuple[str, str], ...]


class Statements:
    """Every statement a store runs, as text with named parameters.

    Args:
        dialect: with a named parameter style (``:id`` or ``%(id)s``).
        arrays: whether a list travels as an array (PostgreSQL); else as JSON text (SQLite).
    """

    def __init__(self, dialect: Dialect, *, arrays: bool) -> None:
        self._dialect = dialect
        self._arrays = arrays
        self.get = {kind: self._text(select(t.c.body).where(t.c.id == bindparam("id"))) for kind, t in TABLES.items()}
        self.insert = {kind: self._insert(t) for kind, t in TABLES.items()}
        self.update = {kind: self._update(kind, t) for kind, t in TABLES.items() if "revision" in t.c}
        self.find = lru_cache(maxsize=512)(self._find)
        self.insert_pointer, self.insert_event = self._insert(POINTERS), self._insert(EVENTS)
        self.insert_audit, self.insert_commit = self._insert(AUDIT), self._insert(COMMITS)
        self.seen_commit = self._text(select(COMMITS.c.id).where(COMMITS.c.id == bindparam("id")))
        self.prune_commits = self._text(COMMITS.delete().where(COMMITS.c.at < bindparam("before")))
        self.last_pointer_seq = self._text(select(func.coalesce(func.max(POINTERS.c.seq), 0)))
        self.last_event_seq = self._text(select(func.coalesce(func.max(EVENTS.c.seq), 0)))
        self.last_audit = self._text(select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1))
        self.events, self.audit = self._page(EVENTS), self._page(AUDIT)
        of_key = select(POINTERS).where(POINTERS.c.kind == bindparam("kind"), POINTERS.c.key == bindparam("key")).order_by(POINTERS.c.seq.desc())
        self.pointer, self.pointer_history = self._text(of_key.limit(1)), self._text(of_key)
        newest = select(func.max(POINTERS.c.seq)).where(POINTERS.c.kind == bindparam("kind")).group_by(POINTERS.c.key)
        self.pointers_now = self._text(select(POINTERS).where(POINTERS.c.seq.in_(newest)).order_by(POINTERS.c.key))

    def _text(self, statement: ClauseElement, columns: list[str] | None = None) -> str:
        compiled = statement.compile(dialect=self._dialect, column_keys=columns)
        text = str(compiled)
        for name, value in (compiled.params or {}).items():
            if type(value) is int:  # the constants of LIMIT 1, OFFSET 0 and coalesce(…, 0)
                text = re.sub(rf"%\({name}\)s|:{name}\b", str(value), text)
        return text

    def _insert(self, table: Table) -> str:
        return self._text(table.insert(), [c.name for c in table.c])

    def _update(self, kind: type[Record], table: Table) -> str:
        matching = table.update().where(table.c.id == bindparam("row_id"), table.c.revision == bindparam("old_revision"))
        return self._text(matching.values({name: bindparam(f"new_{name}") for name in columns_of(kind)[2:]}))

    def _page(self, table: Table) -> str:
        return self._text(select(table).where(table.c.seq > bindparam("after")).order_by(table.c.seq).limit(bindparam("limit", type_=BigInteger)))

    def _find(self, kind: type[Record], shapes: Shapes, after: bool, newest_first: bool) -> str:
        table = TABLES[kind]
        statement = select(table.c.id, table.c.body)
        for name, shape in shapes:
            statement = statement.where(self._matches(kind, table.c[name], name, shape))
        if after:
            statement = statement.where(table.c.id < bindparam("after") if newest_first else table.c.id > bindparam("after"))
        order = table.c.id.desc() if newest_first else table.c.id
        return self._text(statement.order_by(order).limit(bindparam("limit", type_=BigInteger)))

    def _matches(self, kind: type[Record], column: ColumnElement[Any], name: str, shape: str) -> ColumnElement[bool]:
        mark = f"where_{name}"
        if shape == "null":
            return column.is_(None)
        if shape == "=":
            return column == bindparam(mark, type_=column.type)
        if self._arrays:
            among = column == any_(bindparam(mark, type_=ARRAY(BigInteger if is_int(kind, name) else Text)))
        else:
            among = column.in_(select(func.json_each(bindparam(mark, type_=Text)).table_valued("value").c.value))
        return or_(among, column.is_(None)) if shape == "any-or-null" else among
