# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""The gRPC port: a server of grpcio's on the gateway's loop, its methods, errors as statuses, caps and drain."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import AsyncIterator
from typing import Any

from wenfang.core.errors import Broken, Conflict, WenfangError
from wenfang.core.settings import Serve
from wenfang.doors.gateway.exchange import Request
from wenfang.doors.gateway.metrics import Metrics
from wenfang.doors.gateway.problems import status_of
from wenfang.doors.gateway.protocols import Desk

__all__ = ["RPC", "open_rpc"]

TICK_S = 0.05
LAST_BYTES_S = 0.5
"""For answers that are on their way when the last call is over."""
log = logging.getLogger("wenfang.gateway.rpc")
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RPC:
    """A running server.

    Args:
        server: of grpcio.
        service: whose methods it calls.
        port: it listens on.
    """

    def __init__(self, server: Any, service: Any, port: int) -> None:
        self._server = server
        self._service = service
        self.port = port

    async def close(self, grace_s: float) -> None:
        """Take nothing new, finish what was asked; a stream that asks nothing holds nobody up."""
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        self._service.drain()
        while self._service.calls and not stopping.done():
            await asyncio.wait({stopping}, timeout=TICK_S)
        await asyncio.wait({stopping}, timeout=LAST_BYTES_S)
        await self._server.stop(None)
        await stopping


async def open_rpc(desk: Desk, metrics: Metrics, limits: Serve, host: str, port: int, *, shared: bool) -> RPC | None:
    """Listen; None, and a line in the log, where grpcio is not installed.

    Args:
        desk: of the gateway.
        metrics: of the gateway.
        limits: caps of messages and metadata.
        host: address.
        port: 0 takes a free one.
        shared: siblings listen on the same port.

    Raises:
        Conflict: `gateway.port-in-use`.

    Cost: about 0.15 s and 20 MB for the library.
    """
    if importlib.util.find_spec("grpc") is None:
        log.info("no gRPC: pip install 'wenfang[grpc]'")
        return None
    await asyncio.to_thread(importlib.import_module, "grpc.aio")  # HTTP answers meanwhile
    return await _open(desk, metrics, limits, (host, port), shared=shared)


async def _open(desk: Desk, metrics: Metrics, limits: Serve, address: tuple[str, int], *, shared: bool) -> RPC:
    import grpc
    import grpc.aio

    from .messages import Messages
    from .service import Service

    messages = Messages()
    service = Service(desk, metrics, messages)
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_receive_message_length", limits.body_max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", limits.header_max_bytes),
            ("grpc.max_concurrent_streams", limits.queue_max),
            ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1000)),
            ("grpc.http2.max_ping_strikes", 5),
        )
    )
    methods: Any = _Methods(service, _handlers(service, messages))
    server.add_generic_rpc_handlers((methods,))
    host, port = address
    try:
        bound = server.add_insecure_port(f"{f'[{host}]' if ':' in host else host}:{port}")
    except RuntimeError as e:
        raise Conflict("gateway.port-in-use", host=host, port=port) from e
    await server.start()
    log.info("gRPC on %s port %d", host, bound)
    return RPC(server, service, bound)


