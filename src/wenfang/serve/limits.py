"""How much the queue of a model version takes, and how long anything may need. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "hang_s"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a pool takes and how long it may need."""

    batch_max: int = 8
    queue_max: int = 1024
    deadline_s: float = 10.0
    wait_s: float = 0.1
    """A queue that has not been empty for long refuses new texts when they would wait longer; 0: only ``queue_max`` refuses."""
    quarantine_s: float = 600.0
    """How long a text that killed replicas is refused; 0: never."""


def hang_s(deadline_s: float) -> float:
    """How long a replica may be silent over a batch: another can still answer within the deadline."""
    return max(0.5, deadline_s / 2)
