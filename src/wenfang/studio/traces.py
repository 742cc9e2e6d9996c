"""The operation that shows what became of traced requests: asked of every gateway, for each remembers its own."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import Field

from wenfang.core.errors import Broken
from wenfang.core.frames import FrameClient
from wenfang.core.operation import Answer, Request, operation

from .app import Studio
from .services import find_service

__all__: list[str] = []

TIMEOUT_S = 2.0
log = logging.getLogger("wenfang.studio")


class FindTraces(Request):
    """Which traces are wanted."""

    service: str = Field(json_schema_extra={"positional": True})
    limit: int = Field(20, ge=1, le=1000, description="the latest so many")
    trace_id: str = Field("", pattern=r"^([0-9a-f]{32})?$", description="of one trace, 32 hexadecimal digits")
    request_id: str = Field("", max_length=128, description="of one request, as in X-Request-Id")


class Traces(Answer):
    """Traced requests, newest first."""

    traces: list[dict[str, Any]] = Field(description="trace_id, request_id, service, model, started_at, ms, status and spans: what waited (queue), the model, writing the answer")


@operation("service.traces", permission="service:read", http="GET /api/v1/services/{service}/traces")
def find_traces(studio: Studio, request: FindTraces) -> Traces:
    """Show where the time of a service's traced requests went, as far as its gateways remember."""
    service = find_service(studio, request.service)
    found: list[dict[str, Any]] = []
    for path in sorted(studio.home.run.glob("gateway-*.sock")):
        try:
            client = FrameClient(path, timeout_s=TIMEOUT_S)
            try:
                found += client.call("traces", service=service.name, limit=request.limit, trace_id=request.trace_id, request_id=request.request_id)
            finally:
                client.close()
        except Broken as e:  # it is being started or stopped: what it knows is gone or to come
            log.info("no traces of %s: %s", path.name, e)
    return Traces(traces=sorted(found, key=lambda trace: trace["started_at"], reverse=True)[: request.limit])
