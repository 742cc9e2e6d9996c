"""A request going through a graph of steps over the pools of their model versions: one deadline, one trace, steps side by side where they can be.

Lives on one asyncio loop; ``graphs`` says what is to be asked, this asks it. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Busy, Invalid, WenfangError
from wenfang.core.examples import Output

from .batching import Ticket
from .graphs import Asking, Plan, Run, Step
from .pool import Pool
from .tracing import Traced
from .turns import RANKS

__all__ = ["Composed", "How"]

WRITING = frozenset({"generation", "chat"})
OWN_PART = 0.5
"""Of what is left of the deadline, for a step that has a fall-back and says nothing of time: the fall-back needs some too."""


@dataclass(frozen=True, slots=True)
class How:
    """What a caller wants of a request beside its texts."""

    deadline_s: float
    top_k: int = 1
    options: Generation | None = None
    """Of generation; None: what the steps say."""
    fresh: bool = False
    owner: str = ""
    rank: int = RANKS["online"]
    traced: Traced | None = None


class Composed:
    """A graph with the pools that answer its steps.

    Args:
        version: ``name:number`` of the graph, for people.
        plan: of the graph.
        pools: by id of the model version, all that it asks.
        tasks: by id of the model version.
    """

    def __init__(self, version: str, plan: Plan, pools: Mapping[str, Pool], tasks: Mapping[str, str]) -> None:
        self.version = version
        self.plan = plan
        self.pools = {model: pools[model] for model in plan.models}
        self.options = {name: msgspec.convert(step.parameters, Generation) for name, step in plan.graph.steps.items() if tasks[step.model] in WRITING}
        """Of the steps that write."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """(step, what came of it): texts."""
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Every step has a replica that answers, or a step or answer that stands in for it."""
        return all(self._ready(name) for name in self.plan.main)

    def _ready(self, name: str) -> bool:
        step = self.plan.graph.steps[name]
        if self.pools[step.model].answers:
            return True
        return step.fallback is not None and (not step.fallback.step or self._ready(step.fallback.step))

    async def until_idle(self) -> None:
        """Wait until no request is on its way."""
        await self._idle.wait()

    async def answer(self, texts: Sequence[str], texts_b: Sequence[str], how: How) -> Run:
        """Take B texts through the graph.

        Args:
            texts: B strings.
            texts_b: B strings, or none.
            how: deadline and the rest.

        Raises:
            Busy: `serve.deadline-passed`, `serve.queue-full` and the like; Broken: `serve.replica-died`, `serve.model-failed`: of a step without a fall-back.
            Invalid: `graph.no-answer`.

        Cost: that of its questions, and about 20 µs a step.
        """
        self._running += 1
        self._idle.clear()
        errand = _Errand(self, Run(self.plan, texts, texts_b), how)
        try:
            await errand.finish()
        finally:
            self.counts.update(errand.run.counts)
            self._running -= 1
            if not self._running:
                self._idle.set()
        return errand.run

    def outputs(self, run: Run) -> tuple[list[Output], list[str]]:
        """The answers of a run that is over, and the texts they speak of.

        Raises:
            Invalid: `graph.no-answer`.
        """
        found = [run.answer(i) for i in range(len(run.answers))]
        if None in found:
            raise Invalid("graph.no-answer", graph=self.version, index=found.index(None))
        return [f[0] for f in found if f], [f[1] for f in found if f]


