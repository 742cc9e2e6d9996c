"""One SQLite file with one thread: what is asked of it at the same time shares a transaction, and is answered when that is on disk.

Rollback journal, not write-ahead log: several processes may hold the file, and no SQLite of any age damages it then. Knows nothing
of what is kept.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wenfang.core.errors import Broken

__all__ = ["Grouped"]

T = TypeVar("T")
TOGETHER = 2000
BUSY_S = 20.0


class _Asked:
    __slots__ = ("answer", "loop", "work", "writes")

    def __init__(self, work: Callable[[sqlite3.Connection], Any], *, writes: bool) -> None:
        self.work, self.writes = work, writes
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self.loop.create_future()

    def give(self, value: Any = None, error: Exception | None = None) -> None:
        def settle() -> None:
            if not self.answer.done():  # nobody waits any more
                self.answer.set_exception(error) if error is not None else self.answer.set_result(value)

        try:
            self.loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop that asked has ended: nobody waits
            return


class Grouped:
    """The file, made if it is not there.

    Args:
        path: of the database.
        schema: statements that may be run again.

    Raises:
        Broken: `bus.file-failed`.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=PERSIST")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(schema)
        except (OSError, sqlite3.Error) as e:
            raise self._broken(e) from e
        self._thread = threading.Thread(target=self._run, name=f"grouped-{path.name}", daemon=True)
        self._thread.start()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction; returns when it is durable.

        Raises:
            Broken: `bus.file-failed`: nothing of it was written.
        """
        return await self._ask(work, writes=True)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, which changes nothing.

        Raises:
            Broken: `bus.file-failed`.
        """
        return await self._ask(work, writes=False)

    async def _ask(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        asked = _Asked(work, writes=writes)
        self._asked.put(asked)
        return await asked.answer

    def close(self) -> None:
        """Finish what was asked and let go of the file."""
        self._asked.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch: list[_Asked] = []
            asked = self._asked.get()
            while True:
                if asked is None:
                    open_ = False
                    break
                batch.append(asked)
                if len(batch) >= TOGETHER or self._asked.empty():
                    break
                asked = self._asked.get()
            self._together([a for a in batch if a.writes])
            for one in batch:
                if not one.writes:
                    self._alone(one)

    def _together(self, batch: list[_Asked]) -> None:
        """One transaction for all of them; if it fails, each has its own."""
        if len(batch) < 2:
            for one in batch:
                self._alone(one)
            return
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            answers = [one.work(connection) for one in batch]
            connection.execute("COMMIT")
        except Exception:  # whatever it was, it comes again below and is told to the one whose it is
            self._roll_back()
            for one in batch:
                self._alone(one)
            return
        for one, answer in zip(batch, answers, strict=True):
            one.give(answer)

    def _alone(self, one: _Asked) -> None:
        connection = self._connection
        try:
            if not one.writes:
                answer = one.work(connection)
            else:
                connection.execute("BEGIN IMMEDIATE")
                answer = one.work(connection)
                connection.execute("COMMIT")
        except Exception as e:  # told to whoever asked
            self._roll_back()
            one.give(error=self._broken(e) if isinstance(e, (OSError, sqlite3.Error)) else e)
            return
        one.give(answer)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _broken(self, e: Exception) -> Broken:
        return Broken("bus.file-failed", path=str(self.path), reason=(e.strerror if isinstance(e, OSError) else None) or str(e))
