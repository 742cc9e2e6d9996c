"""``/healthz``, ``/readyz``, ``/metrics``: asked by machines, without a key."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from wenfang.core.errors import NotFound
from wenfang.doors.gateway.exchange import Request, Response
from wenfang.doors.gateway.metrics import render

from .base import Protocol, only

__all__ = ["Probes"]


class Probes(Protocol):
    """Alive, ready, and the counters."""

    segments: ClassVar[tuple[str, ...]] = ("healthz", "readyz", "metrics")

    def is_open(self, path: str) -> bool:  # noqa: ARG002 all of them
        """Probes need no key."""
        return True

    async def answer(self, request: Request) -> Response:
        """``/readyz`` is 200 once every port listens, a routing table is here and every service has a replica that answers."""
        only(request, "GET", "HEAD")
        if request.path == "/healthz":
            return Response(200, b'{"status":"ok"}')
        if request.path == "/readyz":
            router = self.desk.router
            waiting = sorted(name for name in router.table.services if not router.service_ready(name))
            state = {"status": "ready" if self.desk.ready else "not ready", "epoch": router.table.epoch, "waiting_for": [*self.desk.opening, *waiting]}
            return Response(200 if self.desk.ready else 503, msgspec.json.encode(state))
        if request.path == "/metrics":
            return Response(200, render(await self.desk.all_metrics()), b"text/plain; version=0.0.4; charset=utf-8")
        raise NotFound("gateway.no-such-path", path=request.path[:200])
