"""Records in a PostgreSQL database: for installations of more than one machine. Any number of processes may write.

A commit first takes an advisory lock of the transaction, so that commits come one after another: one audit chain, no gaps in the
numbers, no deadlocks between writers. Reading takes no lock.

When a connection breaks, a call is made again on another one for a while. Every commit carries an id that is written with it, so a
commit that went through while its answer was lost is found to be done, neither repeated nor told as failed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from psycopg import errors as pg
from sqlalchemy import create_engine, make_url
from sqlalchemy.dialects.postgresql import psycopg as dialect
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from wenfang.core.errors import Broken, Invalid, WenfangError
from wenfang.core.home import Home
from wenfang.core.ports import Changes

from ._sql import SqlTables
from ._statements import Statements

__all__ = ["PostgresqlTables"]

T = TypeVar("T")
CONNECT_TIMEOUT_S = 5
RECONNECT_S = 5.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 0.5
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
            if getattr(connection.dbapi_connection, "closed", True):
                connection.invalidate()  # it broke: the pool need not find that out by rolling it back
            connection.close()

    # ------------------------------------------------------------ connections that break
    def _patiently(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; while the server cannot be reached, it is called again for ``RECONNECT_S``."""
        deadline, pause_s = time.monotonic() + RECONNECT_S, PAUSE_MIN_S
        while True:
            try:
                return work()
            except Broken as e:
                if e.code != "store.unreachable" or time.monotonic() + pause_s > deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    def _all(self, statement: str, values: Mapping[str, Any]) -> list[Any]:
        return self._patiently(lambda: super(PostgresqlTables, self)._all(statement, values))

    def commit(self, changes: Changes, *, once: str | None = None) -> None:
        """Write all or nothing, durably, and once however often the connection breaks."""
        once = once or secrets.token_hex(16)
        self._patiently(lambda: super(PostgresqlTables, self).commit(changes, once=once))

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
