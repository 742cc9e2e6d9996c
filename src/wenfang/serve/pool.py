"""The replicas of one model version as their callers see them: connections, a bounded queue, batches, retries, deadlines.

Lives on one asyncio loop. Knows nothing of HTTP, services, or how replicas are started.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import BY_STATUS, Broken, Busy, Invalid

from .admission import Admission
from .arrivals import Arrivals
from .batching import Item, Ticket, choose, still_wanted
from .cache import AnswerCache
from .costs import CostCurve
from .figures import PoolFigures
from .limits import Limits, hang_s
from .link import Link
from .quarantine import Quarantine, digest_of
from .sharing import Sharing
from .turns import RANKS
from .wire import Answer, Hello, Leaving, Piece

__all__ = ["Limits", "Pool", "hang_s"]

SWEEP_S = 0.1
log = logging.getLogger("wenfang.pool")


class Pool:
    """Must be made and used on a running loop.

    Args:
        model: id of the model version.
        version: ``name:number``, for people.
        sockets: paths of its replicas' sockets; they may not exist yet.
        limits: queue, batch and deadline.
        cache: of answers, shared with other pools; None: every text is asked.
    """

    on_quarantine: Callable[[Pool, str], None] | None = None
    """Told the digest of a text that was quarantined."""

    def __init__(self, model: str, version: str, sockets: Sequence[str], limits: Limits, cache: AnswerCache | None = None) -> None:
        self.model = model
        self.version = version
        self.limits = limits
        self.figures = PoolFigures()
        self.arrivals = Arrivals()
        self.sharing = Sharing(cache, model) if cache is not None else None
        self._steady = False
        self.loop = asyncio.get_running_loop()
        self.hello_decoder = msgspec.msgpack.Decoder(Hello)
        self.answer_decoder = msgspec.msgpack.Decoder(Answer | Piece | Leaving)
        self.waiting: list[Item] = []
        self._free: list[Link] = []
        self._tickets: list[tuple[float, int, Ticket]] = []
        """A heap by deadline."""
        self._numbers = itertools.count()
        self._writing: list[Ticket] = []
        """Of generation: their deadlines move."""
        self._dispatching = False
        self._closing = self._closed = False
        self._some_ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._door = Admission(version, (limits.batch_max, limits.queue_max, limits.wait_s), self.figures, self._curves, self.loop.time())
        self.quarantine = Quarantine(limits.quarantine_s)
        self._replicas: dict[str, Link] = {}
        self._leaving: set[Link] = set()
        """Not of the routing table any more, and not done yet."""
        self.stranded: asyncio.Event | None = None
        """Set when a text comes and there is no replica, nor shall be one by the table."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sweeper = self.loop.create_task(self._sweep())
        self.set_sockets(sockets)

    # ------------------------------------------------------------ replicas
    def set_sockets(self, sockets: Sequence[str]) -> None:
        """Have exactly these replicas; those that leave get nothing new and finish what is with them."""
        for path in set(self._replicas) - set(sockets):
            leaving = self._replicas.pop(path)
            if leaving in self._free:
                self._free.remove(leaving)
            self._tasks.pop(path).cancel()
            leaving.closed = True
            if leaving.sent:
                self._leaving.add(leaving)
            else:
                leaving.close()
        for path in sockets:
            if path not in self._replicas:
                replica = self._replicas[path] = Link(self, path)
                self._tasks[path] = self.loop.create_task(replica.stay_connected())

    def expect_more(self, grows: bool) -> None:
        """Whether more replicas may come: then a queue may stand until they are there."""
        self._door.expect_more(grows, self.loop.time())

    def _links(self) -> list[Link]:
        return [*self._replicas.values(), *self._leaving]

    def _curves(self) -> list[CostCurve]:
        return [r.curve for r in self._replicas.values() if r.hello is not None]

    @property
    def ready(self) -> int:
        """Replicas that said hello."""
        return sum(r.hello is not None for r in self._replicas.values())

    @property
    def answers(self) -> bool:
        """Whether a replica is ready, or none is meant to be before somebody asks."""
        return not self._replicas or self.ready > 0

    @property
    def in_flight(self) -> int:
        """Texts that are with replicas."""
        return sum(r.in_flight for r in self._links())

    def working_s(self, now: float) -> float:
        """Of what replicas have now: how long they have had work, together."""
        return sum(now - r.busy_since for r in self._links() if r.sent)

    async def until_ready(self, timeout_s: float) -> bool:
        """Wait until at least one replica is ready; whether one is, or none is meant to be."""
        if not self._replicas:
            return True
        try:
            await asyncio.wait_for(self._some_ready.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def replica_ready(self, replica: Link) -> None:
        """It said hello."""
        self._some_ready.set()
        self._steady = replica.hello is not None and replica.hello.steady
        self._free.append(replica)
        self._dispatch_soon()

    def replica_leaving(self, replica: Link) -> None:
        """It has a successor: nothing new for it."""
        self.figures.recycled += 1
        if replica in self._free:
            self._free.remove(replica)
        if not replica.sent:
            replica.hang_up()

    def replica_lost(self, replica: Link, batch: list[Item]) -> None:
        """Its connection broke while ``batch`` was with it: each text gets one more chance."""
        self._leaving.discard(replica)
        if replica in self._free:
            self._free.remove(replica)
        if not self.ready:
            self._some_ready.clear()
        again: list[Item] = []
        for item in batch:
            item.attempts += 1
            if not replica.closed:  # one that was told to go may be killed for being slow about it
                self._blame(item, alone=len(batch) == 1)
            if item.attempts > 1 or item.ticket.written:
                self._fail(item, Broken("serve.replica-died", model=self.version))
            else:
                again.append(item)
        if self._closed:
            for item in again:
                self._fail(item, self._closed_error())
            return
        again = still_wanted(again)
        self.figures.retried += len(again)
        for item in again:
            item.turn = (-1, 0.0)
        self.waiting[:0] = again
        self._dispatch_soon()

    def _blame(self, item: Item, *, alone: bool) -> None:
        """It was with a replica that died: the first time it is suspect, then, alone and suspect, guilty."""
        digest = digest_of(item.text, item.text_b, item.ticket.options)
        if not alone or not self.quarantine.suspects(digest):
            self.quarantine.suspect(digest)
        elif self.quarantine.add(digest):
            self.figures.quarantined += 1
            log.error("a text that killed replicas of %s is quarantined for %.0f s: %s", self.version, self.limits.quarantine_s, digest)
            if self.on_quarantine is not None:
                self.on_quarantine(self, digest)

    def batch_answered(self, replica: Link, batch: list[Item], answer: Answer) -> None:
        """Hand the answers out; the replica is free again."""
        if replica.closed and not replica.sent:
            self._leaving.discard(replica)
            replica.close()
        elif replica.leaving and not replica.sent:
            replica.hang_up()
        elif not replica.closed and replica.room and replica not in self._free:
            self._free.append(replica)
        if self.waiting:
            self._dispatch()  # before the answers are written: the replica must not wait for us
        self.figures.answered(len(batch), answer.ms)
        for i, (item, output) in enumerate(zip(batch, answer.outputs, strict=True)):
            if item.attempts:
                self.quarantine.clear(digest_of(item.text, item.text_b, item.ticket.options))
            if item.ticket.left_behind is not None and item.ticket.over:
                item.ticket.left_behind(sum(answer.told[i : i + 1]) if output is None else (output.tokens_in or 0) + (output.tokens_out or 0))
            if output is not None:
                item.answer(output)
                if self.sharing is not None:
                    self.sharing.over(item, output)
            else:
                error = answer.errors.get(i, {"status": 500, "code": "serve.model-failed", "fields": {"model": self.version, "kind": "?"}})
                self._fail(item, BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"]))
        if self._closing and self.idle:
            self._idle.set()

    def _fail(self, item: Item, error: Exception) -> None:
        item.fail(error)
        if self.sharing is not None:
            self.sharing.over(item)

    def piece_arrived(self, batch: list[Item], piece: Piece, now: float) -> None:
        """Hand a piece out. It is a sign of life for the whole batch."""
        deadline = now + self.limits.deadline_s
        for item in batch:
            item.ticket.lives(deadline)
        item = batch[piece.index]
        item.ticket.piece(item.index, piece.text)

    # ------------------------------------------------------------ requests
    def submit(
        self,
        texts: Sequence[str],
        top_k: int,
        done: Callable[[Ticket], None],
        *,
        texts_b: Sequence[str] = (),
        options: Generation | None = None,
        on_piece: Callable[[int, str], None] | None = None,
        deadline_s: float | None = None,
        fresh: bool = False,
        owner: str = "",
        rank: int = RANKS["online"],
    ) -> Ticket:
        """Queue a request; ``done`` is called once, at once if everything is known, else later, with its answers or its error. A batch is of texts or of pairs, of generation or not.

        Args:
            texts: B strings.
            top_k: labels in ``Output.scores``.
            done: told once.
            texts_b: B strings, when it is about pairs.
            options: given exactly when the model version generates; the deadline of such a request counts from its last sign of life.
            on_piece: told (index of the text, piece) while it is being written.
            deadline_s: less than the pool's own, when the caller waits no longer.
            fresh: ask the model even where the answer is known.
            owner: who asks; askers of one class take turns.
            rank: class of priority, see ``turns.RANKS``.

        Raises:
            Busy: `serve.queue-full`, `serve.overloaded`, with ``retry_after_s`` from the measured rate; `serve.pool-closed`.
            Invalid: `serve.text-quarantined`.
        """
        if self._closing:
            raise self._closed_error()
        suspects = self._suspects(texts, texts_b, options) if self.quarantine else ()
        waiting = self.waiting
        sharing = self.sharing if self._steady and options is None and not fresh else None
        known = sharing.known(texts, texts_b, top_k) if sharing is not None else []
        n = sum([found is None for _, found in known]) if sharing is not None else len(texts)
        now = self.loop.time()
        if not waiting:
            self._door.pressure.empty(now)
        if n:
            self.figures.asked += n
            self._door.let_in(waiting, n, (owner, rank), now)
        wait_s = self.limits.deadline_s if deadline_s is None else min(deadline_s, self.limits.deadline_s)
        ticket = Ticket(len(texts), top_k, now, now + wait_s, done)
        ticket.pairs = bool(texts_b)
        if sharing is not None:
            items = sharing.items(ticket, known)
            if ticket.over:
                return ticket
        elif texts_b:
            items = [Item(text, index, ticket, text_b) for index, (text, text_b) in enumerate(zip(texts, texts_b, strict=True))]
        else:
            items = [Item(text, index, ticket) for index, text in enumerate(texts)]
        if suspects:
            for item in items:
                item.attempts = int(item.index in suspects)
        self.arrivals.came(items)
        self._door.turns.line_up(waiting, items, owner, rank)
        if options is not None:
            ticket.options, ticket.on_piece, ticket.ends_at = options, on_piece, now + (math.inf if deadline_s is None else deadline_s)
            self._writing.append(ticket)
        else:
            heapq.heappush(self._tickets, (ticket.deadline, next(self._numbers), ticket))
        if self._free:
            self._dispatch_soon()
        elif not self._replicas and self.stranded is not None:
            self.stranded.set()
        return ticket

    def _suspects(self, texts: Sequence[str], texts_b: Sequence[str], options: Generation | None) -> list[int]:
        try:
            return self.quarantine.check(self.version, texts, texts_b, options)
        except Invalid:
            self.figures.turned_away += 1
            raise

    def retry_after_s(self) -> float:
        """When the present queue will be done."""
        return self._door.retry_after_s(self.waiting)

    def _dispatch_soon(self) -> None:
        """Once in this turn of the loop: requests that arrived together can share a batch without anybody waiting."""
        if not self._dispatching:
            self._dispatching = True
            self.loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        free, waiting = self._free, self.waiting
        while free and waiting:
            replica = min(free, key=lambda r: r.in_flight)  # among equals who has been free longest
            transport = replica.transport
            if transport is None or transport.is_closing():  # it has just died; ``connection_lost`` is on its way
                free.remove(replica)
                continue
            if waiting[0].ticket.over:
                waiting[:] = still_wanted(waiting)
                continue
            if waiting[0].attempts and replica.sent:
                return  # it goes alone, as soon as one has nothing else
            # a lone big request is shared out
            batch = choose(waiting, replica.curve, 1 if replica.joins else -(-len(waiting) // len(free)))
            if not batch:
                break
            self._door.turns.served(batch)
            free.remove(replica)
            replica.send(batch)
            if replica.room:
                free.append(replica)
        if not waiting:
            self._door.pressure.empty(self.loop.time())

    async def _sweep(self) -> None:
        """Ends what is late, gives up replicas that hang, measures the rate."""
        hanging_s = hang_s(self.limits.deadline_s)
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            self.arrivals.tick()
            tickets = self._tickets
            while tickets and (tickets[0][2].over or tickets[0][0] <= now):
                self._too_late(heapq.heappop(tickets)[2])
            if self._writing:
                for ticket in self._writing:
                    if ticket.deadline <= now:
                        self._too_late(ticket)
                self._writing = [ticket for ticket in self._writing if not ticket.over]
            for replica in self._links():
                self.figures.cancelled += replica.cancel_unwanted()
                patience_s = hanging_s if replica.hello is None else max(hanging_s, replica.hello.silent_s)
                if (replica.sent or (replica.transport is not None and replica.hello is None)) and now - replica.sent_at > patience_s:
                    replica.abort(f"no answer for {patience_s:.1f} s")
            self._door.pressure.tick(now, self.figures.texts, waiting=len(self.waiting), ready=self.ready)
            if self._closing and self.idle:
                self._idle.set()

    def _too_late(self, ticket: Ticket) -> None:
        if not ticket.over:
            self.figures.late += 1
            wait_s = round(min(self.limits.deadline_s if ticket.options is not None else ticket.deadline - ticket.started, ticket.ends_at - ticket.started), 3)
            ticket.fail(Busy("serve.deadline-passed", model=self.version, deadline_s=wait_s, retry_after_s=self.retry_after_s()))

    # ------------------------------------------------------------ the end
    @property
    def idle(self) -> bool:
        """Nothing waits that anybody wants, and nothing is with a replica."""
        return not any(item.wanted() for item in self.waiting) and not any(r.sent for r in self._links())

    async def drain(self) -> None:
        """Take nothing new, answer what waits, then close. Ends within the deadline of the last request."""
        self._closing = True
        if self.idle:
            self._idle.set()
        await self._idle.wait()
        self.close()

    def close(self) -> None:
        """Hang up now; what still waits fails."""
        self._closing = self._closed = True
        self._sweeper.cancel()
        for replica in self._links():
            replica.close()
        for task in self._tasks.values():
            task.cancel()
        for item in self.waiting:
            self._fail(item, self._closed_error())
        self.waiting.clear()
        if self.sharing is not None:
            self.sharing.cache.forget(self.model)
        self._idle.set()

    def _closed_error(self) -> Busy:
        return Busy("serve.pool-closed", model=self.version, retry_after_s=0.1)

    def state(self) -> dict[str, Any]:
        """For ``stats``: what it has and what waits."""
        return {
            "model": self.version,
            "replicas": len(self._replicas),
            "ready": self.ready,
            "leaving": len(self._leaving),
            "waiting": len(self.waiting),
            "in_flight": self.in_flight,
            "rate_per_s": round(self._door.pressure.rate_per_s, 1),
            "quarantined": len(self.quarantine),
            "arrivals": self.arrivals.document(),
            "batch_max": max([c.batch_max for c in self._curves()], default=0),
        }
