"""Numbers between two bounds, digit by digit: whether some number still fits, and how soon. Knows nothing of JSON or tokens."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

__all__ = ["DIGITS_MAX", "Bounds"]

DIGITS_MAX = 15
"""Of the whole part and of the fraction: what every reader of JSON keeps exactly."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number must keep; None: no bound."""

    whole: bool
    """No fraction."""
    low: Fraction | None = None
    high: Fraction | None = None
    above: bool = False
    """The low bound itself is out."""
    below: bool = False
    """The high bound itself is out."""

    def left(self, text: str) -> int | None:
        """Characters missing of the shortest number that begins with ``text``; None: there is none.

        Cost: at most 256 comparisons of exact fractions, kept.
        """
        if self.low is None and self.high is None:
            return 0 if text[-1:].isdecimal() else 1
        return _left(self, text)

    def negated(self) -> Bounds:
        """Of the numbers without their minus."""
        return Bounds(self.whole, None if self.high is None else -self.high, None if self.low is None else -self.low, self.below, self.above)

    def any_with(self, low: Fraction, high: Fraction, digits: int) -> bool:
        """Whether a number of so many digits behind the point lies in ``[low, high]`` and in the bounds."""
        scale = 10**digits
        first, last = ceil(low * scale), floor(high * scale)
        if self.low is not None:
            bound = self.low * scale
            first = max(first, floor(bound) + 1 if self.above else ceil(bound))
        if self.high is not None:
            bound = self.high * scale
            last = min(last, ceil(bound) - 1 if self.below else floor(bound))
        return first <= last


@lru_cache(maxsize=4096)
def _left(bounds: Bounds, text: str) -> int | None:
    if not text:
        found = [1 + n for n in (_left(bounds, c) for c in "-0123456789") if n is not None]
        return min(found, default=None)
    if text[0] == "-":
        if len(text) == 1:
            found = [1 + n for n in (_left(bounds, f"-{c}") for c in "0123456789") if n is not None]
            return min(found, default=None)
        bounds, text = bounds.negated(), text[1:]
    if "." in text:
        whole, _, fraction = text.partition(".")
        low = Fraction(int(whole + fraction), 10 ** len(fraction))
        for more in range(not fraction, DIGITS_MAX - len(fraction) + 1):
            digits = len(fraction) + more
            if bounds.any_with(low, low + Fraction(1, 10 ** len(fraction)) - Fraction(1, 10**digits), digits):
                return more
        return None
    best: int | None = None
    for more in range(0 if text == "0" else DIGITS_MAX - len(text), -1, -1):
        low, high = Fraction(int(text) * 10**more), Fraction((int(text) + 1) * 10**more)
        for digits in range(1 if bounds.whole else DIGITS_MAX + 1):
            if bounds.any_with(low, high - Fraction(1, 10**digits), digits):
                cost = more + (1 + digits if digits else 0)
                best = cost if best is None else min(best, cost)
                break
    return best
