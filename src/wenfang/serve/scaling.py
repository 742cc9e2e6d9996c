"""How many replicas there shall be, and why: a pure engine. What gateways say, the scaling, the time in; a count and its reason out. No clock, no process, no store.

Load is measured in replicas' time: texts a second times what one takes a replica. That is asked for with room to spare, a queue is asked
to be gone soon, and what the target names is compared with what was seen; the most of these is needed. Up goes at once, down
only what has sufficed for a while.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wenfang.core.scaling import Scaling, Target

from .windows import Bounds

__all__ = ["Decision", "Load", "Scaler", "forecast_per_s", "needs", "rate_per_s"]

WORK_SHARE = 0.8
"""Of their time replicas may work when the target does not say it: above, queues grow faster than they are looked at."""
QUEUE_MS = 100.0
"""The target where none is named."""
ENOUGH = 20
"""Texts that tell a rate; fewer are looked at over a longer time."""
SPANS_S = (1.0, 2.0, 4.0, 8.0)
TREND_S = 10.0
SURE = 3.0
"""A trend counts when it is so many times its standard error."""
LEAP = 1.5
"""A trend forecasts at most so many times what was seen."""
DRAIN_S = 2.0
"""A queue that stands shall be gone in this time, or in that of the target where it is longer: replicas do not start faster."""
SETTLE_S = 3.0
"""So long after a step up waits are those of before."""
SHORT_SHARE = 0.85
SHORT_FOR_S = 600.0
"""A count that was too few at some rate is not gone back to above this share of it, for so long."""


@dataclass(frozen=True, slots=True)
class Load:
    """What gateways say of one model version since they said so last."""

    period_s: float
    arrived: int = 0
    """Texts that needed a replica, refused ones too."""
    waiting: float = 0.0
    in_flight: float = 0.0
    wait_p95_ms: float = 0.0
    """Of texts that went to a replica lately, and of those that still wait."""
    text_s: float = 0.0
    """Replica time of one text, lately; 0: nothing is known."""
    busy: float = 0.0
    """Share of their time in which replicas that answer had work."""
    ready: int = 0
    start_s: float = 0.0
    """What starting a replica took; 0: not seen."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A count of replicas, and why."""

    present: int
    wanted: int
    reason: str
    """``scaling.why-…`` of the catalogue."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of its sentence."""

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return self.wanted != self.present


def rate_per_s(samples: Sequence[tuple[float, float, int]], now: float) -> float:
    """Texts a second: the highest over the last 1, 2, 4, 8 seconds, of which only the longest may hold few texts.

    Args:
        samples: (end, seconds, texts), oldest first.
        now: end of the last.

    >>> rate_per_s([(1.0, 1.0, 100), (2.0, 1.0, 30)], 2.0), rate_per_s([(1.0, 1.0, 4)], 1.0)
    (65.0, 4.0)
    """
    best = 0.0
    for span in SPANS_S:
        inside = [(seconds, texts) for end, seconds, texts in samples if now - end < span - 1e-9]
        texts, seconds = sum(t for _, t in inside), sum(s for s, _ in inside)
        if seconds > 0 and (texts >= ENOUGH or span == SPANS_S[-1]):
            best = max(best, texts / max(seconds, SPANS_S[0]))
    return best


def forecast_per_s(samples: Sequence[tuple[float, float, int]], now: float, ahead_s: float) -> float:
    """The rate some seconds from now: what it is, or what a rise that can be told from chance leads to; never below what it is.

    Args:
        samples: as of ``rate_per_s``.
        now: end of the last.
        ahead_s: how far.

    >>> steady = [(float(i), 1.0, 50) for i in range(10)]; rising = [(float(i), 1.0, 50 + 10 * i) for i in range(10)]
    >>> forecast_per_s(steady, 9.0, 2.0), forecast_per_s(rising, 9.0, 2.0)
    (50.0, 160.0)
    """
    rate = rate_per_s(samples, now)
    points = [(end - now, texts / seconds) for end, seconds, texts in samples if now - end < TREND_S and seconds > 0]
    trends = [_trend(points), _trend([p for p in points if p[0] > -TREND_S / 2])]  # a step is none: its second half is level
    slope = min(trends)
    if slope <= 0:
        return rate
    return round(max(rate, min(rate + slope * ahead_s, LEAP * rate)), 6)


