"""What one million requests cost, from the measured latency of a single request and a price. Knows nothing of models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Cost", "Price", "cost_of_a_million"]

REQUESTS = 1_000_000


class Price(BaseModel):
    """What a machine costs where the model will run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    core_hour: float = Field(ge=0)
    """One core for one hour."""
    gigabyte_hour: float = Field(0, ge=0)
    """One gigabyte (10⁹ bytes) of memory for one hour."""
    currency: str = Field("", max_length=12)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one million single requests on one core that is always busy; batches make it less, idle hours more."""

    core_hours: float
    requests_per_core_s: float
    memory_gigabytes: float
    money: float | None = None
    currency: str = ""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def cost_of_a_million(p50_ms: float, memory_bytes: int, price: Price | None = None) -> Cost:
    """Core-hours, and money when a price is known.

    Args:
        p50_ms: round trip of a single request; a replica answers with one thread, so that this is its core's time.
        memory_bytes: of a replica.
        price: None: hours only.

    >>> round(cost_of_a_million(3.6, 10**9, Price(core_hour=0.05, gigabyte_hour=0.01)).money or 0, 6)
    0.06
    """
    hours = REQUESTS * p50_ms / 3_600_000
    gigabytes = memory_bytes / 1e9
    money = None if price is None else hours * (price.core_hour + gigabytes * price.gigabyte_hour)
    return Cost(hours, 1000 / max(p50_ms, 1e-6), gigabytes, money, price.currency if price else "")
