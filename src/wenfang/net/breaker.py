"""A breaker: after several failures in a row nobody asks for a while, then one may try. Knows nothing of what is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Thread-safe.

    Args:
        failures_max: in a row, before it opens.
        rest_s: how long it stays open the first time; doubles with every trial that fails, up to ``rest_max_s``.
        clock: monotonic seconds.
    """

    def __init__(self, failures_max: int = 5, rest_s: float = 5.0, rest_max_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures_max = failures_max
        self.rest_s = rest_s
        self.rest_max_s = rest_max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._rest_s = rest_s
        self._opens_at = 0.0

    def wait_s(self) -> float:
        """0: ask; the caller must then say how it went. Else the seconds until somebody may try."""
        with self._lock:
            if self._failures < self.failures_max:
                return 0.0
            left = self._opens_at - self._clock()
            if left <= 0:
                self._opens_at = self._clock() + self._rest_s  # this caller tries, the others go on waiting
                return 0.0
            return left

    def succeeded(self) -> None:
        """It answers."""
        with self._lock:
            self._failures, self._rest_s = 0, self.rest_s

    def failed(self) -> None:
        """It does not."""
        with self._lock:
            self._failures += 1
            if self._failures >= self.failures_max:
                if self._failures > self.failures_max:
                    self._rest_s = min(self.rest_max_s, 2 * self._rest_s)
                self._opens_at = self._clock() + self._rest_s
