"""Whose text is next: the higher class first, and inside a class every asker in turn, however much one of them asks.

Source: start-time fair queueing (Goyal, Vin and Cheng 1997): an item's tag is its asker's last tag, or the tag now being served where
that is later, plus one.
"""

from __future__ import annotations

from bisect import bisect_left, insort_right
from collections import Counter
from collections.abc import Sequence

from .batching import Item

__all__ = ["RANKS", "Turns"]

RANKS = {"interactive": 0, "online": 1, "batch": 2}
"""Classes, the most urgent first."""
KNOWN_MAX = 4096
"""Askers that are remembered between their texts."""


def _turn(item: Item) -> tuple[int, float]:
    return item.turn


class Turns:
    """Keeps a list of waiting items in the order of their turns."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, str], float] = {}
        self._now = [0.0] * len(RANKS)

    def line_up(self, waiting: list[Item], items: Sequence[Item], owner: str, rank: int) -> None:
        """Put new items where their turn is.

        Args:
            waiting: in order of turns; changed.
            items: of one request.
            owner: who asks.
            rank: value of ``RANKS``.

        Cost: appending when nobody else waits; else O(log n) comparisons and a move of n pointers for each item.
        """
        tag = max(self._now[rank], self._last.get((rank, owner), 0.0))
        for item in items:
            tag += 1.0
            item.turn, item.owner = (rank, tag), owner
        if len(self._last) >= KNOWN_MAX:  # whoever was served long ago begins like a newcomer anyway
            self._last = {key: last for key, last in self._last.items() if last > self._now[key[0]]}
        self._last[rank, owner] = tag
        if items and (not waiting or waiting[-1].turn <= items[0].turn):
            waiting.extend(items)
        else:
            for item in items:
                insort_right(waiting, item, key=_turn)

    def served(self, batch: Sequence[Item]) -> None:
        """The first of a batch was the next."""
        rank, tag = batch[0].turn
        if rank >= 0 and tag > self._now[rank]:
            self._now[rank] = tag

    @staticmethod
    def ahead(waiting: list[Item], rank: int) -> int:
        """How many waiting items are of the same class or a higher one."""
        if not waiting or waiting[-1].turn[0] <= rank:
            return len(waiting)
        return bisect_left(waiting, (rank + 1,), key=_turn)

    @staticmethod
    def share_left(waiting: Sequence[Item], owner: str) -> float:
        """How many more items ``owner`` may have among those waiting until it has as many as everybody else on average.

        Cost: O(n); asked only when somebody must be refused.
        """
        counts = Counter(item.owner for item in waiting)
        mine = counts.pop(owner, 0)
        return sum(counts.values()) / len(counts) - mine if counts else float("-inf")
