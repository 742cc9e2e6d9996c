"""Many texts asked of one model version, answered in their order: through its replicas beside everybody else's requests, or of a model in this process.

Bounded: a replica has one batch of ours at a time, as it has of every caller, and answers callers in turn; a few batches wait here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from wenfang.core.conversation import Generation
from wenfang.core.errors import Busy, WenfangError
from wenfang.core.examples import Output
from wenfang.core.text import encodable
from wenfang.data.asked import Row

from .batching import Ticket
from .pool import Limits, Pool

__all__ = ["WRITING", "Outcome", "ask_model", "ask_replicas"]

WRITING = frozenset({"generation", "chat"})
BATCHES_AHEAD = 4
"""Of each replica, with it or waiting for it."""
WRITTEN_AT_ONCE = 8
"""Texts of ours that a replica writes beside those of others."""
ANSWERED_AHEAD = 4096
"""Rows that may wait for an earlier one to be answered."""
AT_ONCE = 64
"""Texts in one batch of a model in this process."""
PATIENCE_S = 120.0
"""How long one text may find every replica busy or gone."""
LOOK_S = 0.5
Outcome = Output | str
"""An answer, or the code of why there is none."""
Take = Callable[[Row, Outcome], None]
log = logging.getLogger("wenfang.asking")


class _Slot:
    """A row that is out."""

    __slots__ = ("outcome", "row", "since")

    def __init__(self, row: Row, outcome: Outcome | None, since: float) -> None:
        self.row, self.outcome, self.since = row, outcome, since


class _Asking:
    def __init__(self, pool: Pool, take: Take, *, top_k: int, options: Generation | None, patience_s: float, still: Callable[[], None]) -> None:
        self.pool, self.take, self.top_k, self.options, self.patience_s, self.still = pool, take, top_k, options, patience_s, still
        self.out = 0
        self.changed = asyncio.Event()
        self.fault: WenfangError | None = None

    def room(self) -> int:
        """Texts that may be out at once."""
        state = self.pool.state()
        return max(1, state["ready"]) * (WRITTEN_AT_ONCE if self.options is not None else BATCHES_AHEAD * max(1, state["batch_max"]))

    async def run(self, rows: Iterator[Row]) -> None:
        slots: deque[_Slot] = deque()
        more, looked = True, self.pool.loop.time()
        while more or slots:
            room = self.room()
            while more and self.out < room and len(slots) < ANSWERED_AHEAD:
                row = next(rows, None)
                if row is None:
                    more = False
                    break
                slots.append(slot := _Slot(row, row.error or None, self.pool.loop.time()))
                if slot.outcome is None:
                    self.out += 1
                    self.send(slot)
            while slots and slots[0].outcome is not None:
                done = slots.popleft()
                self.take(done.row, done.outcome)  # pyright: ignore[reportArgumentType] not None
            if not slots:
                continue
            try:
                await asyncio.wait_for(self.changed.wait(), LOOK_S)
            except TimeoutError:
                log.debug("%d texts are out", self.out)
            self.changed.clear()
            if self.fault is not None:
                if (now := self.pool.loop.time()) - slots[0].since > self.patience_s:
                    raise self.fault
                if now - looked > LOOK_S:
                    looked, self.fault = now, None
                    await asyncio.to_thread(self.still)

    def send(self, slot: _Slot) -> None:
        """Ask about one row; when the replicas are busy or gone, later again."""
        text_b = [encodable(slot.row.text_b)] if slot.row.text_b else []

        def done(ticket: Ticket) -> None:
            self._answered(slot, ticket.outputs[0], ticket.error)

        try:
            self.pool.submit([encodable(slot.row.text)], self.top_k, done, texts_b=text_b, options=self.options)
        except Busy as e:
            self._answered(slot, None, e)

    def _answered(self, slot: _Slot, output: Output | None, error: Exception | None) -> None:
        if isinstance(error, Busy):
            self.fault = error
            self.pool.loop.call_later(min(1.0, error.fields.get("retry_after_s", 1.0)), self.send, slot)
        else:
            self.out -= 1
            slot.outcome = output if output is not None else getattr(error, "code", type(error).__name__)
        self.changed.set()


def ask_replicas(
    model: str, version: str, sockets: Sequence[str], rows: Iterator[Row], take: Take, *, limits: Limits, top_k: int = 1, options: Generation | None = None,
    ready_s: float = 20.0, patience_s: float = PATIENCE_S, still: Callable[[], None] = lambda: None,
) -> bool:  # fmt: skip
    """Ask about ``rows`` through the replicas of a model version; False when none of them answered within ``ready_s`` and nothing was asked.

    Args:
        model: id of the model version.
        version: ``name:number``, for people.
        sockets: of its replicas.
        rows: read as far as there is room.
        take: told each row with its outcome, in order; what it raises ends the asking.
        limits: deadline and queue of each text, as in a gateway.
        top_k: labels in ``Output.scores``.
        options: given exactly when the model version generates.
        ready_s: wait for the first replica.
        patience_s: a text that finds all replicas busy for so long ends the asking.
        still: called now and then while the replicas are busy; raises when waiting has become useless.

    Raises:
        Busy: `serve.deadline-passed`, `serve.queue-full`: out of patience.
    """

    async def ask() -> bool:
        pool = Pool(model, version, sockets, limits)
        try:
            if not await pool.until_ready(ready_s):
                return False
            await _Asking(pool, take, top_k=top_k, options=options, patience_s=patience_s, still=still).run(rows)
            return True
        finally:
            pool.close()

    return asyncio.run(ask())


def ask_model(model: Any, rows: Iterator[Row], take: Take, *, top_k: int = 1, options: Generation | None = None) -> None:
    """Ask a model that is loaded in this process; a text that makes a batch fail is found by asking one by one.

    Args:
        model: a predictor, as replicas have one.
        rows: read batch by batch.
        take: told each row with its outcome, in order.
        top_k: labels in ``Output.scores``.
        options: given exactly when the model generates.
    """
    while batch := list(islice(rows, AT_ONCE if options is None else WRITTEN_AT_ONCE)):
        good = [row for row in batch if not row.error]
        outcomes = iter(_outcomes(model, good, top_k, options))
        for row in batch:
            take(row, row.error or next(outcomes))


def _outcomes(model: Any, rows: Sequence[Row], top_k: int, options: Generation | None) -> list[Outcome]:
    if not rows:
        return []
    try:
        texts, texts_b = [encodable(r.text) for r in rows], [encodable(r.text_b) for r in rows]
        if options is not None:
            return list(model.generate(texts, [options] * len(rows)))
        return list(model.match(texts, texts_b, top_k=top_k) if texts_b[0] else model.predict(texts, top_k=top_k))
    except Exception as e:  # whatever a model raises: only the text that it fails on is lost
        if len(rows) > 1:
            return [outcome for row in rows for outcome in _outcomes(model, [row], top_k, options)]
        return [e.code if isinstance(e, WenfangError) else "serve.model-failed"]
