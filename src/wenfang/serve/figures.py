"""What one pool counts. Plain numbers; knows nothing of who shows them."""

from __future__ import annotations

import time

from .batching import Ticket

__all__ = ["PoolFigures"]


class PoolFigures:
    """Plain counters, read by whoever shows them."""

    __slots__ = (
        "batch_ms",
        "batch_sizes",
        "batches",
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
    )

    def __init__(self) -> None:
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

    def ended(self, ticket: Ticket, now: float) -> None:
        """A request is over; ``now`` on the loop's clock."""
        ms = (now - ticket.started) * 1000
        if ticket.error is None:
            self.requests += 1
            self.request_ms += ms
        else:
            self.failed += 1
            self.failed_ms += ms
