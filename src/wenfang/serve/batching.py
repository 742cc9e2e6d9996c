"""Which of the waiting texts go together into one batch. Pure functions and plain values; no clock, no socket.

Greedy: a free replica takes what waits. Whose turn it is, then those of nearest length, as long as padding costs less than a batch
of their own would. There is no timer: nobody waits for company.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from wenfang.core.conversation import Generation
from wenfang.core.examples import Output

from .cache import Key
from .costs import CostCurve
from .tracing import Traced

__all__ = ["WINDOW", "Item", "Ticket", "choose", "still_wanted"]

WINDOW = 128
"""Waiting texts that are looked at for one batch."""
HELD_UNITS = 1.5
"""A batch may cost at most this many times what its texts cost alone, in padding, whatever the curve says."""


class Ticket:
    """One request: its texts, its answers as they come, and who wants to know.

    Args:
        n: number of its texts.
        top_k: how many labels each answer names.
        started, deadline: on the loop's clock.
        done: called once, when all answers are there or the first error is.
    """

    __slots__ = ("deadline", "done", "ends_at", "error", "left", "left_behind", "on_piece", "options", "outputs", "over", "pairs", "started", "top_k", "traced", "written")

    def __init__(self, n: int, top_k: int, started: float, deadline: float, done: Callable[[Ticket], None]) -> None:
        self.top_k = top_k
        self.started = started
        self.deadline = deadline
        self.done = done
        self.outputs: list[Any] = [None] * n
        self.left = n
        self.error: Exception | None = None
        self.over = False
        self.pairs = False
        self.options: Generation | None = None
        """What is asked of generation; its deadline counts from the last sign of life."""
        self.ends_at = math.inf
        """Its caller waits no longer, whatever it hears."""
        self.left_behind: Callable[[int], None] | None = None
        """Told how many tokens were read and written when its caller has left in the middle."""
        self.on_piece: Callable[[int, str], None] | None = None
        """Wants (index of the text, piece) as they come."""
        self.traced: Traced | None = None
        """Wants to know what became of it, and goes to the replica with its texts."""
        self.written = False
        """A piece is out: what comes again would stand there twice."""

    def lives(self, deadline: float) -> None:
        """A sign of life: wait until then."""
        self.deadline = min(deadline, self.ends_at)

    def piece(self, index: int, text: str) -> None:
        """A piece of one text is there."""
        if text and self.on_piece is not None and not self.over:
            self.written = True
            self.on_piece(index, text)

    def answer(self, index: int, output: Output) -> None:
        """One text is answered."""
        if not self.over:
            self.outputs[index] = output
            self.left -= 1
            if not self.left:
                self.over = True
                self.done(self)

    def fail(self, error: Exception) -> None:
        """The request fails; its other texts are dropped where they wait."""
        if not self.over:
            self.over = True
            self.error = error
            self.done(self)

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self.over = True


class Item:
    """One waiting text, and everybody who waits for its answer."""

    __slots__ = ("also", "attempts", "gone", "index", "key", "length", "owner", "release", "text", "text_b", "ticket", "turn")

    def __init__(self, text: str, index: int, ticket: Ticket, text_b: str = "") -> None:
        self.text = text
        self.text_b = text_b
        self.length = len(text) + len(text_b) + 2
        self.index = index
        self.ticket = ticket
        self.attempts = 0
        self.key: Key | None = None
        """Where its answer may be shared."""
        self.also: list[tuple[Ticket, int]] = []
        """Requests that asked the same later, and the number of the text in them."""
        self.release: Callable[[Item], None] | None = None
        """Told when it is dropped because nobody waits any more."""
        self.gone = False
        self.owner = ""
        self.turn: tuple[int, float] = (0, 0.0)
        """(class of priority, tag): the smaller, the sooner."""

    def wanted(self) -> bool:
        """Whether anybody still waits; when only those who came later do, the first of them takes its place."""
        while self.ticket.over:
            if not self.also:
                return False
            self.ticket, self.index = self.also.pop(0)
        return True

    def answer(self, output: Output) -> None:
        """Tell everybody."""
        self.ticket.answer(self.index, output)
        for ticket, index in self.also:
            ticket.answer(index, output)

    def fail(self, error: Exception) -> None:
        """Everybody's request fails."""
        self.ticket.fail(error)
        for ticket, _ in self.also:
            ticket.fail(error)


def still_wanted(waiting: list[Item]) -> list[Item]:
    """Those somebody waits for; the others are gone, and whoever would share their answer is told."""
    kept: list[Item] = []
    for item in waiting:
        if item.wanted():
            kept.append(item)
        else:
            item.gone = True
            if item.release is not None:
                item.release(item)
    return kept


def choose(waiting: list[Item], curve: CostCurve, limit: int) -> list[Item]:
    """Take the next batch out of ``waiting``.

    The text whose turn it is leads. A text joins when the padding it brings costs less than the fixed cost of a batch of its own. A text
    that was in a dying replica goes alone, so that one which kills replicas takes nobody with it.

    Args:
        waiting: in the order of their turns; what is taken (and what nobody wants any more) is removed.
        curve: of the replica that is free.
        limit: texts at most.

    Cost: O(W log W) for a window of W ≤ 128 texts.
    """
    if any(item.ticket.over for item in waiting[:WINDOW]):
        waiting[:] = still_wanted(waiting)
    if not waiting:
        return []
    limit = min(limit, curve.batch_max)
    lead = waiting[0]
    if limit <= 1 or lead.attempts or len(waiting) == 1:
        del waiting[0]
        return [lead]
    pairs = lead.ticket.pairs  # of one model that takes both, they are different questions
    near = sorted((item for item in waiting[1:WINDOW] if not item.attempts and item.ticket.pairs == pairs), key=lambda item: abs(item.length - lead.length))
    batch, longest, own = [lead], lead.length, lead.length
    spare = curve.fixed_ms / curve.item_ms if curve.item_ms > 0 else float("inf")
    for item in near:
        if len(batch) >= limit:
            break
        long = max(longest, item.length)
        padded = long * (len(batch) + 1)
        if padded - longest * len(batch) > item.length + spare or padded > HELD_UNITS * (own + item.length) + spare:
            break
        batch.append(item)
        longest, own = long, own + item.length
    taken = set(map(id, batch))
    waiting[:] = [item for item in waiting if id(item) not in taken]
    return batch
