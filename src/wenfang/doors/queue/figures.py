"""What one queue worker counts, as families of Prometheus that the gateway shows beside its own."""

from __future__ import annotations

from typing import Any

__all__ = ["Figures"]

HELP = {
    "taken": "Messages taken from the request queue, those that came again too.",
    "answered": "Messages whose reply was sent.",
    "again": "Messages that had been answered before and got the same reply.",
    "dead": "Messages put into the dead-letter queue.",
    "returned": "Messages given back unanswered when the worker stopped.",
    "waits": "Times a message waited because the service was full or away.",
    "faults": "Times the broker went away.",
}


class Figures:
    """Counters of one worker.

    Args:
        service: that answers.
        queue: of requests.
    """

    def __init__(self, service: str, queue: str) -> None:
        self.labels = {"service": service, "queue": queue}
        self.counts = dict.fromkeys(HELP, 0)
        self.dead_by: dict[str, int] = {}
        self.in_flight = 0
        self.lag = 0
        self.connected = False

    def add(self, name: str) -> None:
        """One more."""
        self.counts[name] += 1

    def died(self, reason: str) -> None:
        """One more is dead, for this reason."""
        self.add("dead")
        self.dead_by[reason] = self.dead_by.get(reason, 0) + 1

    def state(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**self.counts, "in_flight": self.in_flight, "lag": self.lag, "connected": self.connected, "reasons": dict(self.dead_by)}

    def families(self) -> list[dict[str, Any]]:
        """As ``Metrics.families`` of the gateway."""
        counters = [_family(f"wenfang_queue_{n}_total", "counter", text, [["", self.labels, self.counts[n]]]) for n, text in HELP.items() if n != "dead"]
        dead = [["", {**self.labels, "reason": reason}, n] for reason, n in self.dead_by.items()]
        return [
            *counters,
            _family("wenfang_queue_dead_total", "counter", HELP["dead"], dead),
            _family("wenfang_queue_in_flight", "gauge", "Messages taken and not done.", [["", self.labels, self.in_flight]]),
            _family("wenfang_queue_lag", "gauge", "Messages in the request queue that are not done.", [["", self.labels, self.lag]]),
            _family("wenfang_queue_connected", "gauge", "Whether the broker is there.", [["", self.labels, int(self.connected)]]),
        ]


def _family(name: str, kind: str, text: str, samples: list[Any]) -> dict[str, Any]:
    return {"name": name, "type": kind, "help": text, "samples": samples}
