"""Records in a PostgreSQL database: for installations of more than one machine. Any number of processes may write.

A commit first takes an advisory lock of the transaction, so that commits come one after another: one audit chain, no gaps in the
numbers, no deadlocks between writers. Reading takes no lock.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import psycopg
from psycopg import errors as pg
from sqlalchemy import create_engine, make_url
from sqlalchemy.dialects.postgresql import psycopg as dialect
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from wenfang.core.errors import Broken, Invalid, WenfangError
from wenfang.core.home import Home

from ._sql import SqlTables
from ._statements import Statements

__all__ = ["PostgresqlTables"]

CONNECT_TIMEOUT_S = 5
CONNECTIONS = 8
COMMIT_LOCK = 0x77656E66616E67  # "wenfang"


class PostgresqlTables(SqlTables):
    """Tables on a database server.

    Args:
        url: ``postgresql://user:password@host:port/database``.

    Raises:
        Invalid: `store.bad-url`.
        Broken: `store.unreachable`, `store.schema-newer`, `store.foreign-tables`.
    """

    form = "postgresql://user@host/database"
    errors = (psycopg.Error, DBAPIError, PoolTimeout)
    integrity = psycopg.IntegrityError
    begin = ("BEGIN", f"SELECT pg_advisory_xact_lock({COMMIT_LOCK})")
    list_tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()"
    sql: ClassVar[Statements] = Statements(dialect.dialect(), arrays=True)

    def __init__(self, url: str) -> None:
        try:
            address = make_url(url)
        except (ArgumentError, ValueError) as e:
            raise Invalid("store.bad-url", url="postgresql:…", known=self.form) from e
        self._place = address.set(password=None, query={}).render_as_string()
        self._closed = False
        self._engine = create_engine(
            address.set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            pool_size=CONNECTIONS,
            max_overflow=CONNECTIONS,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "wenfang"},
        )
        try:
            self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    @classmethod
    def open(cls, url: str, home: Home) -> Self:  # noqa: ARG003 a server is not in the home
        """Open ``postgresql://…``."""
        return cls(url)

    @property
    def place(self) -> str:
        """The address without the password."""
        return self._place

    @contextmanager
    def _cursor(self) -> Generator[Any]:
        if self._closed:
            raise Broken("store.closed", path=self.place)
        connection = self._engine.raw_connection()
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def _told(self, e: Exception) -> WenfangError:
        cause = e.orig if isinstance(e, DBAPIError) and e.orig is not None else e
        state = getattr(cause, "sqlstate", None)
        name = type(cause).__name__
        if isinstance(cause, (pg.DiskFull, pg.ReadOnlySqlTransaction, pg.InsufficientPrivilege)):
            return Broken("store.write-failed", path=self.place, reason=name)
        if isinstance(cause, (pg.DataCorrupted, pg.IndexCorrupted)):
            return Broken("store.damaged", path=self.place, reason=name)
        if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)):
            return Broken("store.unreachable", path=self.place, reason=f"{name} {state or ''}".strip())
        return Broken("store.failed", path=self.place, reason=f"{name} {state or ''}".strip())

    def _list(self, values: list[Any]) -> Any:
        return values

    def _upgrade(self, cursor: Any) -> None:  # noqa: ARG002 its connection only holds the lock, so that a second process waits
        from ._migrate import upgrade

        with self._engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            upgrade(connection)

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._engine.dispose()
