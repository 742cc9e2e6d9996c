"""What came to one pool lately: how long texts are, how many a request has, whether requests come by chance or in bursts. Counts only, never a text.

Old counts fade, so that a plan made from them speaks of these days. Lives on one loop; knows nothing of who reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .batching import Item

__all__ = ["Arrivals"]

STEPS = 8
"""Lengths are told apart to an eighth of an octave, 9 %."""
SHORT = 1024
FADE_TICKS = 6_000
"""Counts are halved after so many ticks (ten minutes of a tenth of a second)."""


def _step(length: int) -> int:
    return round(STEPS * math.log2(max(length, 1)))


_STEPS = tuple(_step(n) for n in range(SHORT))


class Arrivals:
    """Counters of one pool."""

    __slots__ = ("_before", "_changes", "_now", "_squares", "_steps", "_ticks", "requests", "texts")

    def __init__(self) -> None:
        self.requests = 0.0
        self.texts = 0.0
        self._steps: dict[int, float] = {}
        self._now = self._before = 0
        self._ticks = self._changes = 0
        self._squares = 0.0

    def came(self, items: Sequence[Item]) -> None:
        """A request, with the texts that the model is asked.

        Cost: a tenth of a microsecond a text.
        """
        self._now += 1
        steps = self._steps
        for item in items:
            step = _STEPS[item.length] if item.length < SHORT else _step(item.length)
            steps[step] = steps.get(step, 0.0) + 1.0
        self.requests += 1.0
        self.texts += len(items)

    def tick(self) -> None:
        """Once every tenth of a second."""
        if self._now or self._before:  # hours without a request say nothing of how they come
            change = self._now - self._before
            self._squares += change * change / 2  # of neighbours: a rate that drifts is no burst
            self._changes += 1
        self._before, self._now = self._now, 0
        self._ticks += 1
        if self._ticks >= FADE_TICKS:
            self._ticks = 0
            self._changes //= 2
            self._squares /= 2
            self.requests /= 2
            self.texts /= 2
            self._steps = {step: n / 2 for step, n in self._steps.items() if n >= 0.25}

    def document(self) -> dict[str, Any]:
        """Plain values: ``lengths`` as [code points, how many], ``dispersion`` of the requests in a tenth of a second (1: by chance)."""
        lengths = [[round(2 ** (step / STEPS)), round(n, 2)] for step, n in sorted(self._steps.items())]
        each = self.requests / self._changes if self._changes else 0.0
        return {
            "requests": round(self.requests, 1),
            "texts": round(self.texts, 1),
            "lengths": lengths,
            "dispersion": round(self._squares / self._changes / each, 3) if each else 1.0,
        }
