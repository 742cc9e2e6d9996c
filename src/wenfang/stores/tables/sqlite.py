"""Records in one SQLite file: the embedded default. One connection, guarded by a lock, that holds the file exclusively.

SQLite 3.7.0 to 3.51.2 can corrupt a database in WAL mode when two connections write and checkpoint at the same moment. Here there
never is a second connection: ``locking_mode=EXCLUSIVE`` makes SQLite itself refuse one, from this or any other process, so the
one connection alone writes and checkpoints. Every commit is fsynced (``synchronous=FULL``) before it is acknowledged.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import unquote

from sqlalchemy import StaticPool, create_engine
from sqlalchemy.dialects.sqlite import pysqlite

from wenfang.core.durable import crash_point, disk_error, fsync_folder
from wenfang.core.errors import Broken, Conflict, Invalid, WenfangError
from wenfang.core.home import Home

from ._sql import SqlTables
from ._statements import Statements

__all__ = ["SqliteTables"]

BUSY_TIMEOUT_S = 5.0
PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=1000",
    "mmap_size=0",
    "cell_size_check=ON",
    "trusted_schema=OFF",
    "temp_store=MEMORY",
)
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
UNWRITABLE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
OCCUPIED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class SqliteTables(SqlTables):
    """Tables in a file.

    Args:
        path: the database file; made if it is not there.

    Raises:
        Conflict: `store.in-use`.
        Broken: `store.damaged`, `store.write-failed`, `store.schema-newer`, `store.foreign-tables`, `home.write-failed`.

    Cost: a commit is one fsync; ``get`` about 15 µs.
    """

    form = "sqlite: or sqlite:///path"
    errors = (sqlite3.Error,)
    integrity = sqlite3.IntegrityError
    begin = ("BEGIN IMMEDIATE",)
    list_tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    sql: ClassVar[Statements] = Statements(pysqlite.dialect(paramstyle="named"), arrays=False)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                fsync_folder(path.parent)
        except OSError as e:
            raise disk_error(e, path) from e
        try:
            self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=512)
        except sqlite3.Error as e:
            raise self._told(e) from e
        try:
            with self._session() as cursor:
                for pragma in PRAGMAS:
                    cursor.execute(f"PRAGMA {pragma}")
                cursor.execute("BEGIN IMMEDIATE")  # takes the exclusive lock, recovers the log of a killed process
                cursor.execute("COMMIT")
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(cls, url: str, home: Home) -> Self:
        """Open ``sqlite:`` (studio.db of the home) or ``sqlite:///path``."""
        if url in {"sqlite:", "sqlite://"}:
            return cls(home.database)
        if not url.startswith("sqlite:///"):
            raise Invalid("store.bad-url", url=url, known=cls.form)
        return cls(Path(unquote(url.removeprefix("sqlite://"))))

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    @contextmanager
    def _cursor(self) -> Generator[sqlite3.Cursor]:
        with self._lock:
            if self._closed:
                raise Broken("store.closed", path=self.place)
            cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()  # a statement left open would keep the file held after close

    def _told(self, e: Exception) -> WenfangError:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        reason = str(e)
        if code in DAMAGED or reason.startswith("Could not decode to UTF-8"):  # a text column that holds no text any more
            return Broken("store.damaged", path=self.place, reason=reason)
        if code in OCCUPIED:
            return Conflict("store.in-use", path=self.place)
        if code in UNWRITABLE:
            return Broken("store.write-failed", path=self.place, reason=reason)
        return Broken("store.failed", path=self.place, reason=f"{type(e).__name__} {getattr(e, 'sqlite_errorname', '')}".strip())

    def _upgrade(self, cursor: Any) -> None:
        from ._migrate import upgrade

        raw = cursor.connection
        engine = create_engine("sqlite+pysqlite://", creator=lambda: raw, poolclass=StaticPool, hide_parameters=True)
        connection = engine.connect()  # its first connection ends the transaction that was open
        if not raw.in_transaction:
            cursor.execute("BEGIN IMMEDIATE")
        connection.begin()  # tells Alembic that the transaction is not its own to end
        upgrade(connection)
        crash_point("migrate")
        cursor.execute("COMMIT")  # before SQLAlchemy lets go of the connection, which rolls back
        connection.close()
        cursor.execute("BEGIN IMMEDIATE")

    def damage(self) -> list[str]:
        """What SQLite's own full check finds wrong; empty if nothing. Reads the whole file."""
        with self._session() as cursor:
            found = [row[0] for row in cursor.execute("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()
