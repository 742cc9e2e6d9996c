"""The batch that a replica works on now, while it works: its pieces go out, its caller may leave, others are heard. Knows nothing of models."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from wenfang.core.frames import pack
from wenfang.core.ports import Cancelled

from .alarm import Alarm
from .joining import SIGN_OF_LIFE_S
from .wire import Ask, Piece

__all__ = ["Batch"]

LOOK_AROUND_S = 0.05
log = logging.getLogger("wenfang.replica")


class Worker(Protocol):
    """Whoever works on it."""

    alarm: Alarm

    def look_around(self, batch: Any, /) -> None:
        """Hear others in the middle of it."""
        ...


class Batch:
    """The batch at hand: whose it is, what its caller has heard of it, and whether anybody still waits."""

    def __init__(self, server: Worker, sock: socket.socket, ask: Ask) -> None:
        self.sock = sock
        self.ask = ask
        self.cancelled = False
        self.written: set[int] = set()
        """Texts of which pieces are out: they cannot be tried again."""
        self.told = [0] * len(ask.texts)
        """Pieces of each text, whoever heard them."""
        self._server = server
        self._streamed = frozenset(ask.stream)
        self._said_at = self._looked_at = self._wound_at = time.perf_counter()

    def emitter(self, first: int = 0) -> Callable[[int, str], None]:
        """What a model tells its pieces to; ``first``: number of its text 0."""

        def emit(index: int, text: str) -> None:
            now, index = time.perf_counter(), first + index
            if now - self._wound_at > LOOK_AROUND_S:
                self._wound_at = now
                self._server.alarm.wind()
            if text:
                self.told[index] += 1
            wanted = text and index in self._streamed
            if wanted or now - self._said_at > SIGN_OF_LIFE_S:
                self._said_at = now
                self.say(Piece(self.ask.id, index, text if wanted else ""))
            if wanted:
                self.written.add(index)
            if now - self._looked_at > LOOK_AROUND_S:
                self._looked_at = now
                self._server.look_around(self)
            if self.cancelled:
                raise Cancelled

        return emit

    def say(self, piece: Piece) -> None:
        """Send a frame; a caller that has gone wants nothing any more."""
        try:
            self.sock.sendall(pack(piece))
        except OSError as e:
            log.info("a caller left while a text was being written: %s", e)
            self.cancelled = True