def _trend(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the line through points, 0 when it cannot be told from chance."""
    if len(points) < 5:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope if spread and slope > SURE * math.sqrt(rest / (len(points) - 2) / spread) else 0.0


def needs(target: Target, load: Load, per_s: float, present: int, *, settled: bool = True) -> dict[str, float]:
    """Replicas that each signal asks for, not rounded.

    Args:
        target: of the scaling.
        load: as seen.
        per_s: texts a second to be ready for.
        present: replicas there are.
        settled: they have been there for a while: what waits, waits in spite of them.
    """
    queue_ms = target.queue_ms or (QUEUE_MS if target.busy is None and target.in_flight is None else None)
    work = per_s * load.text_s
    found = {"work": work / (target.busy or WORK_SHARE)}
    if queue_ms is not None:
        found["queue"] = work + load.waiting * load.text_s / max(queue_ms / 1000, DRAIN_S)
        if settled and load.wait_p95_ms > queue_ms:
            found["wait"] = present + 1.0
    if target.busy is not None:
        found["busy"] = load.busy * load.ready / target.busy
    if target.in_flight is not None:
        found["in_flight"] = (load.waiting + load.in_flight) / target.in_flight
    return found


class Scaler:
    """Decides for one service; remembers what it saw.

    Args:
        now: seconds of a clock that never goes back; nothing goes down before the cool-down has passed since.
    """

    def __init__(self, now: float) -> None:
        self.changed_at = self.asked_at = now
        self.up_at = -math.inf
        self._samples: deque[tuple[float, float, int]] = deque()
        self._needed: deque[tuple[float, int]] = deque()
        self._short: dict[int, tuple[float, float]] = {}
        """By count: (when, texts a second) at which it was too few though its time seemed to suffice."""

    def decide(self, scaling: Scaling, load: Load, now: float, *, present: int, bounds: Bounds, pays: tuple[int, str], held: bool = False) -> Decision:
        """How many there shall be now.

        Args:
            scaling: what was asked for.
            load: since the last call.
            now: of the clock.
            present: replicas there are, those on their way too.
            bounds: that hold now.
            pays: replicas the budget has room for, and which part of it is short.
            held: somebody needs one whom gateways do not see.
        """
        rate = self._see(load, now)
        per_s = forecast_per_s(self._samples, now, load.start_s or 2.0)
        if load.arrived or load.waiting or load.in_flight or held:
            self.asked_at = now
        low, high = bounds.min, max(bounds.min, min(bounds.max, pays[0]))
        settled = load.ready >= present and now - self.up_at >= SETTLE_S
        signals = needs(scaling.target, load, per_s, present, settled=settled)
        signal = max(signals, key=lambda name: signals[name])
        needed = math.ceil(signals[signal] - 1e-9)
        idle_s = now - self.asked_at
        fields: dict[str, Any] = {"per_s": round(rate, 1), "forecast_per_s": round(per_s, 1), "text_ms": round(1000 * load.text_s, 2), "waiting": round(load.waiting)}
        fields |= {"wait_ms": round(load.wait_p95_ms), "busy": round(load.busy, 2), "in_flight": round(load.waiting + load.in_flight, 1), "idle_s": round(idle_s)}
        fields |= {"needed": needed, "min": low, "max": high, "window": bounds.window, "part": f"budget.{pays[1]}"}
        reason = f"why-{signal}"
        if not low:
            needed, reason = self._or_none(scaling, load, needed, reason, idle_s=idle_s, present=present)
            fields |= {"needed": needed, "start_s": round(load.start_s, 1), "bound_s": scaling.cold_start_s}
        wanted = max(low, min(high, needed))
        if wanted > needed:
            reason = "why-window" if bounds.window else "why-min"
        elif wanted < needed:
            reason = "why-budget" if pays[0] < bounds.max else "why-window-max" if bounds.window else "why-max"
        self._needed.append((now, wanted))
        return self._step(scaling, now, present, wanted, bounds=(low, high), rate=rate, reason=reason, fields=fields, signal=signal)

    def _or_none(self, scaling: Scaling, load: Load, needed: int, reason: str, *, idle_s: float, present: int) -> tuple[int, str]:
        """Where none may do: one as long as somebody asks, or where starting one takes too long."""
        if not present:
            return (max(needed, 1), "why-woken") if idle_s <= 0 else (0, "why-idle")
        if idle_s < scaling.idle_s:
            return (needed, reason) if needed >= 1 else (1, "why-asked")
        return (1, "why-slow-start") if load.start_s > scaling.cold_start_s else (0, "why-idle")

    def _see(self, load: Load, now: float) -> float:
        self._samples.append((now, max(load.period_s, 1e-3), load.arrived))
        while self._samples and now - self._samples[0][0] > max(TREND_S, SPANS_S[-1]):
            self._samples.popleft()
        return rate_per_s(self._samples, now)

    def _step(self, scaling: Scaling, now: float, present: int, wanted: int, *, bounds: tuple[int, int], rate: float, reason: str, fields: dict[str, Any], signal: str) -> Decision:
        cooldown, (low, high) = scaling.cooldown, bounds
        while len(self._needed) > 1 and now - self._needed[0][0] > cooldown.down_s:
            self._needed.popleft()
        if wanted > present:
            if present > 0 and low <= present and now - self.up_at < cooldown.up_s:
                return Decision(present, present, "why-cooling-up", fields)
            if signal == "wait" and present:
                self._short[present] = (now, rate)
            self.changed_at = self.up_at = now
        elif wanted < present:
            lately = max(count for _, count in self._needed)
            goal = max(wanted, lately) if present <= high else min(high, max(wanted, lately))
            goal = self._not_short(goal, min(present, high), rate, now)
            if goal >= present or (present <= high and now - self.changed_at < cooldown.down_s):
                return Decision(present, present, "why-cooling-down" if goal < present or lately > wanted else "why-was-short", fields | {"lately": lately})
            wanted = goal
            self.changed_at = now
        return Decision(present, wanted, reason, fields)

    def _not_short(self, goal: int, most: int, rate: float, now: float) -> int:
        """The smallest count from ``goal`` on that was not too few at such a rate."""
        while goal < most and goal in self._short:
            at, per_s = self._short[goal]
            if now - at > SHORT_FOR_S or rate < SHORT_SHARE * per_s:
                return goal
            goal += 1
        return goal
