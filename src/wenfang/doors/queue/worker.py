"""Takes messages of one request queue, has the service answer, sends the replies. At least once, and never a second answer to one id.

For each message: the reply is kept (durable) → it is sent (the broker has it) → the message is done. Wherever the worker dies between
two steps, the message comes again and gets the reply that was kept. What cannot be answered goes to the dead-letter queue with its
reason, and whoever asked is told; a service that is full or away is waited for. Knows no broker and no model.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from wenfang.core.errors import Broken, Conflict, Invalid, WenfangError
from wenfang.core.messages import Bus, Delivery, Inbox
from wenfang.core.records import QueueBinding
from wenfang.stores.replies import Replied, Replies

from .figures import Figures
from .format import Question, dead_letter, digest, failure, read_question, reply, sealed
from .gateways import Away, Gateways

__all__ = ["Worker"]

LOOK_S = 0.5
LAG_EVERY_S = 2.0
BACKOFF_S = (0.1, 5.0)
GRACE_S = 10.0
DELIVERIES_MIN = 10
"""A message may come so often, or three times as often as it may be tried, before it counts as one that kills workers."""
WAITED_FOR = frozenset({"serve.unknown-service", "serve.pool-closed", "gateway.draining"})
"""Refusals, besides every 429, that are no fault of a message."""
log = logging.getLogger("wenfang.queue")


class _Stopping(Exception):
    """The worker is being stopped: the message goes back."""


@dataclass(frozen=True, slots=True)
class _Dead:
    problem: dict[str, Any]
    attempts: int


class Worker:
    """One request queue of one service. Must be made on a running loop.

    Args:
        binding: which queues, which service.
        connect: opens the bus.
        replies: what was answered before.
        gateways: who is asked.
        name: of this worker among all takers of the queue.
        lease_s: of a message.
    """

    def __init__(self, binding: QueueBinding, *, connect: Callable[[], Awaitable[Bus]], replies: Replies, gateways: Gateways, name: str, lease_s: float) -> None:
        self.binding, self.figures = binding, Figures(binding.service, binding.requests)
        self._connect, self.replies, self.gateways, self._name, self.lease_s = connect, replies, gateways, name, lease_s
        self.stopping = asyncio.Event()
        self.answering: dict[str, asyncio.Event] = {}
        """Ids that are being answered."""

    def stop(self) -> None:
        """Take no more; finish or give back what is here."""
        self.stopping.set()

    async def run(self) -> None:
        """Work until stopped; a broker that goes away is come back to."""
        pause = BACKOFF_S[0]
        while not self.stopping.is_set():
            began = asyncio.get_running_loop().time()
            try:
                await self._with_bus()
            except WenfangError as e:
                self.figures.add("faults")
                log.warning("%s: %s", self.binding.requests, e)
            self.figures.connected = False
            pause = BACKOFF_S[0] if asyncio.get_running_loop().time() - began > BACKOFF_S[1] else min(BACKOFF_S[1], pause * 2)
            await self.wait(pause * random.uniform(0.5, 1.0))

    async def wait(self, seconds: float) -> bool:
        """Whether the worker is stopped within the time."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    # ------------------------------------------------------------ one connection
    async def _with_bus(self) -> None:
        bus = await self._connect()
        try:
            for queue in (self.binding.requests, self.binding.replies, self.binding.dead_letters):
                await bus.declare(queue)
            inbox = await bus.open_inbox(self.binding.requests, name=self._name, prefetch=self.binding.concurrency, lease_s=self.lease_s)
            self.figures.connected = True
            await _Hand(self, bus, inbox).work()
        finally:
            try:
                await bus.close()
            except WenfangError as e:
                log.info("%s: %s", self.binding.requests, e)


