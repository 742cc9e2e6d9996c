"""The OpenAI protocol: ``/v1/models``, ``/v1/chat/completions``, ``/v1/completions``, ``/v1/embeddings``. A service's name is a model's id.

Texts only. Streams are server-sent events, one for each piece a replica writes, ended by ``[DONE]``. Families tell the probability of
each token but not its string: log-probabilities come with empty strings.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid, NotFound, WenfangError
from wenfang.core.examples import Output
from wenfang.doors.gateway.access import CALL
from wenfang.doors.gateway.exchange import Request, Response, Streamed
from wenfang.doors.gateway.problems import headers_of, status_of
from wenfang.doors.gateway.writing import Writing

from ._openai_asked import ChatBody, CompletionBody, EmbeddingBody, chat_text, options_of, prompts_of
from .base import WRITING, Desk, Protocol, decode_json, only, wrong_task

__all__ = ["OpenAI"]

_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)
_embedding = msgspec.json.Decoder(EmbeddingBody)
_encode = msgspec.json.Encoder().encode
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
Choice = Callable[[int, str, Output | None], dict[str, Any]]
"""One choice: (its index, its text or the piece of it, the whole answer when it is there)."""


class OpenAI(Protocol):
    """``/v1`` and everything below."""

    segments: ClassVar[tuple[str, ...]] = ("v1",)

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._since = int(time.time())

    def problem(self, error: WenfangError, request: Request) -> Response:
        """``{"error": {"message", "type", "param", "code"}}``; what the caller got wrong is 400."""
        status = status_of(error)
        status = 400 if status == 422 else status
        return Response(status, _encode({"error": _told(error, status, request)}), headers=headers_of(error, status))

    async def answer(self, request: Request) -> Response:
        """One of the protocol's resources."""
        match request.path.strip("/").split("/")[1:]:
            case ["models"]:
                only(request, "GET", "HEAD")
                services = self.desk.router.table.services
                seen = [name for name, s in services.items() if request.principal is not None and request.principal.may(CALL, s.project)]
                return Response(200, _encode({"object": "list", "data": [self._model(request, name) for name in sorted(seen)]}))
            case ["models", name]:
                only(request, "GET", "HEAD")
                return Response(200, _encode(self._model(request, name)))
            case ["chat", "completions"]:
                only(request, "POST")
                return await self._chat(request)
            case ["completions"]:
                only(request, "POST")
                return await self._complete(request)
            case ["embeddings"]:
                only(request, "POST")
                return await self._embed(request)
            case _:
                raise NotFound("gateway.no-such-path", path=request.path[:200])

    def _model(self, request: Request, name: str) -> dict[str, Any]:
        _, model = self.desk.target(request, name)
        return {"id": name, "object": "model", "created": self._since, "owned_by": "wenfang", "task": model.task, "version": model.version}

    # ------------------------------------------------------------ texts
    async def _chat(self, request: Request) -> Response:
        body = decode_json(request, _chat)
        _, model = self.desk.target(request, body.model)
        if model.task not in WRITING:
            raise wrong_task(body.model, model, "chat, generation")
        texts, options = [chat_text(body, model.task)], options_of(body)
        head = self._head(request, body.model, "chatcmpl-", "chat.completion")
        if not body.stream:
            return await self._whole(request, head, texts, options, _chat_choice)
        writing, _ = await self.desk.write(request, body.model, texts, options)
        head["object"] = "chat.completion.chunk"
        usage = body.stream_options is not None and body.stream_options.include_usage
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return Streamed(self._events(request, writing, head, _chat_piece, [first], usage=usage), b"text/event-stream; charset=utf-8", writing.close)

    async def _complete(self, request: Request) -> Response:
        body = decode_json(request, _completion)
        texts, options = prompts_of(body.prompt, "prompt"), options_of(body)
        head = self._head(request, body.model, "cmpl-", "text_completion")
        if not body.stream:
            _, model = self.desk.target(request, body.model)
            if model.task not in WRITING:
                raise wrong_task(body.model, model, "generation, chat")
            return await self._whole(request, head, texts, options, _completion_choice)
        writing, _ = await self.desk.write(request, body.model, texts, options)
        usage = body.stream_options is not None and body.stream_options.include_usage
        return Streamed(self._events(request, writing, head, _completion_choice, [], usage=usage), b"text/event-stream; charset=utf-8", writing.close)

    def _head(self, request: Request, model: str, prefix: str, kind: str) -> dict[str, Any]:
        return {"id": prefix + request.request_id, "object": kind, "created": int(time.time()), "model": model}

    async def _whole(self, request: Request, head: dict[str, Any], texts: list[str], options: Generation, choice: Choice) -> Response:
        outputs, model = await self.desk.predict(request, head["model"], texts, options=options)
        choices = [choice(i, o.text or "", o) for i, o in enumerate(outputs)]
        return Response(200, _encode({**head, "system_fingerprint": model.version, "choices": choices, "usage": _usage(outputs)}))

    async def _events(self, request: Request, writing: Writing, head: dict[str, Any], choice: Choice, first: list[Any], *, usage: bool) -> AsyncGenerator[bytes]:
        """The events of a stream. An error after its head is an event too, and the last one."""

        def event(choices: list[Any], **more: Any) -> bytes:
            return b"data: %s\n\n" % _encode({**head, "choices": choices, **more})

        more: dict[str, Any] = {"usage": None} if usage else {}
        if first:
            yield event(first, **more)
        try:
            async for heard in writing:
                yield b"".join([event([choice(index, piece, None)], **more) for index, piece in heard])
        except WenfangError as e:
            yield b"data: %s\n\n" % _encode({"error": _told(e, status_of(e), request)})
            return
        end = [event([choice(index, "", output)], **more) for index, output in enumerate(writing.outputs)]
        if usage:
            end.append(event([], usage=_usage(writing.outputs)))
        yield b"".join([*end, b"data: [DONE]\n\n"])

    # ------------------------------------------------------------ vectors
    async def _embed(self, request: Request) -> Response:
        body = decode_json(request, _embedding)
        _, model = self.desk.target(request, body.model)
        if model.task != "embedding":
            raise wrong_task(body.model, model, "embedding")
        if body.encoding_format not in {None, "float", "base64"}:
            raise Invalid("gateway.bad-parameter", parameter="encoding_format", got=repr(body.encoding_format[:40]) if body.encoding_format else "", expected="float, base64")
        outputs, _ = await self.desk.predict(request, body.model, prompts_of(body.input, "input"))
        width = len(outputs[0].vector or b"") // 4
        if body.dimensions not in {None, width}:
            raise Invalid("gateway.bad-parameter", parameter="dimensions", got=str(body.dimensions), expected=str(width))
        vectors = [o.vector or b"" for o in outputs]
        shown: list[Any] = vectors if body.encoding_format == "base64" else [array("f", v).tolist() for v in vectors]  # bytes become base64 in JSON
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(shown)]
        n = sum(o.tokens_in or 0 for o in outputs)
        return Response(200, _encode({"object": "list", "data": data, "model": body.model, "usage": {"prompt_tokens": n, "total_tokens": n}}))


