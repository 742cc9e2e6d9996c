"""The tables as SQLAlchemy sees them, made from the records; the migrations must arrive at the same (a test compares them)."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text, UniqueConstraint

from wenfang.core.records import RECORDS, Record

from ._rows import columns_of, is_int

__all__ = ["AUDIT", "COMMITS", "EVENTS", "HEAD", "METADATA", "OWN_TABLES", "POINTERS", "TABLES", "TEXT"]

HEAD = "0004"
"""The newest migration."""

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point on every database."""

METADATA = MetaData()


def _table(kind: type[Record]) -> Table:
    columns: list[Column[str] | Column[int]] = [Column("id", TEXT, primary_key=True), Column("created_at", TEXT, nullable=False)]
    for name in columns_of(kind)[2:-1]:
        if is_int(kind, name):
            columns.append(Column(name, BigInteger, nullable=False))
        else:
            columns.append(Column(name, TEXT, nullable=type(None) in get_args(kind.model_fields[name].annotation)))
    columns.append(Column("body", TEXT, nullable=False))
    unique = [UniqueConstraint(*kind.unique, name=f"uq_{kind.table}")] if kind.unique else []
    # a search by one field comes out in order of id without sorting
    indexes = [Index(f"ix_{kind.table}_{name}", name, "id") for name in kind.indexed if (name,) != kind.unique]
    return Table(kind.table, METADATA, *columns, *unique, *indexes)


TABLES: dict[type[Record], Table] = {kind: _table(kind) for kind in RECORDS}

POINTERS = Table(
    "pointers",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("target", TEXT, nullable=False),
    Column("at", TEXT, nullable=False),
    Column("actor", TEXT, nullable=False),
    Index("ix_pointers_kind_key", "kind", "key", "seq"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", TEXT, nullable=False),
    Column("at", TEXT, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("subject", TEXT, nullable=False),
    Column("data", TEXT, nullable=False),
    UniqueConstraint("id", name="uq_events"),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", TEXT, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("operation", TEXT, nullable=False),
    Column("subject", TEXT, nullable=False),
    Column("outcome", TEXT, nullable=False),
    Column("code", TEXT, nullable=False),
    Column("request_id", TEXT, nullable=False),
    Column("detail", TEXT, nullable=False),
    Column("previous", TEXT, nullable=False),
    Column("hash", TEXT, nullable=False),
)

COMMITS = Table("commits", METADATA, Column("id", TEXT, primary_key=True), Column("at", TEXT, nullable=False), Index("ix_commits_at", "at"))

OWN_TABLES = frozenset(METADATA.tables)
