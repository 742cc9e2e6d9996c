"""The embedded bus: durable queues in one SQLite file, for processes of one machine. No server, no network."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from wenfang.core.home import Home
from wenfang.core.messages import Delivery, Message, checked_headers, checked_queue
from wenfang.stores._grouped import Grouped

from .base import BaseInbox, BusStore

__all__ = ["LocalBus"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, body BLOB NOT NULL, headers TEXT NOT NULL,
  until REAL NOT NULL DEFAULT 0, holder TEXT NOT NULL DEFAULT '', times INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS ix_messages_queue ON messages (queue, seq);
"""
# leases are wall-clock times: a process that reads them after a restart of the machine could make nothing of a monotonic clock
FREE = "SELECT seq, body, headers, times FROM messages WHERE queue = ? AND until <= ? ORDER BY seq LIMIT ?"
LOOK_S = (0.005, 0.05)
"""How often an empty queue is looked at: at first, at last."""


def _marks(deliveries: list[Delivery]) -> list[Any]:
    return [d.tag for d in deliveries]


class _Inbox(BaseInbox):
    def __init__(self, file: Grouped, queue: str, name: str, prefetch: int, lease_s: float) -> None:
        super().__init__(prefetch)
        self._file, self._queue, self._name, self._lease_s = file, queue, name, lease_s

    async def release(self) -> None:
        """Have again what an earlier life of this name had taken."""
        await self._file.write(lambda c: c.execute("UPDATE messages SET until = 0, holder = '' WHERE queue = ? AND holder = ?", (self._queue, self._name)).rowcount)

    async def _take(self, limit: int, wait_s: float) -> list[Delivery]:
        end, pause = time.monotonic() + wait_s, LOOK_S[0]
        while True:
            if await self._file.read(lambda c: c.execute(FREE, (self._queue, time.time(), 1)).fetchone()):
                if taken := await self._file.write(lambda c: self._leased(c, limit)):
                    return taken
            elif time.monotonic() >= end:
                return []
            await asyncio.sleep(pause)
            pause = min(pause * 2, LOOK_S[1])

    def _leased(self, connection: sqlite3.Connection, limit: int) -> list[Delivery]:
        rows = connection.execute(FREE, (self._queue, time.time(), limit)).fetchall()
        until = time.time() + self._lease_s
        connection.executemany("UPDATE messages SET until = ?, holder = ?, times = times + 1 WHERE seq = ?", [(until, self._name, row[0]) for row in rows])
        return [Delivery(Message(body, json.loads(headers)), times + 1, seq) for seq, body, headers, times in rows]

    async def _done(self, deliveries: list[Delivery]) -> None:
        given = [(seq, self._name) for seq in _marks(deliveries)]
        await self._file.write(lambda c: c.executemany("DELETE FROM messages WHERE seq = ? AND holder = ?", given).rowcount)

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        given = [(seq, self._name) for seq in _marks(deliveries)]
        await self._file.write(lambda c: c.executemany("UPDATE messages SET until = 0, holder = '' WHERE seq = ? AND holder = ?", given).rowcount)

    async def _keep(self, deliveries: list[Delivery]) -> None:
        given = [(time.time() + self._lease_s, seq, self._name) for seq in _marks(deliveries)]
        await self._file.write(lambda c: c.executemany("UPDATE messages SET until = ? WHERE seq = ? AND holder = ?", given).rowcount)


class LocalBus(BusStore):
    """Queues in ``bus.db`` of the home, or in the file that the URL names."""

    form = "local: or local:///path"

    def __init__(self, file: Grouped) -> None:
        self._file = file

    @classmethod
    async def connect(cls, url: str, home: Home) -> Self:
        """Open the file."""
        path = unquote(urlsplit(url).path)
        return cls(await asyncio.to_thread(Grouped, Path(path) if path else home.root / "bus.db", SCHEMA))

    async def declare(self, queue: str) -> None:
        """A queue is there as soon as it is named."""
        checked_queue(queue)

    async def send(self, queue: str, message: Message) -> None:
        """Put a message in; it is on disk when this returns."""
        checked_queue(queue)
        checked_headers(message)
        row = (queue, message.body, json.dumps(dict(message.headers)))
        await self._file.write(lambda c: c.execute("INSERT INTO messages (queue, body, headers) VALUES (?, ?, ?)", row).rowcount)

    async def open_inbox(self, queue: str, *, name: str, prefetch: int, lease_s: float) -> BaseInbox:
        """Take from a queue."""
        inbox = _Inbox(self._file, checked_queue(queue), name, prefetch, lease_s)
        await inbox.release()
        return inbox

    async def depth(self, queue: str) -> int:
        """Messages that are not done."""
        checked_queue(queue)
        return await self._file.read(lambda c: c.execute("SELECT count(*) FROM messages WHERE queue = ?", (queue,)).fetchone()[0])

    async def drop(self, queue: str) -> None:
        """Away with what is in it."""
        checked_queue(queue)
        await self._file.write(lambda c: c.execute("DELETE FROM messages WHERE queue = ?", (queue,)).rowcount)

    async def close(self) -> None:
        """Let go of the file."""
        await asyncio.to_thread(self._file.close)