class _Hand:
    """The work of one connection."""

    def __init__(self, worker: Worker, bus: Bus, inbox: Inbox) -> None:
        self._worker, self._bus, self._inbox = worker, bus, inbox
        self._binding, self._figures = worker.binding, worker.figures
        self._out: dict[asyncio.Task[None], Delivery] = {}
        self._fault: WenfangError | None = None

    async def work(self) -> None:
        """Take and answer until the worker stops or the bus breaks.

        Raises:
            Broken: `bus.unreachable`; what is here comes again.
        """
        stop = self._worker.stopping
        watches = [asyncio.create_task(self._keep()), asyncio.create_task(self._measure())]
        enough = max(1, self._binding.concurrency // 4)
        try:
            while not stop.is_set() and self._fault is None:
                if self._binding.concurrency - len(self._out) < enough:
                    await asyncio.wait(self._out, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                    continue
                for delivery in await self._inbox.take(self._binding.concurrency - len(self._out), LOOK_S):
                    self._figures.add("taken")
                    task = asyncio.create_task(self._one(delivery))
                    self._out[task] = delivery
                    task.add_done_callback(self._ended)
                self._figures.in_flight = len(self._out)
            if self._fault is None and self._out:
                await asyncio.wait(self._out, timeout=GRACE_S)
            if self._fault is None:
                await self._inbox.close()
        finally:
            for task in [*watches, *self._out]:
                task.cancel()
            await asyncio.gather(*watches, *self._out, return_exceptions=True)
            self._figures.in_flight = 0
        if self._fault is not None:
            raise self._fault

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._out.pop(task, None)
        self._figures.in_flight = len(self._out)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, WenfangError):
            self._fault = error
        elif error is not None:
            log.error("a message of %s: %s", self._binding.requests, type(error).__name__, exc_info=error)
            self._fault = Broken("queue.failed", kind=type(error).__name__)

    async def _keep(self) -> None:
        """Renew the leases of what is being answered."""
        while True:
            await asyncio.sleep(self._worker.lease_s / 3)
            try:
                await self._inbox.keep(list(self._out.values()))
            except WenfangError as e:
                self._fault = e
                return

    async def _measure(self) -> None:
        while True:
            try:
                self._figures.lag = await self._bus.depth(self._binding.requests)
            except WenfangError as e:
                log.info("%s: %s", self._binding.requests, e)
            await asyncio.sleep(LAG_EVERY_S)

    # ------------------------------------------------------------ one message
    async def _one(self, delivery: Delivery) -> None:
        try:
            asked = read_question(delivery.message, self._binding.replies)
        except WenfangError as e:
            await self._bury(delivery, None, _Dead(e.problem("en"), 0))
            return
        answering = self._worker.answering
        while asked.id in answering:  # the same message came twice: the second gets the first one's reply
            await answering[asked.id].wait()
        over = answering[asked.id] = asyncio.Event()
        try:
            await self._answer(delivery, asked)
        except _Stopping:
            self._figures.add("returned")
            await self._inbox.give_back([delivery])
        finally:
            del answering[asked.id]
            over.set()

    async def _answer(self, delivery: Delivery, asked: Question) -> None:
        asked_for = digest(asked)
        known = await self._worker.replies.find(asked.id)
        if known is not None and known.digest != asked_for:
            await self._bury(delivery, asked, _Dead(Conflict("queue.id-reused", id=asked.id).problem("en"), 0))
            return
        if known is None:
            if delivery.times > max(DELIVERIES_MIN, 3 * self._binding.attempts):
                await self._bury(delivery, asked, _Dead(Broken("queue.delivered-too-often", times=delivery.times).problem("en"), delivery.times))
                return
            answer = await self._ask(asked)
            if isinstance(answer, _Dead):
                await self._bury(delivery, asked, answer)
                return
            message = reply(asked, answer)
            known = await self._worker.replies.keep(asked.id, Replied(asked_for, message.body))
        else:
            self._figures.add("again")
        await self._bus.send(asked.reply_to, sealed(asked, known.body))
        await self._inbox.done([delivery])
        self._figures.add("answered")

    async def _ask(self, asked: Question) -> dict[str, Any] | _Dead:
        """The service's answer, waited for while it is full or away; dead after as many failures as the binding allows."""
        failed, pause = 0, BACKOFF_S[0]
        binding = self._binding
        while True:
            left = asked.left_s()
            if left is not None and left <= 0:
                return _Dead(Invalid("queue.deadline-passed").problem("en"), failed)
            heard: dict[str, Any]
            try:
                async with asyncio.timeout(left):
                    heard = await self._worker.gateways.ask(
                        service=binding.service, project=binding.project, asker=f"queue:{binding.id}", id=asked.id, body=asked.body, priority=asked.priority, traceparent=""
                    )
            except (Away, TimeoutError):
                heard = {"status": 503, "body": b"{}", "retry_after_s": 0.0}
            except WenfangError as e:
                heard = {"status": 500, "body": msgspec.json.encode(e.problem("en")), "retry_after_s": 0.0}
            document = msgspec.json.decode(heard["body"])
            if heard["status"] == 200:
                return document
            if heard["status"] in {429, 503} or document.get("code") in WAITED_FOR:
                self._figures.add("waits")
            elif heard["status"] < 500:
                return _Dead(document, failed + 1)
            else:
                failed += 1
                if failed >= binding.attempts:
                    return _Dead(document, failed)
            pause = min(BACKOFF_S[1], max(pause * 1.5, float(heard["retry_after_s"])))
            if await self._worker.wait(pause * random.uniform(0.5, 1.0) if left is None else min(pause, max(left, 0.0))):
                raise _Stopping

    async def _bury(self, delivery: Delivery, asked: Question | None, dead: _Dead) -> None:
        """Put a message into the dead-letter queue and tell whoever asked; then it is done."""
        await self._bus.send(self._binding.dead_letters, dead_letter(delivery.message, self._binding.requests, dead.problem, dead.attempts))
        if asked is not None:
            await self._bus.send(asked.reply_to, reply(asked, failure(dead.problem)))
        await self._inbox.done([delivery])
        self._figures.died(str(dead.problem.get("code", "")))
