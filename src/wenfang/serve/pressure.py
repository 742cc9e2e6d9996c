"""How fast texts go out of one queue, and whether it stands. Plain numbers on somebody else's clock; knows nothing of texts or replicas."""

from __future__ import annotations

__all__ = ["Pressure"]

STANDING_S = 0.5
"""A queue that was not empty for so long stands: it is no burst, more comes in than goes out."""
SECOND_S = 1.0
"""A rate is measured over at least so long."""


class Pressure:
    """Of one queue.

    Only a second in which something waited all the time tells how fast it could go; what is answered under light load is what was asked.

    Args:
        now: on the clock of all other calls.
    """

    def __init__(self, now: float) -> None:
        self.rate_per_s = 0.0
        """Answered a second, of late."""
        self._each_per_s = 0.0
        """The same of each replica, of seconds in which something waited all the time; 0: there was none yet."""
        self._empty_at = now
        """When nothing waited, last."""
        self._mark: tuple[float, int] = (now, 0)

    def empty(self, now: float) -> None:
        """Nothing waits."""
        self._empty_at = now

    def stands(self, now: float) -> bool:
        """Whether something has been waiting for long."""
        return now - self._empty_at > STANDING_S

    def tick(self, now: float, texts: int, *, waiting: int, ready: int) -> None:
        """Measure.

        Args:
            now: call it every 0.1 s or so.
            texts: answered since the beginning.
            waiting: texts in the queue.
            ready: replicas that answer.
        """
        since, before = self._mark
        if now - since < SECOND_S:
            return
        if texts != before or waiting:  # nothing asked says nothing of how fast it would go
            rate = (texts - before) / (now - since)
            self.rate_per_s = _smooth(self.rate_per_s, rate)
            if ready and texts != before and self._empty_at < since:
                self._each_per_s = _smooth(self._each_per_s, rate / ready)
        self._mark = (now, texts)

    def capacity_per_s(self, ready: int, expected_per_s: float = 0.0) -> float:
        """What can be answered a second: as measured under load, else as expected, else as little as was asked of late."""
        return self._each_per_s * ready or max(expected_per_s, self.rate_per_s)


def _smooth(before: float, now: float) -> float:
    return 0.5 * before + 0.5 * now if before else now
