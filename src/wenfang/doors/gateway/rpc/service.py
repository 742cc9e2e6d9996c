# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The methods of ``inference.GRPCInferenceService``: messages in, messages out, over the same desk as the HTTP protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from wenfang.core.conversation import Generation
from wenfang.core.errors import Broken, Busy, Invalid, Unauthenticated, WenfangError
from wenfang.core.ids import new_id
from wenfang.doors.gateway.access import authenticate
from wenfang.doors.gateway.exchange import Request
from wenfang.doors.gateway.metrics import Metrics
from wenfang.doors.gateway.problems import status_of
from wenfang.doors.gateway.protocols import Desk
from wenfang.doors.gateway.protocols._models import Models
from wenfang.doors.gateway.protocols._tensors import Tensor, asked_of, columns, strings
from wenfang.doors.gateway.protocols.base import INPUTS_MAX, WRITING

from .messages import Messages

__all__ = ["OPEN", "Service"]

OPEN = frozenset({"ServerLive", "ServerReady"})
"""Methods that need no key."""
STREAM_AHEAD = 64
"""Requests of one stream that are at work together."""


class Service:
    """Answers one message at a time; raises ``WenfangError``, which whoever calls makes a status of.

    Args:
        desk: of the gateway.
        metrics: where requests are counted.
        messages: the protocol's classes.
    """

    def __init__(self, desk: Desk, metrics: Metrics, messages: Messages) -> None:
        self._desk = desk
        self._metrics = metrics
        self._m = messages
        self._models = Models(desk)
        self.calls = 0
        """In progress."""
        self._reading: set[asyncio.Future[None]] = set()
        self._draining = False

    def read(self, kind: str, data: bytes) -> Any:
        """A message of that kind out of its bytes.

        Raises:
            Invalid: `gateway.bad-message`.
        """
        return self._m.read(kind, data)

    def drain(self) -> None:
        """Streams take no further request, answer those they have, and end."""
        self._draining = True
        for reading in self._reading:
            reading.cancel()

    # ------------------------------------------------------------ who asks
    def request_of(self, method: str, context: Any) -> Request:
        """The caller of ``method``, its key checked.

        Raises:
            Unauthenticated: `auth.no-key`, `auth.bad-key`, `auth.key-expired`.
        """
        request = Request()
        request.headers = given = _headers(context.invocation_metadata())
        request.request_id = given.get(b"x-request-id", b"").decode("ascii", "replace")[:128] or new_id("rq")
        request.lang = given.get(b"accept-language", b"en")[:64].decode("latin-1")
        request.client = str(context.peer())
        request.started = time.perf_counter()
        request.traced = self._desk.tracer.begin(given, request.request_id, asyncio.get_running_loop().time())
        if method not in OPEN:
            try:
                request.principal = authenticate(self._desk.router.table, request)
            except Unauthenticated as e:
                failures = self._metrics.auth_failures
                failures[e.code] = failures.get(e.code, 0) + 1
                raise
        return request

    def admits(self, method: str, metadata: Sequence[tuple[str, Any]] | None) -> bool:
        """Whether a caller may be heard at all: its key is known."""
        if method in OPEN:
            return True
        request = Request()
        request.headers = _headers(metadata)
        try:
            authenticate(self._desk.router.table, request)
        except Unauthenticated:
            return False
        return True

    def counted(self, request: Request, error: WenfangError | None) -> None:
        """Count an answer."""
        status = 200 if error is None else status_of(error)
        self._desk.traced(request, "grpc", status)
        self._metrics.observe(request.service, "grpc", status, time.perf_counter() - request.started)

    # ------------------------------------------------------------ about the server and its models
    async def ServerLive(self, _: Any, __: Request) -> Any:  # noqa: N802 the protocol's names, here and below
        """It answers."""
        return self._m.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, __: Request) -> Any:  # noqa: N802
        """As ``/readyz``."""
        return self._m.ServerReadyResponse(ready=self._desk.ready)

    async def ModelReady(self, asked: Any, request: Request) -> Any:  # noqa: N802
        """Whether a replica of it answers."""
        return self._m.ModelReadyResponse(ready=self._models.ready(request, asked.name, asked.version or None)["ready"])

    async def ServerMetadata(self, _: Any, __: Request) -> Any:  # noqa: N802
        """Name, version, extensions."""
        return self._m.ServerMetadataResponse(**self._models.server())

    async def ModelMetadata(self, asked: Any, request: Request) -> Any:  # noqa: N802
        """Inputs and outputs."""
        return _filled(self._m.ModelMetadataResponse(), self._models.metadata(request, asked.name, asked.version or None))

    async def ModelConfig(self, asked: Any, request: Request) -> Any:  # noqa: N802
        """Configuration."""
        return _filled(self._m.ModelConfigResponse(), {"config": self._models.config(request, asked.name, asked.version or None)})

    async def ModelStatistics(self, asked: Any, request: Request) -> Any:  # noqa: N802
        """Counts and times."""
        return _filled(self._m.ModelStatisticsResponse(), self._models.statistics(request, asked.name or None, asked.version or None))

    async def RepositoryIndex(self, asked: Any, request: Request) -> Any:  # noqa: N802
        """Services the caller may call."""
        found = [m for m in self._models.index(request) if m["state"] == "READY" or not asked.ready]
        return _filled(self._m.RepositoryIndexResponse(), {"models": found})

    # ------------------------------------------------------------ inference
    async def ModelInfer(self, asked: Any, request: Request) -> Any:  # noqa: N802
        """Answer a request whole."""
        name, version = asked.model_name, asked.model_version or None
        self._desk.target(request, name, version)
        wanted = [(o.name, _plain({name: o.parameters[name] for name in ("classification",) if name in o.parameters})) for o in asked.outputs]
        told, model = await self._models.infer(request, name, version, _tensors(asked), _plain(asked.parameters), wanted)
        return self._written(asked, model.version, told, request)

    async def ModelStreamInfer(self, asking: AsyncIterator[bytes], kind: str, request: Request) -> AsyncIterator[Any]:  # noqa: N802
        """Answer requests in their order; texts come in pieces. An error is an answer too, and the stream goes on."""
        turns: asyncio.Queue[Any] = asyncio.Queue(STREAM_AHEAD)
        at_work: set[asyncio.Future[Any]] = set()

        async def read() -> None:
            try:
                async for data in asking:
                    turn = self._turn(kind, data, request)
                    if isinstance(turn, asyncio.Future):
                        at_work.add(turn)
                        turn.add_done_callback(at_work.discard)
                        turn.add_done_callback(_heard)
                    await turns.put(turn)
            finally:
                await turns.put(None)

        reading = asyncio.ensure_future(read())
        reading.add_done_callback(_heard)
        reading.add_done_callback(self._reading.discard)
        self._reading.add(reading)
        if self._draining:
            reading.cancel()
        try:
            while (turn := await turns.get()) is not None:
                try:
                    if isinstance(turn, WenfangError):
                        raise turn
                    if isinstance(turn, asyncio.Future):
                        yield self._m.ModelStreamInferResponse(infer_response=await turn)
                    else:
                        async for piece in self._pieces(turn, request):
                            yield piece
                except WenfangError as e:
                    yield self._m.ModelStreamInferResponse(error_message=f"{e.detail(request.lang)} {e.hint(request.lang)}".strip())
            if self._draining:
                raise Busy("gateway.draining", retry_after_s=0.1)
        finally:
            reading.cancel()
            for left in [*at_work]:
                left.cancel()
            while not turns.empty():
                turns.get_nowait()

    def _turn(self, kind: str, data: bytes, request: Request) -> Any:
        """A request of a stream as what answers it: a message for texts that are written, else a task at work; or what is wrong with it."""
        try:
            asked = self.read(kind, data)
            if self._desk.target(request, asked.model_name, asked.model_version or None)[1].task in WRITING:
                return asked
        except WenfangError as e:
            return e
        return asyncio.ensure_future(self.ModelInfer(asked, request))

    async def _pieces(self, asked: Any, request: Request) -> AsyncIterator[Any]:
        _, model = self._desk.target(request, asked.model_name, asked.model_version or None)
        texts, _ = columns(_tensors(asked))
        if len(texts) != 1:
            raise Invalid("gateway.bad-tensor", reason=f"{len(texts)} texts in one request of a stream that writes; one is right")
        given = asked_of(_plain(asked.parameters), model)
        writing, model = await self._desk.write(request, asked.model_name, texts, given.options or Generation(), deadline_s=given.deadline_s, rank=given.rank)
        try:
            async for heard in writing:
                for _, piece in heard:
                    yield self._m.ModelStreamInferResponse(infer_response=self._written(asked, model.version, [Tensor("text", "BYTES", [1], [piece])], request))
            last = self._written(asked, model.version, [Tensor("text", "BYTES", [1], [""]), Tensor("finish", "BYTES", [1], [writing.outputs[0].finish or ""])], request)
            last.parameters["triton_final_response"].bool_param = True
            yield self._m.ModelStreamInferResponse(infer_response=last)
        finally:
            writing.close()

    def _written(self, asked: Any, version: str, tensors: Sequence[Tensor], request: Request) -> Any:
        """The answer in the form the inputs came in: raw for raw, by value otherwise."""
        answer = self._m.ModelInferResponse(model_name=asked.model_name, model_version=version.rpartition(":")[2], id=asked.id or request.request_id)
        raw = bool(asked.raw_input_contents)
        for tensor in tensors:
            output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if raw:
                answer.raw_output_contents.append(tensor.raw())
            elif tensor.datatype == "BYTES":
                output.contents.bytes_contents.extend([value.encode() for value in tensor.data])
            else:
                output.contents.fp32_contents.extend(tensor.data)
        return answer


