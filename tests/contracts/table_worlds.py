"""Stores of records to test: each kind opened for real, a PostgreSQL database of our own included."""

import os
import secrets
import typing
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

import psycopg
import pytest
from pydantic import BaseModel

from wenfang.core.home import Home
from wenfang.core.ids import new_id, now
from wenfang.core.records import AuditEntry, Event, Pointer
from wenfang.stores import TABLE_STORES, open_tables
from wenfang.stores.remote import RemoteTables
from wenfang.stores.served import serve_tables

STORES = [*TABLE_STORES.names(), "remote-memory", "remote-sqlite"]
POSTGRES = os.environ.get("WENFANG_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@cache
def postgres_answers():
    try:
        with psycopg.connect(POSTGRES, connect_timeout=3) as connection:
            return "" if connection.execute("SELECT 1").fetchone() == (1,) else "odd answer"
    except psycopg.Error as e:
        return f"PostgreSQL does not answer at WENFANG_TEST_POSTGRES ({type(e).__name__})"


@contextmanager
def postgres_database():
    """The URL of a new database, dropped afterwards."""
    if reason := postgres_answers():
        pytest.skip(reason)
    name = f"wenfang_test_{secrets.token_hex(6)}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"{POSTGRES.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def empty_postgres(url):
    with psycopg.connect(url, autocommit=True) as connection:
        names = [r[0] for r in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")]
        if names:
            connection.execute("; ".join(f'DELETE FROM "{n}"' for n in names))


@contextmanager
def opened(store, root, postgres):
    """A store called ``store``; ``postgres()`` gives the URL of an empty database."""
    home = Home(root / "h").prepare()
    scheme = store.removeprefix("remote-")
    own = open_tables(postgres() if scheme == "postgresql" else f"{scheme}:", home)
    try:
        if not store.startswith("remote-"):
            yield own
            return
        server = serve_tables(own, home.run / "t.sock")
        remote = RemoteTables(home.run / "t.sock", wait_s=2.0)
        try:
            yield remote
        finally:
            remote.close()
            server.close()
    finally:
        own.close()


def sample(kind, **fields):
    """A record of ``kind`` with something in every field."""
    values = {"id": new_id(kind.prefix)}
    for name, field in kind.model_fields.items():
        if name not in {"id", "created_at"}:
            values[name] = _value(field.annotation, f"{name} 文房😀'\"\\")
    return kind(**{**values, **fields})


def _value(annotation, text):
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return arguments[0]
    if type(None) in arguments:
        return _value(next(a for a in arguments if a is not type(None)), text)
    if origin is dict:
        return {"k": 3 if arguments[1] is int else 2.5 if arguments[1] is float else "v" if arguments[1] is str else [1.5, None, {"深": "\x00"}]}
    if origin is list:
        return [_value(arguments[0], text)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation(**{name: _value(field.annotation, text) for name, field in annotation.model_fields.items() if field.is_required()})
    return {str: text, int: 7, float: 0.5, bool: True, datetime: datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)}[annotation]


def event(id=None, **fields):
    return Event(id=id or new_id("ev"), kind="dataset.imported", actor="ky_1", subject="ds_1", **fields)


def entry(outcome="done", **fields):
    return AuditEntry(seq=0, at=now(), actor="local", operation="dataset.import", subject="ds_1", outcome=outcome, **fields)


def pointer(key="news", target="mv_1"):
    return Pointer(kind="service", key=key, target=target, actor="local")
