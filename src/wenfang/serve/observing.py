"""From what gateways have counted to the load of one model version: differences, windows, percentiles. Pure but for what it remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .figures import WAIT_BOUNDS_MS
from .scaling import Load

__all__ = ["Observer", "percentile_ms"]

WAIT_SPAN_S = 2.0
BUSY_SPAN_S = 3.0
COST_SPAN_S = 30.0
HIGH = 0.95


@dataclass(slots=True)
class _Step:
    end: float
    period_s: float
    arrived: int = 0
    texts: int = 0
    busy_s: float = 0.0
    ready: int = 0
    waits: tuple[int, ...] = ()


def percentile_ms(waits: Iterable[int], share: float) -> float:
    """The wait that so many texts did not exceed: the upper bound of its class, 0 without texts.

    >>> percentile_ms([0, 90, 10], 0.9), percentile_ms([0, 90, 10], 0.95), percentile_ms([], 0.95)
    (1.25, 1.562, 0.0)
    """
    counts = list(waits)
    left = share * sum(counts)
    if not left:
        return 0.0
    for at, n in enumerate(counts):
        left -= n
        if left <= 1e-9:
            return WAIT_BOUNDS_MS[min(at, len(WAIT_BOUNDS_MS) - 1)]
    return WAIT_BOUNDS_MS[-1]


class Observer:
    """Of one model version."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, Any]] = {}
        self._steps: deque[_Step] = deque()
        self._at: float | None = None

    def see(self, said: Mapping[str, Mapping[str, Any]], now: float, start_s: float = 0.0) -> Load:
        """The load since the last call; what a gateway had counted before it was first heard is no load.

        Args:
            said: by gateway, its latest figures of this model version.
            now: seconds of a clock that never goes back.
            start_s: what starting a replica took; 0: not seen.
        """
        step = _Step(now, now - self._at if self._at is not None else 0.0)
        waits = [0] * (len(WAIT_BOUNDS_MS) + 1)
        for gateway, figures in said.items():
            step.ready = max(step.ready, figures["ready"])
            before = self._last.get(gateway)
            if before is None:
                continue
            anew = figures["texts"] < before["texts"] or figures["asked"] < before["asked"]  # it was started again
            step.arrived += figures["asked"] - (0 if anew else before["asked"])
            step.texts += figures["texts"] - (0 if anew else before["texts"])
            step.busy_s += max(0.0, figures["busy_s"] - (0.0 if anew else before["busy_s"]))
            for i, n in enumerate(figures["waits"]):
                waits[i] += n - (0 if anew else before["waits"][i])
        step.waits = tuple(waits)
        self._last, self._at = dict(said), now
        self._steps.append(step)
        while now - self._steps[0].end > COST_SPAN_S:
            self._steps.popleft()
        return self._load(said, step, now, start_s)

    def _load(self, said: Mapping[str, Mapping[str, Any]], step: _Step, now: float, start_s: float) -> Load:
        lately = [s for s in self._steps if now - s.end < WAIT_SPAN_S]
        waits = [sum(column) for column in zip(*(s.waits for s in lately), strict=True)]
        wait_ms = percentile_ms(waits, HIGH)
        waiting = sum(f["waiting"] for f in said.values())
        if waiting > (1 - HIGH) * (sum(waits) + waiting):
            wait_ms = max(wait_ms, *(f["oldest_ms"] for f in said.values()))
        working = [s for s in self._steps if now - s.end < BUSY_SPAN_S]
        there_s = sum(s.period_s * s.ready for s in working)
        texts, busy_s = sum(s.texts for s in self._steps), sum(s.busy_s for s in self._steps)
        return Load(
            period_s=step.period_s,
            arrived=step.arrived,
            waiting=waiting,
            in_flight=sum(f["in_flight"] for f in said.values()),
            wait_p95_ms=wait_ms,
            text_s=busy_s / texts if texts else 0.0,
            busy=min(1.0, sum(s.busy_s for s in working) / there_s) if there_s else 0.0,
            ready=step.ready,
            start_s=start_s,
        )