def _handlers(service: Any, messages: Any) -> dict[str, tuple[Any, Any]]:
    """By path: who answers a caller with a key, and one without."""
    import grpc
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    from .messages import SERVICE
    from .service import OPEN

    found: dict[str, tuple[Any, Any]] = {}
    for method in messages.service.methods:
        path, away = f"/{SERVICE}/{method.name}", grpc.stream_unary_rpc_method_handler(_turned_away(service, method.name))
        written = getattr(messages, method.output_type.name).SerializeToString
        if method.server_streaming:
            found[path] = grpc.stream_stream_rpc_method_handler(_stream(service, method.name, method.input_type.name), response_serializer=written), away
            continue
        call = _unary(service, method.name, method.input_type.name)
        if method.name in OPEN:
            anybody = grpc.stream_unary_rpc_method_handler(_unread(call), response_serializer=written)
            found[path] = anybody, anybody
        else:
            found[path] = grpc.unary_unary_rpc_method_handler(call, response_serializer=written), away
    told: Any = reflection.aio.ReflectionServicer((SERVICE, reflection.SERVICE_NAME), pool=messages.pool)
    heard, written = reflection_pb2.ServerReflectionRequest.FromString, reflection_pb2.ServerReflectionResponse.SerializeToString
    tell = grpc.stream_stream_rpc_method_handler(told.ServerReflectionInfo, request_deserializer=heard, response_serializer=written)
    found[f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"] = tell, grpc.stream_unary_rpc_method_handler(_turned_away(service, "ServerReflectionInfo"))
    return found


class _Methods:
    """Who answers a call; one without a key is turned away before its message is read: grpcio would hold it, and parsing makes it many times larger.

    Args:
        service: checks keys.
        handlers: by path; for those with a key, for those without.
    """

    def __init__(self, service: Any, handlers: dict[str, tuple[Any, Any]]) -> None:
        self._service = service
        self._handlers = handlers

    def service(self, details: Any) -> Any:
        """The handler of a call; None: there is no such method."""
        found = self._handlers.get(details.method)
        return found and found[not self._service.admits(details.method.rpartition("/")[2], details.invocation_metadata)]


async def _refuse(context: Any, error: WenfangError, request: Request | None) -> None:
    """End a call with the status of ``error``; never returns."""
    import grpc

    lang = request.lang if request is not None else "en"
    more = [("wenfang-code", error.code), ("x-request-id", request.request_id if request is not None else "")]
    if request is not None and request.traced is not None:
        more.append(("traceresponse", request.traced.trace.parent()))
    if "retry_after_s" in error.fields:
        more.append(("retry-after", str(error.fields["retry_after_s"])))
    code = getattr(grpc.StatusCode, _CODES.get(status_of(error), "UNKNOWN"))
    await context.abort(code, f"{error.detail(lang)} {error.hint(lang)}".strip(), tuple(more))


def _unread(call: Any) -> Any:
    """A call that anybody may make says nothing that must be heard."""

    async def unread(_: AsyncIterator[bytes], context: Any) -> Any:
        return await call(b"", context)

    return unread


def _turned_away(service: Any, name: str) -> Any:
    async def call(_: AsyncIterator[bytes], context: Any) -> None:
        try:
            service.request_of(name, context)
        except WenfangError as e:
            await _refuse(context, e, None)
        raise Broken("gateway.failed", kind="Unauthenticated")  # the key came with a new routing table between the two looks

    return call


def _unary(service: Any, name: str, kind: str) -> Any:
    method = getattr(service, name)

    async def call(data: bytes, context: Any) -> Any:
        request: Request | None = None
        service.calls += 1
        try:
            request = service.request_of(name, context)
            answer = await method(service.read(kind, data), request)
        except WenfangError as e:
            error = e
        except Exception as e:  # a fault of ours must be an answer, not a hang
            log.exception("gRPC request %s failed", request)
            error = Broken("gateway.failed", kind=type(e).__name__)
        else:
            service.counted(request, None)
            if request is not None and request.traced is not None:
                context.set_trailing_metadata((("traceresponse", request.traced.trace.parent()),))
            return answer
        finally:
            service.calls -= 1
        if request is not None:
            service.counted(request, error)
        return await _refuse(context, error, request)

    return call


def _stream(service: Any, name: str, kind: str) -> Any:
    method = getattr(service, name)

    async def call(asking: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        request: Request | None = None
        service.calls += 1
        try:
            request = service.request_of(name, context)
            async for answer in method(asking, kind, request):
                yield answer
        except WenfangError as e:
            error = e
        except Exception as e:  # a fault of ours must be an answer, not a hang
            log.exception("gRPC stream %s failed", request)
            error = Broken("gateway.failed", kind=type(e).__name__)
        else:
            service.counted(request, None)
            return
        finally:
            service.calls -= 1
        if request is not None:
            service.counted(request, error)
        await _refuse(context, error, request)

    return call
