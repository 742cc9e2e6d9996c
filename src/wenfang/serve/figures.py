"""What one pool counts. Plain numbers; knows nothing of who shows them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable

from .batching import Ticket

__all__ = ["WAIT_BOUNDS_MS", "PoolFigures"]

WAIT_BOUNDS_MS = tuple(round(1.25**i, 3) for i in range(48))
"""Upper bounds of the classes in which waiting is counted; the last is about 36 s."""


class PoolFigures:
    """Plain counters, read by whoever shows them."""

    __slots__ = (
        "asked",
        "batch_ms",
        "batch_sizes",
        "batches",
        "busy_s",
        "cancelled",
        "failed",
        "failed_ms",
        "last_at",
        "late",
        "lost",
        "model_ms",
        "quarantined",
        "queue_ms",
        "recycled",
        "refused",
        "request_ms",
        "requests",
        "retried",
        "texts",
        "turned_away",
        "waits",
    )

    def __init__(self) -> None:
        self.asked = 0
        """Texts that needed a replica, whatever came of them."""
        self.busy_s = 0.0
        """Sum over replicas of the time in which they had work, as far as it is over."""
        self.waits = [0] * (len(WAIT_BOUNDS_MS) + 1)
        """Texts by how long they waited for a replica."""
        self.texts = 0
        self.batches = 0
        self.batch_sizes: dict[int, int] = {}
        self.batch_ms: dict[int, float] = {}
        """Time in the model by size of the batch."""
        self.model_ms = 0.0
        self.queue_ms = 0.0
        """Sum over texts of the time until they went to a replica."""
        self.requests = 0
        self.request_ms = 0.0
        """Sum over requests that were answered, from queue to last answer."""
        self.failed = 0
        self.failed_ms = 0.0
        self.last_at = 0.0
        """Seconds since 1970 when the last batch was answered."""
        self.lost = 0
        """Connections to replicas that broke: a replica died or was restarted."""
        self.recycled = 0
        """Replicas that left for a successor."""
        self.retried = 0
        self.refused = 0
        self.late = 0
        self.quarantined = 0
        """Texts that killed replicas and are refused from then on."""
        self.turned_away = 0
        """Requests with such a text."""
        self.cancelled = 0
        """Batches of generation that were stopped because nobody wanted them any more."""

    def answered(self, size: int, ms: float) -> None:
        """A batch of ``size`` texts is answered; ``ms`` in the model."""
        self.texts += size
        self.batches += 1
        self.batch_sizes[size] = self.batch_sizes.get(size, 0) + 1
        self.batch_ms[size] = self.batch_ms.get(size, 0.0) + ms
        self.model_ms += ms
        self.last_at = time.time()

    def waited(self, waits_ms: Iterable[float]) -> None:
        """Texts went to a replica after waiting so long."""
        waits = self.waits
        for ms in waits_ms:
            self.queue_ms += ms
            waits[bisect_left(WAIT_BOUNDS_MS, ms)] += 1

    def ended(self, ticket: Ticket, now: float) -> None:
        """A request is over; ``now`` on the loop's clock."""
        ms = (now - ticket.started) * 1000
        if ticket.error is None:
            self.requests += 1
            self.request_ms += ms
        else:
            self.failed += 1
            self.failed_ms += ms
