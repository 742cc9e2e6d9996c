"""How many replicas a service shall have, as people write it: bounds, a target, windows of time, cool-downs, a budget. Values only; what follows from them is ``serve/scaling.py``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Budget", "Cooldown", "Resources", "Scaling", "Target", "Window"]

REPLICAS_MAX = 256


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Part):
    """When a replica has enough to do. Of several the one that asks for most replicas counts; of none, ``queue_ms`` of 100."""

    queue_ms: float | None = Field(None, gt=0, le=600_000, description="95 of 100 texts wait no longer for a replica")
    busy: float | None = Field(None, gt=0, le=0.95, description="share of its time a replica works")
    in_flight: float | None = Field(None, gt=0, le=100_000, description="texts with or before a replica, on average")


class Resources(_Part):
    """What one replica takes."""

    cores: float = Field(1.0, ge=0, le=1024, description="cores; less than one for a model that waits for a server elsewhere")
    memory_bytes: int = Field(0, ge=0, description="memory; 0: as measured while it serves")


class Cooldown(_Part):
    """How long a number of replicas stands before it changes again."""

    up_s: float = Field(1.0, ge=0, le=86_400, description="between two steps up; none is waited for when a request finds no replica at all")
    down_s: float = Field(30.0, ge=0, le=86_400, description="after any step, and as long as fewer have sufficed, before a step down")


class Budget(_Part):
    """What all replicas of the service may take together; ``min`` of the bounds is kept whatever it costs."""

    money_per_hour: float | None = Field(None, gt=0, description="by the prices of the settings")
    cores: float | None = Field(None, gt=0)
    memory_bytes: int | None = Field(None, gt=0)


class Window(_Part):
    """Bounds of their own at certain hours, ``[start, end)`` in the spec's time zone; an end that is not after its start is on the next day."""

    name: str = Field(min_length=1, max_length=64)
    days: str = Field("mon-sun", max_length=64, description="of the start: mon-fri,sun")
    start: str = Field(max_length=5, description="08:30")
    end: str = Field(max_length=5, description="18:00; 24:00 is midnight")
    min: int = Field(ge=0, le=REPLICAS_MAX)
    max: int = Field(ge=1, le=REPLICAS_MAX)


class Scaling(_Part):
    """Everything about the number of a service's replicas."""

    min: int = Field(ge=0, le=REPLICAS_MAX, description="replicas at least; 0: none while nobody asks")
    max: int = Field(ge=1, le=REPLICAS_MAX, description="replicas at most")
    idle_s: float = Field(300.0, ge=1, le=30 * 86_400, description="where min is 0: nobody has asked for so long")
    cold_start_s: float = Field(2.0, gt=0, le=3600, description="where min is 0: one replica stays when starting one was seen to take longer")
    time_zone: str = Field("UTC", max_length=64, description="of the windows: Asia/Shanghai")
    target: Target = Target()  # pyright: ignore[reportCallIssue]
    resources: Resources = Resources()  # pyright: ignore[reportCallIssue]
    cooldown: Cooldown = Cooldown()  # pyright: ignore[reportCallIssue]
    budget: Budget = Budget()  # pyright: ignore[reportCallIssue]
    windows: tuple[Window, ...] = Field((), max_length=64)
