"""What was answered to which message, kept as long as there is room: a message that comes again gets the reply it had. Knows nothing of brokers."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ._grouped import Grouped

__all__ = ["Replied", "Replies"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS kept (one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER NOT NULL, size_bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO kept SELECT 1, count(*), coalesce(sum(length(body)), 0) FROM replies;
"""
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Replied:
    """One reply."""

    digest: bytes
    """Of the question: the same id with another question is another message."""
    body: bytes


class Replies:
    """The newest replies in one file, durable when ``keep`` returns.

    Args:
        path: of the file.
        n_max: replies kept.
        max_bytes: of their bodies together.

    Raises:
        Broken: `bus.file-failed`.
    """

    def __init__(self, path: Path, *, n_max: int, max_bytes: int) -> None:
        self._n_max, self._max_bytes = n_max, max_bytes
        self._file = Grouped(path, SCHEMA)

    async def find(self, id: str) -> Replied | None:
        """The reply to message ``id``, if it is still known."""
        row = await self._file.read(lambda c: c.execute("SELECT digest, body FROM replies WHERE id = ?", (id,)).fetchone())
        return None if row is None else Replied(row[0], row[1])

    async def keep(self, id: str, reply: Replied) -> Replied:
        """Keep a reply; returns the one that stands, which is the first."""
        return await self._file.write(lambda c: self._kept(c, id, reply))

    def _kept(self, connection: sqlite3.Connection, id: str, reply: Replied) -> Replied:
        if not connection.execute("INSERT OR IGNORE INTO replies (id, digest, body) VALUES (?, ?, ?)", (id, reply.digest, reply.body)).rowcount:
            return Replied(*connection.execute("SELECT digest, body FROM replies WHERE id = ?", (id,)).fetchone())
        connection.execute("UPDATE kept SET n = n + 1, size_bytes = size_bytes + ?", (len(reply.body),))
        n, size = connection.execute("SELECT n, size_bytes FROM kept").fetchone()
        while n > 1 and (n > self._n_max or size > self._max_bytes):
            oldest = connection.execute("SELECT seq, length(body) FROM replies ORDER BY seq LIMIT ?", (min(AT_ONCE, n - 1, max(1, n - self._n_max)),)).fetchall()
            connection.execute("DELETE FROM replies WHERE seq <= ?", (oldest[-1][0],))
            n, size = n - len(oldest), size - sum(length for _, length in oldest)
            connection.execute("UPDATE kept SET n = ?, size_bytes = ?", (n, size))
        return reply

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
