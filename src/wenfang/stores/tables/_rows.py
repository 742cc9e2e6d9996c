"""Between records and rows: what becomes a column, what can be stored at all, and how a clash is told. The same for every store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from wenfang.core.errors import Broken, Conflict, Invalid
from wenfang.core.ports import Changes
from wenfang.core.records import AuditEntry, Record
from wenfang.core.text import has_surrogate

__all__ = [
    "Plan",
    "Row",
    "changed",
    "columns_of",
    "exists",
    "exists_already",
    "has_revision",
    "is_int",
    "json_of",
    "plan",
    "record_of",
    "row_of",
    "searchable",
    "shapes_of",
    "storable",
]

R = TypeVar("R", bound=Record)
Row = dict[str, Any]
HIDDEN = frozenset({"digest"})
"""Unique fields whose value no message shows."""
INT_MAX = (1 << 63) - 1


def storable(text: str) -> bool:
    """Whether every database can hold ``text`` in a column: no NUL, no lone surrogate."""
    return "\x00" not in text and (text.isascii() or not has_surrogate(text))


def has_revision(kind: type[Record]) -> bool:
    """Whether records of this kind may change."""
    return "revision" in kind.model_fields


def is_int(kind: type[Record], name: str) -> bool:
    """Whether the column of a field holds whole numbers; all others hold text."""
    return kind.model_fields[name].annotation is int


def columns_of(kind: type[Record]) -> tuple[str, ...]:
    """The columns of a kind's table."""
    return ("id", "created_at", *kind.indexed, *(("revision",) if has_revision(kind) else ()), "body")


def searchable(kind: type[Record]) -> tuple[str, ...]:
    """What records of a kind can be found by."""
    return ("id", *kind.indexed)


def _check(kind: str, name: str, value: Any, *, wants_int: bool) -> None:
    if wants_int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INT_MAX:
            raise Invalid("store.wrong-type", kind=kind, field=name, wanted="int")
    elif not isinstance(value, str):
        raise Invalid("store.wrong-type", kind=kind, field=name, wanted="str")
    elif not storable(value):
        raise Invalid("store.bad-text", kind=kind, field=name)


def json_of(model: BaseModel) -> str:
    """A record or line as JSON text.

    Raises:
        Invalid: `store.bad-text` (a lone surrogate).
    """
    try:
        return model.model_dump_json()
    except (PydanticSerializationError, UnicodeEncodeError) as e:
        raise Invalid("store.bad-text", kind=type(model).__name__, field="body") from e


def row_of(record: Record) -> Row:
    """The row of a record: searchable columns and the whole of it as JSON.

    Raises:
        Invalid: `store.bad-text`, `store.wrong-type`.
    """
    kind = type(record)
    row: Row = {"id": record.id, "created_at": record.created_at.isoformat(), "body": json_of(record)}
    for name in kind.indexed:
        row[name] = getattr(record, name)
    if has_revision(kind):
        row["revision"] = getattr(record, "revision")  # noqa: B009 not every record has one
    for name in columns_of(kind)[2:-1]:
        if row[name] is not None:
            _check(kind.__name__, name, row[name], wants_int=is_int(kind, name))
    _check(kind.__name__, "id", record.id, wants_int=False)
    return row


def record_of(kind: type[R], id: str, body: str) -> R:
    """The record of a row.

    Raises:
        Broken: `store.damaged-row`.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as e:
        raise Broken("store.damaged-row", table=kind.table, id=id) from e


def shapes_of(kind: type[Record], where: Mapping[str, Any] | None, after: str | None) -> tuple[tuple[str, str], ...]:
    """How each field of a search is compared: ``=``, ``null``, ``any`` of a list, ``any-or-null``.

    Raises:
        Invalid: `store.not-indexed`, `store.bad-text`, `store.wrong-type`.
    """
    if after is not None:
        _check(kind.__name__, "id", after, wants_int=False)
    if not where:
        return ()
    shapes: list[tuple[str, str]] = []
    for name, value in where.items():
        if name not in searchable(kind):
            raise Invalid("store.not-indexed", kind=kind.__name__, field=name, known=searchable(kind))
        many: list[Any] = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        for one in many:
            if one is not None:
                _check(kind.__name__, name, one, wants_int=is_int(kind, name))
        if many == [None]:
            shapes.append((name, "null"))
        elif isinstance(value, (list, tuple, set, frozenset)):
            shapes.append((name, "any-or-null" if None in many else "any"))
        else:
            shapes.append((name, "="))
    return tuple(shapes)


def exists(kind: type[Record], row: Row, names: tuple[str, ...]) -> Conflict:
    """The error of a second record where one may be."""
    values = ", ".join(f"{n}=…" if n in HIDDEN else f"{n}={row[n]}" for n in names)
    return exists_already(kind.__name__, values)


def exists_already(kind: str, values: str) -> Conflict:
    """The same, in plain words."""
    return Conflict("store.exists", kind=kind, values=values)


def changed(kind: type[Record], id: str) -> Conflict:
    """The error of an update that comes too late."""
    return Conflict("store.changed-meanwhile", kind=kind.__name__, id=id)


@dataclass(slots=True)
class Plan:
    """Changes as rows, checked before any transaction begins."""

    puts: list[tuple[type[Record], Row]] = field(default_factory=list[tuple[type[Record], Row]])
    updates: list[tuple[type[Record], Row]] = field(default_factory=list[tuple[type[Record], Row]])
    """Rows with ``old_revision`` beside their columns."""
    pointers: list[Row] = field(default_factory=list[Row])
    events: list[Row] = field(default_factory=list[Row])
    audit: list[AuditEntry] = field(default_factory=list[AuditEntry])

    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.puts or self.updates or self.pointers or self.events or self.audit)


def plan(changes: Changes) -> Plan:
    """The rows that ``changes`` asks for.

    Raises:
        Invalid: `store.immutable`, `store.revision-not-raised`, `store.bad-text`, `store.wrong-type`.
    """
    made = Plan(puts=[(type(r), row_of(r)) for r in changes.puts], audit=list(changes.audit))
    for record, old in changes.updates:
        kind = type(record)
        if not has_revision(kind):
            raise Invalid("store.immutable", kind=kind.__name__)
        row = row_of(record)
        if row["revision"] <= old:
            raise Invalid("store.revision-not-raised", kind=kind.__name__, id=record.id, revision=old)
        made.updates.append((kind, {**row, "old_revision": old}))
    made.pointers = list(_log_rows(changes.pointers, "target"))
    made.events = list(_log_rows(changes.events, "data"))
    for _ in _log_rows(changes.audit, "detail"):
        pass  # only the check: the chain gives the row later
    return made


def _log_rows(lines: list[Any], last: str) -> Iterator[Row]:
    """Lines of a log as rows; a dictionary field becomes JSON text."""
    for line in lines:
        row: Row = json.loads(json_of(line))
        if isinstance(row.get(last), dict):
            row[last] = json.dumps(row[last], ensure_ascii=False)
        for name, value in row.items():
            if isinstance(value, str):
                _check(type(line).__name__, name, value, wants_int=False)
        yield row
