"""What a supervisor keeps of each process: what to run under a name, and how it is. Starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .processes import Child

__all__ = ["BACKOFF_FIRST_S", "Process", "Watched", "told"]

BACKOFF_FIRST_S = 0.1


@dataclass(frozen=True, slots=True)
class Process:
    """What to run under a name; the part before the first ``-`` says when it is stopped."""

    name: str
    entry: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    restart: bool = True

    @property
    def kind(self) -> str:
        """``gateway`` of ``gateway-0``."""
        return self.name.partition("-")[0]


@dataclass(slots=True)
class Watched:
    """What the supervisor knows of one process."""

    process: Process
    first: bool
    """Named at the start of the tree: if its first start is refused, the tree cannot stand."""
    state: str = "starting"
    child: Child | None = None
    code: int | None = None
    error: dict[str, Any] | None = None
    starts: int = 0
    backoff_s: float = BACKOFF_FIRST_S
    successor: Process | None = None
    """Asked for while this one was still stopping."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def as_message(self) -> dict[str, Any]:
        """What ``processes`` says of it."""
        child = self.child
        return {
            "pid": child.pid if child is not None and self.state in {"running", "stopping"} else None,
            "state": self.state,
            "code": self.code,
            "starts": self.starts,
            "started_at": child.started_at if child else None,
            "error": self.error,
        }


def told(watched: Watched) -> dict[str, Any]:
    """What another supervisor must know to start it."""
    process = watched.process
    return {"name": process.name, "entry": process.entry, "arguments": dict(process.arguments), "starts": watched.starts}
