"""``POST /predict/{service}``: texts, pairs or conversations in, what the task answers out. Wenfang's own protocol, the shortest there is.

With ``"stream": true`` texts come while they are written: lines of JSON ``{"index", "piece"}``, then the whole answer (or a problem
document) as the last line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import msgspec

from wenfang.core.conversation import Message, written
from wenfang.core.errors import Invalid, NotFound, WenfangError
from wenfang.core.examples import Output
from wenfang.core.plain import plain
from wenfang.doors.gateway.exchange import Request, Response, Streamed

from ._documents import document
from .base import WRITING, Protocol, decode_json, generation_of, only, top_k_of

__all__ = ["Predict", "as_plain"]


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str | None = None
    text_b: str | None = None
    messages: list[Message] | None = None


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: list[str | _Question] | str | _Question
    parameters: dict[str, Any] = {}
    stream: bool = False


class _Label(msgspec.Struct, frozen=True):
    label: str
    score: float


class _Answer(msgspec.Struct, frozen=True):
    outputs: list[Any]
    model: str
    id: str


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()
_PARAMETERS = {"top_k"}


def as_plain(output: Output, text: str, top_k: int) -> Any:
    """One output as JSON shows it."""
    if output.label is None or top_k > 1:
        return plain(output, text, top_k)
    return _Label(output.label, output.score or 0.0)  # by far the most frequent


class Predict(Protocol):
    """``{"inputs": ["…"]}`` → ``{"outputs": […], "model": "name:version", "id": "…"}``; below it what the service takes and gives, in every format."""

    segments: ClassVar[tuple[str, ...]] = ("predict",)

    async def answer(self, request: Request) -> Response:
        """Predict."""
        name, slash, file_name = request.path[len("/predict/") :].partition("/")
        if not name or (slash and request.method == "POST"):
            raise NotFound("gateway.no-such-path", path=request.path[:200])
        if slash:
            only(request, "GET", "HEAD")
            return document(self.desk.target(request, name)[1], name, file_name)
        only(request, "POST")
        self.desk.router.service(name, request.principal)
        body = decode_json(request, _decoder)
        texts, texts_b = _columns(body.inputs if isinstance(body.inputs, list) else [body.inputs])
        top_k, options = 1, None
        if body.parameters or body.stream:
            _, model = self.desk.target(request, name)
            if body.stream:
                return await self._stream(request, name, texts, body.parameters)
            if model.task in WRITING:
                options = generation_of(body.parameters)
            else:
                _known(body.parameters)
                top_k = top_k_of(body.parameters["top_k"])
        outputs, model = await self.desk.predict(request, name, texts, texts_b=texts_b, top_k=top_k, options=options)
        answer = _Answer([as_plain(o, t, top_k) for o, t in zip(outputs, texts, strict=True)], model.version, request.request_id)
        return Response(200, _encoder.encode(answer))

    async def _stream(self, request: Request, name: str, texts: list[str], parameters: dict[str, Any]) -> Response:
        writing, model = await self.desk.write(request, name, texts, generation_of(parameters))

        async def lines() -> AsyncGenerator[bytes]:
            try:
                async for heard in writing:
                    yield b"".join([_encoder.encode({"index": index, "piece": piece}) + b"\n" for index, piece in heard])
                yield _encoder.encode(_Answer([plain(o, t) for o, t in zip(writing.outputs, texts, strict=True)], model.version, request.request_id)) + b"\n"
            except WenfangError as e:
                yield self.problem(e, request).body + b"\n"

        return Streamed(lines(), b"application/x-ndjson", writing.close)


def _columns(inputs: list[str | _Question]) -> tuple[list[str], list[str]]:
    """Texts, and second texts where there are any."""
    texts: list[str] = []
    texts_b: list[str] = []
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            texts.append(item)
            continue
        if (item.text is None) == (item.messages is None):
            raise Invalid("gateway.bad-input", index=index)
        texts.append(item.text if item.text is not None else written(item.messages or []))
        if item.text_b is not None:
            texts_b.append(item.text_b)
    if texts_b and len(texts_b) != len(texts):
        raise Invalid("gateway.pairs-mixed", pairs=len(texts_b), inputs=len(texts))
    return texts, texts_b


def _known(parameters: dict[str, Any]) -> None:
    if unknown := sorted(set(parameters) - _PARAMETERS):
        raise Invalid("gateway.bad-parameter", parameter=unknown[0][:40], got="unknown", expected="top_k")
