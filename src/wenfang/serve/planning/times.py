"""What was measured, as the simulation wants it: how long a batch takes by size and length, and what one host gives to those who compute on it.

Plain values and arithmetic; knows nothing of processes or clocks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HostModel", "ServiceTimes"]


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """Milliseconds of a batch: a table over texts in the batch and code points of a text, straight lines between.

    Args:
        sizes: texts in a batch, rising; at least one.
        lengths: code points of every text, rising; at least one.
        ms: by size, then by length.
        padded: 1: each text costs what the longest costs; 0: what it costs alone; measured with texts of all lengths together.
        spread: measured / expected of real batches, in any order; each batch draws one.
        cpu_share: processor time of a batch by its time; near 0 for a model that waits for another machine.
    """

    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    padded: float = 1.0
    spread: tuple[float, ...] = (1.0,)
    cpu_share: float = 1.0

    def batch_ms(self, lengths: Sequence[int]) -> float:
        """Expected time of a batch of texts of these lengths.

        >>> round(ServiceTimes((1, 4), (10, 30), ((2.0, 4.0), (5.0, 11.0))).batch_ms([20, 30]), 4)
        6.3333
        """
        longest, n = max(lengths), len(lengths)
        length = self.padded * longest + (1 - self.padded) * (sum(lengths) / n)
        row, part = _between(self.sizes, n)
        ms = self._of_length(row, length)
        if part:
            ms += part * (self._of_length(row + 1, length) - ms)
        return max(ms, 0.0001)

    def _of_length(self, row: int, length: float) -> float:
        at, part = _between(self.lengths, length)
        ms = self.ms[row]
        return ms[at] + part * (ms[at + 1] - ms[at]) if part else ms[at]


def _between(known: Sequence[int], value: float) -> tuple[int, float]:
    """The place below ``value`` and the part of the way to the next; beyond either end the outer line goes on."""
    if len(known) == 1:
        return 0, 0.0
    at = min(max(bisect_right(known, value) - 1, 0), len(known) - 2)
    part = (value - known[at]) / (known[at + 1] - known[at])
    return (at + 1, 0.0) if part == 1.0 and at + 2 == len(known) else (at, part)


@dataclass(frozen=True, slots=True)
class HostModel:
    """One machine: its cores, and what stands between a client and a replica.

    Args:
        cores: processors that may be used.
        speeds: how fast each of 1, 2, … computing processes is beside one alone; more than are listed go like the last.
        request_ms: processor time of the gateway for a request, without what it needs for each batch.
        batch_ms: processor time of the gateway for a batch.
        client_ms: processor time of the client for a request, where it runs on the same cores; 0: elsewhere.
        path_ms: the rest of the way of a request, which keeps no core busy.
    """

    cores: int
    speeds: tuple[float, ...] = (1.0,)
    request_ms: float = 0.0
    batch_ms: float = 0.0
    client_ms: float = 0.0
    path_ms: float = 0.0

    def speed(self, demand: float) -> float:
        """How fast everybody computes when ``demand`` cores are wanted; who waits for a core counts as slow.

        >>> HostModel(2, (1.0, 0.9)).speed(1.5), HostModel(2, (1.0, 0.9)).speed(3.0)
        (0.95, 0.6)
        """
        full = min(demand, self.cores)
        if full <= 1.0:
            alone = 1.0
        elif full >= len(self.speeds):
            alone = self.speeds[-1]
        else:
            at = int(full)
            alone = self.speeds[at - 1] + (full - at) * (self.speeds[at] - self.speeds[at - 1])
        return round(alone * min(1.0, self.cores / demand), 9) if demand > 0 else 1.0