def _heard(task: asyncio.Future[Any]) -> None:
    """What it raised was told, or nobody is there to be told."""
    if not task.cancelled():
        task.exception()


def _headers(metadata: Sequence[tuple[str, Any]] | None) -> dict[bytes, bytes]:
    return {str(k).encode(): v if isinstance(v, bytes) else str(v).encode() for k, v in metadata or ()}


def _tensors(asked: Any) -> list[Tensor]:
    """The input tensors; their texts by value or raw."""
    raws = asked.raw_input_contents
    if raws and len(raws) != len(asked.inputs):
        raise Invalid("gateway.bad-tensor", reason=f"{len(raws)} raw contents for {len(asked.inputs)} inputs")
    found: list[Tensor] = []
    for i, tensor in enumerate(asked.inputs):
        data: Sequence[Any] = ()
        if tensor.datatype == "BYTES":
            if raws and tensor.HasField("contents"):
                raise Invalid("gateway.bad-tensor", reason="it has contents beside raw_input_contents")
            data = strings(raws[i]) if raws else _decoded(tensor.contents.bytes_contents)
        found.append(Tensor(tensor.name, tensor.datatype, list(tensor.shape), data))
    return found


def _decoded(values: Sequence[bytes]) -> list[str]:
    if len(values) > INPUTS_MAX:
        raise Invalid("gateway.too-many-inputs", n=len(values), max=INPUTS_MAX)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as e:
        raise Invalid("gateway.bad-tensor", reason="an element is not UTF-8") from e


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as values."""
    return {name: getattr(value, kind) for name, value in parameters.items() if (kind := value.WhichOneof("parameter_choice")) is not None}


def _filled(message: Any, values: dict[str, Any]) -> Any:
    """The message with the fields of ``values``: what REST says in JSON."""
    from google.protobuf.json_format import ParseDict

    try:
        return ParseDict(values, message)
    except Exception as e:
        raise Broken("gateway.failed", kind=type(e).__name__) from e