class _Errand:
    """One run, its questions that are out, and its time."""

    def __init__(self, composed: Composed, run: Run, how: How) -> None:
        self.composed = composed
        self.run = run
        self.how = how
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + how.deadline_s
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._out: set[Ticket] = set()
        self._came: deque[tuple[Asking, Sequence[Output], Exception | None]] = deque()
        self._pumping = False

    async def finish(self) -> None:
        """Ask until there is nothing left to ask; raises what the run failed with."""
        timer = self._loop.call_at(self._until, self._too_late)
        try:
            self._pump()
            await self._over
        finally:
            timer.cancel()
            for ticket in self._out:  # of a run that has failed, or that nobody waits for any more
                ticket.cancel()
        if self.run.error is not None:
            raise self.run.error

    def _too_late(self) -> None:
        if not self.run.over:
            self.run.error = Busy("serve.deadline-passed", model=self.composed.version, deadline_s=round(self.how.deadline_s, 3), retry_after_s=1.0)
            self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _pump(self) -> None:
        """Ask what can be asked, take what came; answers that are known already come while asking."""
        if self._pumping or self._over.done():
            return
        self._pumping = True
        run, came = self.run, self._came
        todo = run.begin()
        while (todo or came) and run.error is None:
            for asking in todo:
                self._put(asking)
            todo = list[Asking]()
            while came:
                asking, outputs, error = came.popleft()
                if error is None:
                    run.answered(asking, outputs)
                else:
                    todo += self._failed(asking, error)
            todo += run.begin()
        self._pumping = False
        if run.over:
            self._end()

    def _put(self, asking: Asking) -> None:
        how, step = self.how, asking.step
        now = self._loop.time()
        limit_s = self._limit_s(step, self._until - now)
        traced = how.traced.child(asking.by, now) if how.traced is not None else None
        timer: list[asyncio.TimerHandle] = []

        def done(ticket: Ticket) -> None:
            ended = self._loop.time()
            pool.figures.ended(ticket, ended)
            self._out.discard(ticket)
            for handle in timer:
                handle.cancel()
            if traced is not None:
                traced.ended = ended
                traced.facts["error"] = getattr(ticket.error, "code", "")
            self._came.append((asking, ticket.outputs, ticket.error))
            self._pump()

        pool = self.composed.pools[step.model]
        answers = asking.name in self.composed.plan.graph.answer
        options = self.composed.options.get(asking.by)
        try:
            ticket = pool.submit(
                asking.texts,
                max(step.top_k, how.top_k) if answers else step.top_k,
                done,
                texts_b=asking.texts_b,
                options=how.options if options is not None and answers and how.options is not None else options,
                deadline_s=limit_s,
                fresh=how.fresh or not step.cache,
                owner=how.owner,
                rank=how.rank,
            )
        except WenfangError as e:
            if traced is not None:
                traced.ended, traced.facts["error"] = now, e.code
            self._came.append((asking, (), e))
            return
        if not ticket.over:
            ticket.traced = traced
            self._out.add(ticket)
            if limit_s < self._until - now:
                timer.append(self._loop.call_later(limit_s, _expire, ticket, pool, limit_s))

    def _limit_s(self, step: Step, left_s: float) -> float:
        """How long a step may take."""
        limit_s = left_s
        if step.timeout_s:
            limit_s = min(limit_s, step.timeout_s)
        if step.share:
            limit_s = min(limit_s, step.share * self.how.deadline_s)
        if step.fallback is not None and not step.timeout_s and not step.share:
            limit_s *= OWN_PART
        return max(0.0, limit_s)

    def _failed(self, asking: Asking, error: Exception) -> list[Asking]:
        """What to ask instead. Of several texts that failed together each is asked alone, where one of them may have spoiled it for all."""
        alone = len(asking.rows) > 1 and asking.step.fallback is not None and not isinstance(error, Busy) and getattr(error, "code", "") != "serve.replica-died"
        if not alone:
            return self.run.failed(asking, error)
        seconds: Sequence[Any] = asking.texts_b or [None] * len(asking.rows)
        return [
            Asking(asking.name, asking.step, [row], [text], [second] if second is not None else [], asking.by)
            for row, text, second in zip(asking.rows, asking.texts, seconds, strict=True)
        ]


def _expire(ticket: Ticket, pool: Pool, limit_s: float) -> None:
    """A step took longer than it may."""
    if not ticket.over:
        pool.figures.late += 1
        ticket.fail(Busy("serve.deadline-passed", model=pool.version, deadline_s=round(limit_s, 3), retry_after_s=pool.retry_after_s()))
