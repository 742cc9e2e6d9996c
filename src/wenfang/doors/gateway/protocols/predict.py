"""``POST /predict/{service}``: texts, pairs or conversations in, what the task answers out. Wenfang's own protocol, the shortest there is.

With ``"stream": true`` texts come while they are written: lines of JSON ``{"index", "piece"}``, then the whole answer (or a problem
document) as the last line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

import msgspec

from wenfang.core.conversation import Message, written
from wenfang.core.errors import Invalid, NotFound, WenfangError
from wenfang.core.examples import Output
from wenfang.core.plain import plain
from wenfang.doors.gateway.exchange import Request, Response, Streamed
from wenfang.serve.composing import Composed
from wenfang.serve.graphs import Run

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
    steps: bool = False
    """Of a graph: what every step answered."""


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
        composed = self.desk.router.composed(name)
        if composed is not None and not body.stream:
            return await self._composed(request, name, composed, body, texts, texts_b)
        if body.steps:
            raise Invalid("graph.no-steps", service=name[:80])
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

    async def _composed(self, request: Request, name: str, composed: Composed, body: _Body, texts: list[str], texts_b: list[str]) -> Response:
        """The answer of a graph, beside it those of its steps where they are wanted."""
        _, model = self.desk.target(request, name)
        top_k, options = 1, None
        if body.parameters and model.task in WRITING:
            options = generation_of(body.parameters)
        elif body.parameters:
            _known(body.parameters)
            top_k = top_k_of(body.parameters["top_k"])
        run = await self.desk.compose(request, name, composed, texts, texts_b, top_k=top_k, options=options)
        told = [plain(o, t, top_k) for o, t in zip(*composed.outputs(run), strict=True)]
        shown = list(composed.plan.main) if body.steps else composed.plan.graph.show
        if shown:
            for index, output in enumerate(told):
                output["steps"] = steps_of(run, index, shown)
        return Response(200, _encoder.encode(_Answer(told, model.version, request.request_id)))

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


def steps_of(run: Run, index: int, shown: Sequence[str]) -> dict[str, Any]:
    """What steps answered to one text; those that were left out are not there, ``by`` says who stood in (``given``: a given answer)."""
    told: dict[str, Any] = {}
    for step in shown:
        if (found := run.answers[index].get(step)) is not None:
            told[step] = plain(*found, run.plan.graph.steps[step].top_k)
            if (by := run.stood_in[index].get(step)) is not None:
                told[step]["by"] = "given" if by == "=" else by
    return told


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
