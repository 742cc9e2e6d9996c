"""The replicas of one model version as their callers see them: connections, a bounded queue, batches, retries, deadlines.

Lives on one asyncio loop. Knows nothing of HTTP, services, or how replicas are started.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import BY_STATUS, Broken, Busy
from wenfang.core.frames import FRAME_MAX_BYTES, pack

from .batching import Item, Ticket, choose, still_wanted
from .cache import AnswerCache
from .costs import CostCurve
from .figures import PoolFigures
from .sharing import Sharing
from .wire import Answer, Ask, Cancel, Hello, Piece

__all__ = ["Limits", "Pool"]

RECONNECT_FIRST_S = 0.01
RECONNECT_MAX_S = 0.5
SWEEP_S = 0.1
log = logging.getLogger("wenfang.pool")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a pool takes and how long it may need."""

    batch_max: int = 8
    queue_max: int = 1024
    deadline_s: float = 10.0


@dataclass(slots=True)
class _Sent:
    """A batch in flight."""

    batch: list[Item]
    writes: bool
    """It is generation."""
    cancelled: bool = False


class _Replica(asyncio.Protocol):
    """One connection to one replica; a batch in flight at most, or where texts join those that are being written, as many texts as it has slots."""

    def __init__(self, pool: Pool, path: str) -> None:
        self.pool = pool
        self.path = path
        self.transport: asyncio.Transport | None = None
        self.hello: Hello | None = None
        self.curve = CostCurve(0.0, 0.0, 1)
        self.sent: dict[int, _Sent] = {}
        self.sent_at = 0.0
        """When the oldest batch went out, or the last sign of life."""
        self.answered = 0
        self._id = 0
        self._inbox = bytearray()
        self.closed = False
        self.ended = asyncio.Event()

    # ------------------------------------------------------------ connecting
    async def stay_connected(self) -> None:
        """Connect again and again until the pool closes."""
        wait_s = RECONNECT_FIRST_S
        while not self.closed:
            self.ended.clear()
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: self, self.path)
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(RECONNECT_MAX_S, wait_s * 1.5)
                continue
            await self.ended.wait()
            wait_s = RECONNECT_FIRST_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._inbox.clear()
        self.sent_at = self.pool.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio names it
        self.transport = None
        was_ready, self.hello = self.hello is not None, None
        batch = [item for sent in self.sent.values() for item in sent.batch]
        self.sent.clear()
        self.ended.set()
        if not self.closed and was_ready:
            self.pool.figures.lost += 1
        self.pool.replica_lost(self, batch)

    # ------------------------------------------------------------ frames
    @property
    def in_flight(self) -> int:
        """Texts that are with it."""
        return sum(len(sent.batch) for sent in self.sent.values())

    @property
    def joins(self) -> bool:
        """Whether it takes texts one by one, while others are being written."""
        return self.hello is not None and self.hello.slots > 0

    @property
    def room(self) -> bool:
        """Whether it can take more; one that is at a text which was in a dying replica takes nothing beside it."""
        if self.hello is None or not self.sent:
            return self.hello is not None
        return self.in_flight < self.hello.slots and not any(item.attempts for sent in self.sent.values() for item in sent.batch)

    def send(self, batch: list[Item]) -> None:
        """Give it a batch."""
        assert self.transport is not None
        self._id += 1
        now = self.pool.loop.time()
        if not self.sent:
            self.sent_at = now
        self.pool.figures.queue_ms += 1000 * sum([now - item.ticket.started for item in batch])
        first = batch[0].ticket
        pairs = [item.text_b for item in batch] if first.pairs else []
        ask = Ask(self._id, [item.text for item in batch], max([item.ticket.top_k for item in batch]), pairs)
        writes = first.options is not None
        self.sent[self._id] = _Sent(batch, writes)
        if writes:
            ask = Ask(ask.id, ask.texts, 1, [], [item.ticket.options for item in batch], [i for i, item in enumerate(batch) if item.ticket.on_piece is not None])
        self.transport.write(pack(ask))

    def cancel_unwanted(self) -> int:
        """Stop generations that nobody waits for any more; how many."""
        count = 0
        for number, sent in self.sent.items():
            if sent.writes and not sent.cancelled and self.transport is not None and all(item.ticket.over for item in sent.batch):
                sent.cancelled = True
                self.transport.write(pack(Cancel(number)))
                count += 1
        return count

    def data_received(self, data: bytes) -> None:
        inbox = self._inbox
        inbox += data
        while len(inbox) >= 4:
            size = int.from_bytes(inbox[:4], "big")
            if size > FRAME_MAX_BYTES:
                self.abort("frame too large")
                return
            if len(inbox) < 4 + size:
                return
            frame = bytes(inbox[4 : 4 + size])
            del inbox[: 4 + size]
            try:
                self._frame(frame)
            except msgspec.MsgspecError as e:
                self.abort(str(e))
                return

    def _frame(self, frame: bytes) -> None:
        if self.hello is None:
            hello = self.hello = self.pool.hello_decoder.decode(frame)
            self.curve = CostCurve(hello.item_ms, hello.fixed_ms, min(hello.batch_max, self.pool.limits.batch_max))
            self.pool.replica_ready(self)
            return
        answer = self.pool.answer_decoder.decode(frame)
        if type(answer) is Piece:
            sent = self.sent.get(answer.id)
            if sent is not None:
                self.sent_at = self.pool.loop.time()
                if 0 <= answer.index < len(sent.batch):
                    self.pool.piece_arrived(sent.batch, answer, self.sent_at)
            return
        sent = self.sent.get(answer.id)
        if sent is None or len(answer.outputs) != len(sent.batch):
            self.abort("an answer to another batch")
            return
        del self.sent[answer.id]
        self.sent_at = self.pool.loop.time()
        self.answered += len(sent.batch)
        self.pool.batch_answered(self, sent.batch, answer)

    def abort(self, reason: str) -> None:
        """Hang up; ``connection_lost`` follows and the batch is tried elsewhere."""
        if self.transport is not None:
            log.warning("replica %s of %s is given up: %s", self.path, self.pool.version, reason)
            self.transport.abort()

    def close(self) -> None:
        """Hang up for good."""
        self.closed = True
        self.ended.set()
        if self.transport is not None:
            self.transport.abort()


