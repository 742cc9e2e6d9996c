"""How much a key, a service or a project may ask: token buckets that may go into debt. Lives on one loop; knows nothing of HTTP.

A request is let in while its buckets are not empty and then pays what it costs, so that one large request passes and its sender waits
afterwards. What generation costs in tokens is paid when it is known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import msgspec

from wenfang.core.errors import Busy

__all__ = ["Flow", "Owner", "Rate"]

BURST_S = 2.0
"""A bucket holds what its rate brings in this time, but at least one request."""
KEPT_MIN = 1024
"""So many buckets may be kept before those that hold no debt are dropped."""
LONGEST_S = 86_400.0
"""Nobody is told to wait longer: a rate may be next to nothing."""


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be asked each second; 0: no limit."""

    requests_per_s: float = 0.0
    texts_per_s: float = 0.0
    tokens_per_s: float = 0.0


Owner = tuple[str, str, Rate]
"""(``key``, ``service`` or ``project``; its id or name; its rate)."""


class _Bucket:
    __slots__ = ("at", "level", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.level = self.full
        self.at = now

    @property
    def full(self) -> float:
        return max(1.0, self.rate * BURST_S)

    def fill(self, rate: float, now: float) -> None:
        self.rate = rate
        self.level = min(self.full, self.level + (now - self.at) * rate)
        self.at = now


class Flow:
    """The buckets of one gateway.

    Args:
        share: gateways that share the limits; each lets a part through.
        clock: seconds.
    """

    def __init__(self, share: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused: dict[tuple[str, str], int] = {}
        """By (kind of owner, what ran out)."""
        self._share = share
        self._clock = clock
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}
        self._kept_max = KEPT_MIN

    def admit(self, owners: Sequence[Owner], texts: int) -> None:
        """Let a request of B texts in, and have it pay.

        Raises:
            Busy: `serve.rate-limited`, with ``retry_after_s``: when the emptiest bucket will hold something again.

        Cost: about a microsecond for each limit.
        """
        now = self._clock()
        if len(self._buckets) >= self._kept_max:
            self._forget(now)
        paying: list[tuple[_Bucket, float]] = []
        for kind, name, rate in owners:
            for what, per_s, cost in (("requests", rate.requests_per_s, 1.0), ("texts", rate.texts_per_s, float(texts)), ("tokens", rate.tokens_per_s, 0.0)):
                if not per_s:
                    continue
                bucket = self._bucket((kind, name, what), per_s / self._share, now)
                if bucket.level <= 0:
                    self.refused[kind, what] = self.refused.get((kind, what), 0) + 1
                    debt_s = -bucket.level / bucket.rate if -bucket.level < LONGEST_S * bucket.rate else LONGEST_S
                    wait_s = math.floor(debt_s * 1000 + 2) / 1000  # a little more than needed, in milliseconds
                    raise Busy("serve.rate-limited", owner=kind, name=name, limit=per_s, what=what, retry_after_s=wait_s)
                paying.append((bucket, cost))
        for bucket, cost in paying:
            bucket.level -= cost

    def charge(self, owners: Sequence[Owner], tokens: int) -> None:
        """Have an answer pay for its tokens."""
        now = self._clock()
        for kind, name, rate in owners:
            if rate.tokens_per_s:
                self._bucket((kind, name, "tokens"), rate.tokens_per_s / self._share, now).level -= tokens

    def _bucket(self, key: tuple[str, str, str], rate: float, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(rate, now)
        else:
            bucket.fill(rate, now)
        return bucket

    def _forget(self, now: float) -> None:
        """Drop buckets that are full again: a new one would be no different. Those of keys that are no more go this way too."""
        for bucket in self._buckets.values():
            bucket.fill(bucket.rate, now)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.level < bucket.full}
        self._kept_max = max(KEPT_MIN, 2 * len(self._buckets))
