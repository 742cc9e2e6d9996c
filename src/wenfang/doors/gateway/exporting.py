"""Traces sent on to a collector as OTLP over HTTP, in JSON: what ``service traces`` shows, some seconds later. Off unless a collector is named.

Sent from a thread of its own, a few hundred at a time; what a collector does not take is counted and dropped, never kept waiting.
Source: OpenTelemetry Protocol 1.x, "OTLP/HTTP, JSON Protobuf encoding".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from wenfang.core.errors import WenfangError
from wenfang.core.version import __version__
from wenfang.net.client import Client
from wenfang.serve.tracing import Tracer

__all__ = ["Exporter", "as_otlp"]

EVERY_S = 2.0
AT_ONCE = 512
"""Traces in one request."""
TIMEOUT_S = 5.0
SERVER, INTERNAL = 2, 1
log = logging.getLogger("wenfang.gateway.exporting")


class Exporter:
    """Sends what a tracer finishes; must be run on its loop.

    Args:
        tracer: of the gateway.
        url: of the collector, without ``/v1/traces``.
        gateway: its number, said with every span.

    Raises:
        Invalid: `net.bad-url`.
    """

    def __init__(self, tracer: Tracer, url: str, gateway: str) -> None:
        self.sent = 0
        self.dropped = 0
        self._tracer = tracer
        self._gateway = gateway
        self._client = Client(url, timeout_s=TIMEOUT_S, retries=1, private=True)
        self._failing = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            while traces := self._tracer.fresh(AT_ONCE):
                await self.send(traces)

    async def send(self, traces: Sequence[dict[str, Any]]) -> None:
        """Send traces now; a failure is told once, until it goes well again."""
        try:
            await asyncio.to_thread(self._client.ask, "POST", "/v1/traces", as_otlp(traces, self._gateway))
            self.sent += len(traces)
            self._failing = False
        except WenfangError as e:
            self.dropped += len(traces)
            if not self._failing:
                self._failing = True
                log.warning("the collector takes no traces, they are dropped: %s", e)

    async def last(self) -> None:
        """Send what is left when the gateway stops, and hang up."""
        if traces := self._tracer.fresh(AT_ONCE):
            await self.send(traces)
        self._client.close()


def as_otlp(traces: Sequence[dict[str, Any]], gateway: str) -> dict[str, Any]:
    """Traces as ``Tracer.told`` tells them, as an ``ExportTraceServiceRequest``.

    Args:
        traces: of one gateway.
        gateway: its number.
    """
    spans: list[dict[str, Any]] = []
    for trace in traces:
        facts = {f"wenfang.{name}": trace[name] for name in ("service", "model", "request_id") if name in trace}
        for index, span in enumerate(trace["spans"]):
            began_ns = round(1e9 * trace["started_at"]) + round(1e6 * span["start_ms"])
            more = {**facts, "http.response.status_code": trace["status"]} if index == 0 else {name: span[name] for name in ("texts", "more_batches", "error") if name in span}
            failed = trace["status"] >= 500 if index == 0 else "error" in span
            spans.append(
                {
                    "traceId": trace["trace_id"],
                    "spanId": span["span_id"],
                    **({"parentSpanId": span["parent_id"]} if span["parent_id"] else {}),
                    **({"traceState": trace["state"]} if index == 0 and trace.get("state") else {}),
                    "name": span["name"],
                    "kind": SERVER if index == 0 else INTERNAL,
                    "startTimeUnixNano": str(began_ns),
                    "endTimeUnixNano": str(began_ns + round(1e6 * span["ms"])),
                    "attributes": [_attribute(name, value) for name, value in more.items()],
                    "status": {"code": 2} if failed else {},
                }
            )
    about = {"service.name": "wenfang", "service.version": __version__, "service.instance.id": f"gateway-{gateway}"}
    return {
        "resourceSpans": [{"resource": {"attributes": [_attribute(name, value) for name, value in about.items()]}, "scopeSpans": [{"scope": {"name": "wenfang"}, "spans": spans}]}]
    }


def _attribute(name: str, value: Any) -> dict[str, Any]:
    return {"key": name, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
