"""Regular expressions as automata over code points: what may come next, and how soon it can end. Knows nothing of JSON or tokens.

A safe part of ECMA-262: literals, classes, groups, alternatives, bounded and unbounded repetition, ``^`` and ``$`` at the ends. Every step is a walk
over at most ``STATES_MAX`` states, whatever the pattern: nothing is ever tried twice.

Source: Thompson 1968.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Pattern", "UnsupportedPattern"]

STATES_MAX = 1000
LENGTH_MAX = 1000
NESTING_MAX = 30
LAST = 0x10FFFF
NEVER = 1 << 40
"""Bytes of what cannot be written."""
Ranges = tuple[tuple[int, int], ...]
_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 13), (32, 32), (160, 160), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF))
_NAMED = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


class UnsupportedPattern(ValueError):
    """The pattern is wrong, too large, or uses what is not kept."""


def _but(ranges: Ranges) -> Ranges:
    """Everything else."""
    found: list[tuple[int, int]] = []
    at = 0
    for low, high in sorted(ranges):
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    return (*found, (at, LAST)) if at <= LAST else tuple(found)


_ANY = _but(((10, 10), (13, 13), (0x2028, 0x2029)))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE, "D": _but(_DIGIT), "W": _but(_WORD), "S": _but(_SPACE)}


@dataclass(slots=True)
class _State:
    free: list[int] = field(default_factory=list[int])
    """States reached without a character."""
    ranges: Ranges = ()
    to: int = -1


class Pattern:
    """A compiled pattern; a set of its states is a frozenset.

    Args:
        source: as JSON Schema gives it; what is not tied to an end by ``^`` or ``$`` may stand anywhere.
        cost: bytes that a code point takes where it is written; ``NEVER`` where it cannot be.

    Raises:
        UnsupportedPattern: with what is in the way.
    """

    def __init__(self, source: str, cost: Callable[[int, int], int]) -> None:
        if len(source) > LENGTH_MAX:
            raise UnsupportedPattern("length")
        self._states: list[_State] = []
        self._source, self._at, self._nesting = source, 0, 0
        self._end = self._new()
        first = self._new()
        for begin, end in self._whole():
            self._states[first].free.append(begin)
            self._states[end].free.append(self._end)
        self._left = self._distances(cost)
        self.start = self._closed({first})

    # ---- running

    def after(self, states: frozenset[int], low: int, high: int) -> frozenset[int]:
        """States behind some character in ``[low, high]``."""
        found: set[int] = set()
        for number in states:
            state = self._states[number]
            if state.to >= 0 and any(a <= high and b >= low for a, b in state.ranges):
                found.add(state.to)
        return self._closed(found)

    def accepts(self, states: frozenset[int]) -> bool:
        """Whether the text may end here."""
        return self._end in states

    def left(self, states: frozenset[int]) -> int:
        """Bytes of the cheapest end; ``NEVER`` if there is none."""
        return min((self._left[number] for number in states), default=NEVER)

    def _closed(self, states: set[int]) -> frozenset[int]:
        open_states = list(states)
        while open_states:
            for number in self._states[open_states.pop()].free:
                if number not in states:
                    states.add(number)
                    open_states.append(number)
        return frozenset(n for n in states if self._left[n] < NEVER)

    def _distances(self, cost: Callable[[int, int], int]) -> list[int]:
        """Bytes from each state to the end."""
        behind: list[list[tuple[int, int]]] = [[] for _ in self._states]
        for number, state in enumerate(self._states):
            for to in state.free:
                behind[to].append((number, 0))
            if state.to >= 0:
                behind[state.to].append((number, min((cost(a, b) for a, b in state.ranges), default=NEVER)))
        left = [NEVER] * len(self._states)
        left[self._end] = 0
        queue = [(0, self._end)]
        while queue:
            far, number = heapq.heappop(queue)
            if far == left[number]:
                for before, step in behind[number]:
                    if far + step < left[before]:
                        left[before] = far + step
                        heapq.heappush(queue, (far + step, before))
        return left

    # ---- compiling: each part is (its first state, its last state)

    def _new(self) -> int:
        if len(self._states) >= STATES_MAX:
            raise UnsupportedPattern("size")
        self._states.append(_State())
        return len(self._states) - 1

    def _one(self, ranges: Ranges) -> tuple[int, int]:
        begin, end = self._new(), self._new()
        self._states[begin].ranges, self._states[begin].to = ranges, end
        return begin, end

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        found = self._source.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _whole(self) -> list[tuple[int, int]]:
        parts: list[tuple[int, int]] = []
        while True:
            tied = self._take("^")
            begin, end = self._sequence()
            if not tied:
                begin = self._joined(self._repeated_any(), (begin, end))[0]
            if not self._take("$"):
                end = self._joined((begin, end), self._repeated_any())[1]
            parts.append((begin, end))
            if not self._take("|"):
                break
        if self._at < len(self._source):
            raise UnsupportedPattern(self._peek())
        return parts

    def _repeated_any(self) -> tuple[int, int]:
        begin, end = self._one(((0, LAST),))
        self._states[end].free.append(begin)
        state = self._new()
        self._states[state].free.append(begin)
        last = self._new()
        self._states[state].free.append(last)
        self._states[end].free.append(last)
        return state, last

    def _joined(self, one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        self._states[one[1]].free.append(other[0])
        return one[0], other[1]

    def _empty(self) -> tuple[int, int]:
        state = self._new()
        return state, state

    def _sequence(self) -> tuple[int, int]:
        part = self._empty()
        while self._at < len(self._source) and self._peek() not in "|)$":
            part = self._joined(part, self._repeated())
        return part

    def _alternatives(self) -> tuple[int, int]:
        begin, end = self._new(), self._new()
        while True:
            one = self._sequence()
            if self._peek() == "$":
                raise UnsupportedPattern("$")
            self._states[begin].free.append(one[0])
            self._states[one[1]].free.append(end)
            if not self._take("|"):
                return begin, end

    def _repeated(self) -> tuple[int, int]:
        at = self._at
        part = self._atom()
        behind = self._at
        least, most = self._times()
        if (least, most) == (1, 1):
            return part
        after = self._at
        whole, copies = self._empty(), 0
        while copies < max(least, most or 0, least + (most is None)):
            if copies:
                self._at = at  # each copy is read anew: its states are its own
                part = self._atom()
                assert self._at == behind
            begin, end = part
            if copies >= least:
                skip = self._new()
                self._states[begin := self._before(begin)].free.append(skip)
                self._states[end].free.append(skip)
                if most is None:
                    self._states[end].free.append(part[0])
                end = skip
            whole = self._joined(whole, (begin, end))
            copies += 1
        self._at = after
        return whole

    def _before(self, state: int) -> int:
        begin = self._new()
        self._states[begin].free.append(state)
        return begin

    def _times(self) -> tuple[int, int | None]:
        found: tuple[int, int | None] = (1, 1)
        if self._take("*"):
            found = (0, None)
        elif self._take("+"):
            found = (1, None)
        elif self._take("?"):
            found = (0, 1)
        elif self._take("{"):
            end = self._source.find("}", self._at)
            low, comma, high = self._source[self._at : end].partition(",")
            if end < 0 or not low.isdecimal() or (high and not high.isdecimal()) or len(low) > 4 or len(high) > 4:
                raise UnsupportedPattern("{")
            self._at = end + 1
            found = (int(low), (int(high) if high else None) if comma else int(low))
            if found[1] is not None and found[1] < found[0]:
                raise UnsupportedPattern("{")
        else:
            return found
        self._take("?")  # lazy or greedy: the same texts
        if self._peek() and self._peek() in "*+?{":
            raise UnsupportedPattern(self._peek())
        return found

    def _atom(self) -> tuple[int, int]:
        if self._take("(?:") or self._take("("):
            self._nesting += 1
            if self._peek() == "?" or self._nesting > NESTING_MAX:
                raise UnsupportedPattern("(?" if self._peek() == "?" else "(")
            part = self._alternatives()
            if not self._take(")"):
                raise UnsupportedPattern("(")
            self._nesting -= 1
            return part
        if self._take("["):
            return self._one(self._class())
        if self._take("."):
            return self._one(_ANY)
        if self._take("\\"):
            return self._one(self._escaped())
        char = self._peek()
        if char in "*+?{}])^":
            raise UnsupportedPattern(char)
        self._at += 1
        return self._one(((ord(char), ord(char)),))

    def _escaped(self) -> Ranges:
        char = self._peek()
        self._at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if char in {"x", "u"}:
            digits = self._source[self._at : self._at + (2 if char == "x" else 4)]
            if len(digits) != (2 if char == "x" else 4) or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise UnsupportedPattern(f"\\{char}")
            self._at += len(digits)
            return ((int(digits, 16), int(digits, 16)),)
        if char in _NAMED and not (char == "0" and self._peek().isdecimal()):
            return ((_NAMED[char], _NAMED[char]),)
        if not char or char.isalnum():
            raise UnsupportedPattern(f"\\{char}")
        return ((ord(char), ord(char)),)

    def _class(self) -> Ranges:
        others = self._take("^")
        found: list[tuple[int, int]] = []
        while not self._take("]"):
            if not self._peek():
                raise UnsupportedPattern("[")
            low = self._member()
            if self._peek() == "-" and self._source[self._at + 1 : self._at + 2] not in {"]", ""}:
                self._at += 1
                high = self._member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1] or high[0][0] < low[0][0]:
                    raise UnsupportedPattern("[")
                low = ((low[0][0], high[0][0]),)
            found += low
        return _but(tuple(found)) if others else tuple(found)

    def _member(self) -> Ranges:
        if self._take("\\"):
            return ((8, 8),) if self._take("b") else self._escaped()
        char = self._peek()
        self._at += 1
        return ((ord(char), ord(char)),)
