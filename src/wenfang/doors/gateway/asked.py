"""A question from beside us: a queue worker asks over the gateway's own socket and gets what ``POST /predict/{service}`` answers, counted as its own protocol.

Whoever opens the socket is the user of the home, so no key is asked for; limits of the service and of its project hold.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from wenfang.core.errors import Broken, WenfangError
from wenfang.serve.routing import Principal

from .exchange import JSON, Request
from .metrics import Metrics
from .protocols import Desk, Protocol

__all__ = ["answer_call"]

PROTOCOL = "queue"
log = logging.getLogger("wenfang.gateway")


async def answer_call(desk: Desk, predict: Protocol, metrics: Metrics, message: dict[str, Any]) -> dict[str, Any]:
    """Answer one.

    Args:
        desk: of the gateway.
        predict: the protocol of ``/predict``.
        metrics: where it is counted.
        message: ``service``, ``project``, ``asker``, ``id``, ``body`` (JSON), ``priority``, ``traceparent`` (or empty).

    Returns:
        ``status``, ``body``, ``retry_after_s`` (0: not said).
    """
    loop = asyncio.get_running_loop()
    request = Request()
    request.method, request.path, request.body = "POST", f"/predict/{message['service']}", message["body"]
    request.request_id, request.started = str(message["id"]), loop.time()
    request.headers = {b"content-type": JSON, b"x-priority": str(message["priority"]).encode()}
    if message["traceparent"]:
        request.headers[b"traceparent"] = str(message["traceparent"]).encode()
    request.principal = Principal(id=str(message["asker"]), permissions=["service:call"], project=message["project"])
    request.traced = desk.tracer.begin(request.headers, request.request_id, request.started)
    retry_after_s = 0.0
    try:
        response = await predict.answer(request)
    except WenfangError as e:
        retry_after_s = float(e.fields.get("retry_after_s", 0.0))
        response = predict.problem(e, request)
    except Exception as e:  # a fault of ours must be an answer, not a hang
        log.exception("request %s failed", request)
        response = predict.problem(Broken("gateway.failed", kind=type(e).__name__), request)
    desk.traced(request, PROTOCOL, response.status)
    metrics.observe(request.service, PROTOCOL, response.status, loop.time() - request.started)
    return {"status": response.status, "body": response.body, "retry_after_s": retry_after_s}
