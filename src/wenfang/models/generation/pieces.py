"""Pieces of a source put together: every way that is best under some price of length and of cutting. Knows nothing of learning.

A kept unit is worth its chance of standing in the target less a price; beginning and ending a piece cost what cutting there costs. For
each of K price lists the best choice is found by dynamic programming, all lists at once. The price of a unit is what makes the expected
overlap F largest at its optimum (Dinkelbach 1967), so a handful of prices around it cover what is worth considering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .units import Units

__all__ = ["Choice", "Prices", "choices_of"]

Doubles = npt.NDArray[np.float64]
Piece = tuple[int, int]
"""Units ``[start, end)``."""
REPAIRS = 3
"""Times a choice is made again without what it says twice."""


@dataclass(frozen=True, slots=True)
class Prices:
    """K price lists."""

    unit: Doubles
    cut: Doubles
    """Of beginning and of ending a piece."""
    trust: Doubles
    """How much the learned odds of beginning and ending move that."""

    @classmethod
    def grid(cls, units: Sequence[float], cuts: Sequence[float], trusts: Sequence[float]) -> Prices:
        """Every combination."""
        all_of = np.array([(u, c, t) for u in units for c in cuts for t in trusts])
        return cls(all_of[:, 0], all_of[:, 1], all_of[:, 2])


@dataclass(frozen=True, slots=True)
class Choice:
    """Pieces in the order of the source."""

    pieces: tuple[Piece, ...]

    def units(self) -> list[int]:
        """Numbers of all units."""
        return [i for a, b in self.pieces for i in range(a, b)]


def choices_of(units: Units, odds: Doubles, prices: Prices) -> list[Choice]:
    """The different best choices under all price lists.

    Args:
        units: T of them.
        odds: log odds of being kept, beginning, ending, shape (T, 3).
        prices: K lists.

    Cost: O(T K); 200 units under 40 lists take about 5 ms.
    """
    T, K = len(units), len(prices.unit)
    chance = np.repeat(1 / (1 + np.exp(-odds[:, :1])), K, axis=1)
    chance[units.mark] = -1e6
    begin, end = (np.minimum(0.0, prices.trust * np.clip(odds[:, h : h + 1], -6, 2) - prices.cut) for h in (1, 2))  # never a gain: else a piece would fall apart
    settled: dict[tuple[Piece, ...], None] = {}
    open_lists = np.arange(K)
    for _ in range(REPAIRS):
        found = _best(chance[:, open_lists] - prices.unit[open_lists], begin[:, open_lists], end[:, open_lists])
        again: list[int] = []
        for k, pieces in zip(open_lists.tolist(), found, strict=True):
            repeated = _repeated(units, pieces, chance[:, k])
            if repeated:
                chance[repeated, k] = 0.0
                again.append(k)
            elif pieces:
                settled[pieces] = None
        open_lists = np.array(again, np.intp)
        if not len(open_lists) or not T:
            break
    return [Choice(p) for p in settled]


def _best(worth: Doubles, begin: Doubles, end: Doubles) -> list[tuple[Piece, ...]]:
    T, K = worth.shape
    inside, outside = np.full(K, -1e9), np.zeros(K)
    begun, ended = np.zeros((T, K), np.bool_), np.zeros((T, K), np.bool_)
    for i in range(T):
        fresh = outside + begin[i]
        begun[i] = fresh > inside
        inside = np.maximum(fresh, inside) + worth[i]
        closed = inside + end[i]
        ended[i] = closed > outside
        outside = np.maximum(closed, outside)
    return [_traced(begun[:, k], ended[:, k]) for k in range(K)]


def _traced(begun: npt.NDArray[np.bool_], ended: npt.NDArray[np.bool_]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    i = len(begun) - 1
    while i >= 0:
        if not ended[i]:
            i -= 1
            continue
        stop = i + 1
        while not begun[i]:
            i -= 1
        pieces.append((i, stop))
        i -= 1
    return tuple(pieces[::-1])


def _repeated(units: Units, pieces: tuple[Piece, ...], chance: Doubles) -> list[int]:
    """Units that say what another piece says better: pairs that stand in two pieces."""
    where: dict[tuple[str, str], int] = {}
    worse: list[int] = []
    for a, b in pieces:
        for i in range(a, b - 1):
            pair = (units.words[i], units.words[i + 1])
            other = where.get(pair)
            if other is None:
                where[pair] = i
            elif other + 1 < a or i > other + 1:
                lost = i if chance[i] + chance[i + 1] <= chance[other] + chance[other + 1] else other
                where[pair] = other if lost == i else i
                worse += [lost, lost + 1]
    return worse
