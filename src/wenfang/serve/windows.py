"""Which bounds of a scaling hold at a time, and whether its windows can be understood. Pure functions; knows no clock."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from wenfang.core.errors import Invalid
from wenfang.core.registry import nearest
from wenfang.core.scaling import Scaling, Window

__all__ = ["Bounds", "bounds_at", "check_windows"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES


class Bounds(NamedTuple):
    """Replicas at least and at most, and the window that says so (empty: none)."""

    min: int
    max: int
    window: str = ""


@lru_cache(maxsize=1024)
def _spans(days: str, start: str, end: str) -> tuple[tuple[int, int], ...]:
    """``[from, to)`` in minutes of the week, which may reach into the next.

    Raises:
        ValueError: the field that cannot be read.
    """
    first, last = _minute(start, "start"), _minute(end, "end")
    if first == DAY_MINUTES:
        raise ValueError("start", start)
    if last <= first:
        last += DAY_MINUTES
    return tuple((day * DAY_MINUTES + first, day * DAY_MINUTES + last) for day in sorted(_days(days)))


def _minute(text: str, field: str) -> int:
    hours, colon, minutes = text.partition(":")
    if not (colon and hours.isdecimal() and minutes.isdecimal() and hours.isascii() and minutes.isascii() and len(hours) <= 2 and len(minutes) == 2 and int(minutes) < 60):
        raise ValueError(field, text)
    found = int(hours) * 60 + int(minutes)
    if found > DAY_MINUTES:
        raise ValueError(field, text)
    return found


def _days(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError("days", text)
        at = DAYS.index(first)
        n = (DAYS.index(last) - at) % 7 if dash else 0
        found |= {(at + i) % 7 for i in range(n + 1)}
    return found


def _covered(window: Window) -> set[int]:
    return {minute % WEEK_MINUTES for first, last in _spans(window.days, window.start, window.end) for minute in range(first, last)}


def check_windows(scaling: Scaling) -> None:
    """Return if time zone and windows can be understood and no two windows hold at once.

    Raises:
        Invalid: `scaling.unknown-time-zone`, `scaling.bad-window`, `scaling.windows-overlap`, `scaling.window-twice`, `scaling.min-over-max`.
    """
    try:
        ZoneInfo(scaling.time_zone)
    except (KeyError, ValueError, OSError) as e:
        raise Invalid("scaling.unknown-time-zone", zone=scaling.time_zone, near=nearest(scaling.time_zone, sorted(available_timezones()))) from e
    taken: dict[int, str] = {}
    seen: set[str] = set()
    for window in scaling.windows:
        if window.name in seen:
            raise Invalid("scaling.window-twice", window=window.name)
        seen.add(window.name)
        if window.min > window.max:
            raise Invalid("scaling.min-over-max", min=window.min, max=window.max, where=window.name)
        try:
            minutes = _covered(window)
        except ValueError as e:
            raise Invalid("scaling.bad-window", window=window.name, field=e.args[0], value=e.args[1]) from e
        if other := next((taken[m] for m in sorted(minutes) if m in taken), None):
            raise Invalid("scaling.windows-overlap", window=window.name, other=other)
        taken.update(dict.fromkeys(minutes, window.name))


def bounds_at(scaling: Scaling, at: datetime) -> Bounds:
    """The bounds that hold at a time (aware): those of the window it falls into, else the scaling's own.

    >>> night = Window(name="night", start="22:00", end="06:00", min=0, max=1)
    >>> bounds_at(Scaling(min=1, max=4, windows=(night,)), datetime.fromisoformat("2026-01-02T23:30:00+00:00"))
    Bounds(min=0, max=1, window='night')
    """
    if scaling.windows:
        local = at.astimezone(ZoneInfo(scaling.time_zone))
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        for window in scaling.windows:
            if any(first <= m < last for first, last in _spans(window.days, window.start, window.end) for m in (minute, minute + WEEK_MINUTES)):
                return Bounds(window.min, window.max, window.name)
    return Bounds(scaling.min, scaling.max)
