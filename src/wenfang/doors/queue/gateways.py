"""The gateways as a queue worker asks them: framed calls over their sockets, as many at once as there are messages. A gateway that goes away is left for the next."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

from wenfang.core.errors import WenfangError
from wenfang.core.frames import pack, raise_error, read_frame

__all__ = ["Away", "Gateways"]

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Away(Exception):
    """No gateway answers just now."""


class Gateways:
    """Idle connections to whatever gateways run.

    Args:
        run: the folder of the sockets.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._idle: deque[Line] = deque()
        self._next = 0

    async def ask(self, **message: Any) -> dict[str, Any]:
        """One call; its answer.

        Raises:
            Away: nobody answered; whether the question was heard is not known.
            WenfangError: what the gateway refused with.
        """
        line = self._idle.pop() if self._idle else await self._open()
        try:
            line[1].write(pack({"call": "ask", **message}))
            await line[1].drain()
            answer = await read_frame(line[0])
        except (OSError, asyncio.IncompleteReadError) as e:
            line[1].close()
            self.close()  # the other idle lines may lead to the same gateway; new ones are cheap
            raise Away from e
        except BaseException:  # given up in the middle: what comes on this line belongs to nobody
            line[1].close()
            raise
        self._idle.append(line)
        if "error" in answer:
            try:
                raise_error(answer["error"])
            except WenfangError as e:
                if e.code == "gateway.draining":
                    raise Away from e
                raise
        return answer["answer"]

    async def _open(self) -> Line:
        paths = sorted(self._run.glob("gateway-*.sock"))
        for _ in paths:
            self._next += 1
            try:
                return await asyncio.open_unix_connection(str(paths[self._next % len(paths)]))
            except OSError:
                continue  # it is being started; perhaps another is there
        raise Away

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop()[1].close()
