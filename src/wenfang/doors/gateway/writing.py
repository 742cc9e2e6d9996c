"""Texts while they are being written: what a replica says piece by piece, as an asynchronous stream. Knows nothing of protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from wenfang.core.conversation import Generation
from wenfang.core.examples import Output
from wenfang.serve.batching import Ticket
from wenfang.serve.pool import Pool
from wenfang.serve.tracing import Traced
from wenfang.serve.turns import RANKS

__all__ = ["Writing"]


class Writing:
    """One request for B texts; must be made on a running loop, and closed when nobody listens any more.

    Args:
        pool: who writes.
        texts: B strings.
        options: of all of them.
        spent: told once how many tokens it took; what nobody heard to its end counts by its pieces.
        owner: who asks.
        rank: class of priority.
        deadline_s: how long its caller will wait for the whole, if not for ever.
        traced: wants to know what became of it.

    Raises:
        Busy: `serve.queue-full`, `serve.pool-closed`.
    """

    def __init__(
        self,
        pool: Pool,
        texts: Sequence[str],
        options: Generation,
        spent: Callable[[int], None] = lambda _: None,
        *,
        owner: str = "",
        rank: int = RANKS["online"],
        deadline_s: float | None = None,
        traced: Traced | None = None,
    ) -> None:
        self._spent = spent
        self._heard_n = 0
        self._pieces: list[list[str]] = [[] for _ in texts]
        self._told = [0] * len(texts)
        """Characters handed out."""
        self._event = asyncio.Event()
        self._over = False
        self._pool = pool
        self._ticket = pool.submit(texts, 1, self._done, options=options, on_piece=self._heard, owner=owner, rank=rank, deadline_s=deadline_s)
        self._ticket.traced = traced

    def _heard(self, index: int, text: str) -> None:
        self._heard_n += 1
        self._pieces[index].append(text)
        self._event.set()

    def _done(self, ticket: Ticket) -> None:
        self._over = True
        self._pool.figures.ended(ticket, self._pool.loop.time())
        self._spent(sum([(o.tokens_in or 0) + (o.tokens_out or 0) for o in ticket.outputs if o is not None]) if ticket.error is None else self._heard_n)
        self._event.set()

    @property
    def outputs(self) -> list[Output]:
        """The whole answers, once the pieces have ended."""
        return self._ticket.outputs

    async def begun(self) -> None:
        """Wait for the first piece or the end; raises the error of a request that failed before anything was written."""
        try:
            await self._event.wait()
        except asyncio.CancelledError:
            self.close()
            raise
        if self._ticket.error is not None and not any(self._pieces):
            raise self._ticket.error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[tuple[int, str]]:
        """(index of the text, piece) of what came since the last call, one piece a text at most. Together they are the texts.

        Raises:
            WenfangError: what ended the request after it had begun.
        """
        while True:
            if not self._over:
                await self._event.wait()
                self._event.clear()
            if heard := [(index, "".join(pieces)) for index, pieces in enumerate(self._pieces) if pieces]:
                break
            if self._over:
                heard = self._rest()
                break
        for index, text in heard:
            self._pieces[index].clear()
            self._told[index] += len(text)
        return heard

    def _rest(self) -> list[tuple[int, str]]:
        """What a family kept for itself until its texts were whole."""
        if self._ticket.error is not None:
            raise self._ticket.error
        rest = [(index, text) for index, output in enumerate(self.outputs) if (text := (output.text or "")[self._told[index] :])]
        if not rest:
            raise StopAsyncIteration
        return rest

    def close(self) -> None:
        """Nobody listens any more: what is not written need not be."""
        if not self._over:
            self._over = True
            self._spent(self._heard_n)
        self._ticket.cancel()