class Pool:
    """Must be made and used on a running loop.

    Args:
        model: id of the model version.
        version: ``name:number``, for people.
        sockets: paths of its replicas' sockets; they may not exist yet.
        limits: queue, batch and deadline.
        cache: of answers, shared with other pools; None: every text is asked.
    """

    def __init__(self, model: str, version: str, sockets: Sequence[str], limits: Limits, cache: AnswerCache | None = None) -> None:
        self.model = model
        self.version = version
        self.limits = limits
        self.figures = PoolFigures()
        self.sharing = Sharing(cache, model) if cache is not None else None
        self._steady = False
        self.loop = asyncio.get_running_loop()
        self.hello_decoder = msgspec.msgpack.Decoder(Hello)
        self.answer_decoder = msgspec.msgpack.Decoder(Answer | Piece)
        self.waiting: list[Item] = []
        self._free: list[_Replica] = []
        self._tickets: list[tuple[float, int, Ticket]] = []
        """A heap by deadline."""
        self._numbers = itertools.count()
        self._writing: list[Ticket] = []
        """Of generation: their deadlines move."""
        self._dispatching = False
        self._closing = False
        self._some_ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._rate_per_s = 0.0
        self._rate_mark: tuple[float, int] = (self.loop.time(), 0)
        self._replicas: dict[str, _Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sweeper = self.loop.create_task(self._sweep())
        self.set_sockets(sockets)

    # ------------------------------------------------------------ replicas
    def set_sockets(self, sockets: Sequence[str]) -> None:
        """Have exactly these replicas; batches of those that leave are answered elsewhere."""
        for path in set(self._replicas) - set(sockets):
            leaving = self._replicas.pop(path)
            if leaving in self._free:
                self._free.remove(leaving)
            leaving.close()
            self._tasks.pop(path).cancel()
        for path in sockets:
            if path not in self._replicas:
                replica = self._replicas[path] = _Replica(self, path)
                self._tasks[path] = self.loop.create_task(replica.stay_connected())

    @property
    def ready(self) -> int:
        """Replicas that said hello."""
        return sum(r.hello is not None for r in self._replicas.values())

    async def until_ready(self, timeout_s: float) -> bool:
        """Wait until at least one replica is ready; whether one is."""
        try:
            await asyncio.wait_for(self._some_ready.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def replica_ready(self, replica: _Replica) -> None:
        """It said hello."""
        self._some_ready.set()
        self._steady = replica.hello is not None and replica.hello.steady
        self._free.append(replica)
        self._dispatch_soon()

    def replica_lost(self, replica: _Replica, batch: list[Item]) -> None:
        """Its connection broke while ``batch`` was with it: each text gets one more chance."""
        if replica in self._free:
            self._free.remove(replica)
        if not self.ready:
            self._some_ready.clear()
        again: list[Item] = []
        for item in batch:
            item.attempts += 1
            if item.attempts > 1 or item.ticket.written:
                self._fail(item, Broken("serve.replica-died", model=self.version))
            else:
                again.append(item)
        again = still_wanted(again)
        self.figures.retried += len(again)
        self.waiting[:0] = again
        self._dispatch_soon()

    def batch_answered(self, replica: _Replica, batch: list[Item], answer: Answer) -> None:
        """Hand the answers out; the replica is free again."""
        if replica not in self._free and replica.room:
            self._free.append(replica)
        if self.waiting:
            self._dispatch()  # before the answers are written: the replica must not wait for us
        figures = self.figures
        size = len(batch)
        figures.texts += size
        figures.batches += 1
        figures.batch_sizes[size] = figures.batch_sizes.get(size, 0) + 1
        figures.batch_ms[size] = figures.batch_ms.get(size, 0.0) + answer.ms
        figures.model_ms += answer.ms
        figures.last_at = time.time()
        for i, (item, output) in enumerate(zip(batch, answer.outputs, strict=True)):
            if output is not None:
                item.answer(output)
                if self.sharing is not None:
                    self.sharing.over(item, output)
            else:
                error = answer.errors.get(i, {"status": 500, "code": "serve.model-failed", "fields": {"model": self.version, "kind": "?"}})
                self._fail(item, BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"]))
        if self._closing:
            self._check_idle()

    def _fail(self, item: Item, error: Exception) -> None:
        item.fail(error)
        if self.sharing is not None:
            self.sharing.over(item)

    def piece_arrived(self, batch: list[Item], piece: Piece, now: float) -> None:
        """Hand a piece out. It is a sign of life for the whole batch."""
        deadline = now + self.limits.deadline_s
        for item in batch:
            item.ticket.deadline = deadline
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

        Raises:
            Busy: `serve.queue-full`, with ``retry_after_s`` from the measured rate; `serve.pool-closed`.
        """
        if self._closing:
            raise Busy("serve.pool-closed", model=self.version, retry_after_s=0.1)
        waiting = self.waiting
        sharing = self.sharing if self._steady and options is None and not fresh else None
        known = sharing.known(texts, texts_b, top_k) if sharing is not None else []
        n = sum([found is None for _, found in known]) if sharing is not None else len(texts)
        if len(waiting) + n > self.limits.queue_max:
            self.waiting[:] = waiting = still_wanted(waiting)
        if len(waiting) + n > self.limits.queue_max and n:
            self.figures.refused += 1
            raise Busy("serve.queue-full", model=self.version, waiting=len(waiting), max=self.limits.queue_max, retry_after_s=self.retry_after_s())
        now = self.loop.time()
        wait_s = self.limits.deadline_s if deadline_s is None else min(deadline_s, self.limits.deadline_s)
        ticket = Ticket(len(texts), top_k, now, now + wait_s, done)
        ticket.pairs = bool(texts_b)
        if sharing is not None:
            waiting.extend(sharing.items(ticket, known))
            if ticket.over:
                return ticket
        elif texts_b:
            waiting.extend([Item(text, index, ticket, text_b) for index, (text, text_b) in enumerate(zip(texts, texts_b, strict=True))])
        else:
            waiting.extend([Item(text, index, ticket) for index, text in enumerate(texts)])
        if options is not None:
            ticket.options, ticket.on_piece = options, on_piece
            self._writing.append(ticket)
        else:
            heapq.heappush(self._tickets, (ticket.deadline, next(self._numbers), ticket))
        if self._free:
            self._dispatch_soon()
        return ticket

    def retry_after_s(self) -> float:
        """When the present queue will be done, by the rate of the last seconds."""
        return round(min(60.0, max(0.1, len(self.waiting) / self._rate_per_s)), 1) if self._rate_per_s > 0 else 1.0

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
            while waiting and waiting[0].ticket.over:
                del waiting[0]
            if waiting and waiting[0].attempts and replica.sent:
                return  # it goes alone, as soon as one has nothing else
            # a lone big request is shared out
            batch = choose(waiting, replica.curve, 1 if replica.joins else -(-len(waiting) // len(free)))
            if not batch:
                return
            free.remove(replica)
            replica.send(batch)
            if replica.room:
                free.append(replica)

    async def _sweep(self) -> None:
        """Ends what is late, gives up replicas that hang, measures the rate."""
        hang_s = max(0.5, self.limits.deadline_s / 2)
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            tickets = self._tickets
            while tickets and (tickets[0][2].over or tickets[0][0] <= now):
                self._too_late(heapq.heappop(tickets)[2])
            if self._writing:
                for ticket in self._writing:
                    if ticket.deadline <= now:
                        self._too_late(ticket)
                self._writing = [ticket for ticket in self._writing if not ticket.over]
            for replica in list(self._replicas.values()):
                self.figures.cancelled += replica.cancel_unwanted()
                patience_s = hang_s if replica.hello is None else max(hang_s, replica.hello.silent_s)
                if (replica.sent or (replica.transport is not None and replica.hello is None)) and now - replica.sent_at > patience_s:
                    replica.abort(f"no answer for {patience_s:.1f} s")
            since, texts = self._rate_mark
            if now - since >= 1.0:
                rate = (self.figures.texts - texts) / (now - since)
                self._rate_per_s = rate if not self._rate_per_s else 0.5 * self._rate_per_s + 0.5 * rate
                self._rate_mark = (now, self.figures.texts)
            if self._closing:
                self._check_idle()

    def _too_late(self, ticket: Ticket) -> None:
        if not ticket.over:
            self.figures.late += 1
            wait_s = self.limits.deadline_s if ticket.options is not None else round(ticket.deadline - ticket.started, 3)
            ticket.fail(Busy("serve.deadline-passed", model=self.version, deadline_s=wait_s, retry_after_s=self.retry_after_s()))

    # ------------------------------------------------------------ the end
    def _check_idle(self) -> None:
        if not any(item.wanted() for item in self.waiting) and not any(r.sent for r in self._replicas.values()):
            self._idle.set()

    async def drain(self) -> None:
        """Take nothing new, answer what waits, then close. Ends within the deadline of the last request."""
        self._closing = True
        self._check_idle()
        await self._idle.wait()
        self.close()

    def close(self) -> None:
        """Hang up now; what still waits fails."""
        self._closing = True
        self._sweeper.cancel()
        for replica in self._replicas.values():
            replica.close()
        for task in self._tasks.values():
            task.cancel()
        for item in self.waiting:
            self._fail(item, Busy("serve.pool-closed", model=self.version, retry_after_s=0.1))
        self.waiting.clear()
        if self.sharing is not None:
            self.sharing.cache.forget(self.model)
        self._idle.set()

    def state(self) -> dict[str, Any]:
        """For ``stats``: what it has and what waits."""
        curves = [r.curve for r in self._replicas.values() if r.hello is not None]
        return {
            "model": self.version,
            "replicas": len(self._replicas),
            "ready": self.ready,
            "waiting": len(self.waiting),
            "in_flight": sum(r.in_flight for r in self._replicas.values()),
            "rate_per_s": round(self._rate_per_s, 1),
            "batch_max": max((c.batch_max for c in curves), default=0),
        }
