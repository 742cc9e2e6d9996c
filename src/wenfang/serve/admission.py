"""Who may wait: a burst may, standing overload may not, and whoever asks most is refused first. Knows nothing of sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wenfang.core.errors import Busy

from .batching import Item, still_wanted
from .costs import CostCurve
from .figures import PoolFigures
from .pressure import Pressure
from .turns import Turns

__all__ = ["Admission"]

BATCHES_AHEAD = 4
"""Batches each replica may find waiting whatever the time: fewer, and texts of like length do not meet."""
SPARED_S = 5.0
"""What waited for the last replica has so long to be answered before a standing queue is refused again."""
LENGTHS_SEEN = 16
"""Waiting texts whose lengths are looked at to know how long a queue takes."""


class Admission:
    """The door of one queue.

    Args:
        version: ``name:number``, for errors.
        limits: ``batch_max``, ``queue_max``, ``wait_s``.
        figures: where refusals are counted.
        curves: of the replicas that are ready.
        now: on the clock of all other calls.
    """

    def __init__(self, version: str, limits: tuple[int, int, float], figures: PoolFigures, curves: Callable[[], list[CostCurve]], now: float) -> None:
        self.turns = Turns()
        self.pressure = Pressure(now)
        self._spared_until = now
        self.grows = False
        """More replicas may come: a queue that stands is what calls them, not yet overload."""
        self._version = version
        self._batch_max, self._queue_max, self._wait_s = limits
        self._figures = figures
        self._curves = curves

    def expect_more(self, grows: bool, now: float) -> None:
        """Whether more replicas may come; when the last has, what waited for it has some seconds to be answered."""
        if self.grows and not grows:
            self._spared_until = now + SPARED_S
        self.grows = grows

    def let_in(self, waiting: list[Item], n: int, asker: tuple[str, int], now: float) -> None:
        """Return if n more texts may wait. Whoever has less than the others on average is refused last: the queue may be twice as long for it.

        Args:
            waiting: what nobody wants any more may be removed.
            n: texts.
            asker: owner and rank.
            now: on the clock.

        Raises:
            Busy: `serve.queue-full`, `serve.overloaded`.
        """
        (owner, rank), most = asker, self._queue_max
        ahead = self.turns.ahead(waiting, rank)
        if ahead + n > most or len(waiting) + n > 2 * most:
            waiting[:] = still_wanted(waiting)
            ahead = self.turns.ahead(waiting, rank)
            full = ahead + n > most and self.turns.share_left(waiting, owner) < n
            if full or len(waiting) + n > 2 * most:
                self._figures.refused += 1
                raise Busy("serve.queue-full", model=self._version, waiting=len(waiting), max=most, retry_after_s=self.retry_after_s(waiting))
        if (
            waiting
            and not self.grows
            and now >= self._spared_until
            and self.pressure.stands(now)
            and self._stands_too_long(waiting, ahead)
            and self.turns.share_left(waiting, owner) < n
        ):
            self._figures.refused += 1
            raise Busy("serve.overloaded", model=self._version, wait_s=self._wait_s, retry_after_s=self.retry_after_s(waiting))

    def capacity_per_s(self, waiting: Sequence[Item]) -> float:
        """Texts a second as measured under load; until then as the replicas measured themselves at load, for texts like those that wait."""
        curves, seen = self._curves(), waiting[:LENGTHS_SEEN]
        length = sum([item.length for item in seen]) / len(seen) if seen else 1.0
        costs_ms = [c.fixed_ms / c.batch_max + c.item_ms * length for c in curves]
        return self.pressure.capacity_per_s(len(curves), sum([1000 / ms for ms in costs_ms if ms > 0]))

    def _stands_too_long(self, waiting: Sequence[Item], n: int) -> bool:
        """Whether a text behind n others would wait longer than it may; who waits for the only replica to come back, waits."""
        ahead = BATCHES_AHEAD * self._batch_max * len(self._curves())  # whole batches, also where a replica measured that smaller ones pay
        if not ahead or n < ahead or not self._wait_s:
            return False
        rate = self.capacity_per_s(waiting)
        return bool(rate) and n / rate > self._wait_s

    def retry_after_s(self, waiting: Sequence[Item]) -> float:
        """When the present queue will be done."""
        rate = self.capacity_per_s(waiting)
        return round(min(60.0, max(0.1, len(waiting) / rate)), 1) if rate > 0 else 1.0