def _told(error: WenfangError, status: int, request: Request) -> dict[str, Any]:
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = "model_not_found" if error.code == "serve.unknown-service" else error.code
    return {"message": f"{error.detail(request.lang)} {error.hint(request.lang)}".strip(), "type": kind, "param": error.fields.get("parameter"), "code": code}


def _usage(outputs: list[Output]) -> dict[str, int]:
    asked, answered = sum(o.tokens_in or 0 for o in outputs), sum(o.tokens_out or 0 for o in outputs)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _finish(output: Output) -> str:
    return "length" if output.finish == "length" else "stop"


def _logprobs(output: Output) -> dict[str, Any] | None:
    if output.logprobs is None:
        return None
    return {"content": [{"token": "", "logprob": value, "bytes": None, "top_logprobs": []} for value in output.logprobs], "refusal": None}


def _chat_choice(index: int, text: str, output: Output | None) -> dict[str, Any]:
    assert output is not None
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": _logprobs(output), "finish_reason": _finish(output)}


def _chat_piece(index: int, text: str, output: Output | None) -> dict[str, Any]:
    if output is None:
        return {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return {"index": index, "delta": {}, "logprobs": _logprobs(output), "finish_reason": _finish(output)}


def _completion_choice(index: int, text: str, output: Output | None) -> dict[str, Any]:
    logprobs = None
    if output is not None and output.logprobs is not None:
        logprobs = {"tokens": [""] * len(output.logprobs), "token_logprobs": list(output.logprobs), "top_logprobs": None, "text_offset": None}
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None if output is None else _finish(output)}
