"""Bodies of the OpenAI protocol as texts and options. What would change the answer and is not spoken here is refused by name; the rest is ignored."""

from __future__ import annotations

from typing import Any

import msgspec

from wenfang.core.conversation import Generation, Message, written
from wenfang.core.errors import Invalid, WenfangError

from .base import generation_of

__all__ = ["ChatBody", "CompletionBody", "EmbeddingBody", "chat_text", "options_of", "prompts_of"]

STOPS_MAX = 16
_ROLES: dict[str, Any] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream shall tell beside the text."""

    include_usage: bool = False


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of completion know."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    stop: str | list[str] | None = None
    seed: Any = None
    n: Any = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    logprobs: Any = None
    top_k: Any = None
    min_tokens: Any = None
    repetition_penalty: Any = None


class ChatMessage(msgspec.Struct, frozen=True):
    """One message as OpenAI's clients send it."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Any] | None = None


class ChatBody(_Asked, frozen=True, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage]
    max_completion_tokens: Any = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None


class CompletionBody(_Asked, frozen=True, kw_only=True):
    """``POST /v1/completions``."""

    prompt: Any
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None


class EmbeddingBody(msgspec.Struct, frozen=True):
    """``POST /v1/embeddings``."""

    model: str
    input: Any
    encoding_format: str | None = None
    dimensions: int | None = None


def _wrong(parameter: str, got: Any, expected: str) -> WenfangError:
    shown = str(got)[:40] if isinstance(got, (bool, int, float)) else type(got).__name__
    return Invalid("gateway.bad-parameter", parameter=parameter, got=shown, expected=expected)


def _among(value: Any, *allowed: Any) -> bool:
    """Whether a value of any kind, lists and objects too, is one of those."""
    return any(value == each for each in allowed)


def _content(message: ChatMessage, at: int) -> str:
    """The text of a message; parts of other kinds are refused."""
    if message.tool_calls:
        raise _wrong(f"messages[{at}].tool_calls", message.tool_calls, "none: tools are not spoken here")
    if message.content is None and message.role not in {"assistant", "tool"}:
        raise _wrong(f"messages[{at}].content", None, "a string or a list of text parts")
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts: list[str] = []
    for part in message.content:
        if part.get("type") not in {"text", "input_text"} or not isinstance(part.get("text"), str):
            kind = part.get("type")
            raise Invalid("gateway.bad-parameter", parameter=f"messages[{at}].content", got=kind[:40] if isinstance(kind, str) else "a part without type", expected="text")
        texts.append(part["text"])
    return "\n".join(texts)


def chat_text(body: ChatBody, task: str) -> str:
    """The conversation as the text of a chat service; a service of the task generation is given the last message of the user alone.

    Raises:
        Invalid: `gateway.bad-parameter`, `gateway.no-inputs`.
    """
    messages: list[Message] = []
    for at, message in enumerate(body.messages):
        if message.role not in _ROLES:
            raise Invalid("gateway.bad-parameter", parameter=f"messages[{at}].role", got=repr(message.role[:40]), expected=", ".join(_ROLES))
        messages.append(Message(_ROLES[message.role], _content(message, at)))
    if not messages:
        raise Invalid("gateway.no-inputs")
    if task == "chat":
        return written(messages)
    return next((m.content for m in reversed(messages) if m.role == "user"), messages[-1].content)


def prompts_of(value: Any, name: str) -> list[str]:
    """One string or several; tokens by number are refused, since their table is the client's guess."""
    texts: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    for text in texts:
        if not isinstance(text, str):
            raise Invalid("gateway.bad-parameter", parameter=name, got=type(text).__name__, expected="a string or a list of strings")
    return texts


def options_of(body: ChatBody | CompletionBody) -> Generation:
    """What is asked of generation.

    Raises:
        Invalid: `gateway.bad-parameter`: of a wrong type or size, or not spoken here.
    """
    if not _among(body.n, None, 1):
        raise _wrong("n", body.n, "1")
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(body, name):
            raise _wrong(name, getattr(body, name), "0; repetition_penalty is understood")
    if body.logit_bias:
        raise _wrong("logit_bias", body.logit_bias, "none")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(stop) > STOPS_MAX:
        raise _wrong("stop", len(stop), f"at most {STOPS_MAX} strings")
    asked: dict[str, Any] = {name: getattr(body, name) for name in ("max_tokens", "temperature", "top_p", "seed", "top_k", "min_tokens", "repetition_penalty")}
    asked["stop"] = [text for text in stop if text]
    asked.update(_of_chat(body) if isinstance(body, ChatBody) else _of_completion(body))
    return generation_of(asked)


def _of_chat(body: ChatBody) -> dict[str, Any]:
    for name in ("tools", "functions"):
        if getattr(body, name):
            raise _wrong(name, getattr(body, name), "none: tools are not spoken here")
    if set(body.modalities or ["text"]) != {"text"}:
        raise _wrong("modalities", body.modalities, "text")
    if body.top_logprobs:
        raise _wrong("top_logprobs", body.top_logprobs, "0")
    asked: dict[str, Any] = {"logprobs": body.logprobs}
    if body.max_completion_tokens is not None:
        asked["max_tokens"] = body.max_completion_tokens
    form = body.response_format or {"type": "text"}
    schema = form.get("json_schema")
    match form.get("type"):
        case "text":
            pass
        case "json_object":
            asked["json_schema"] = {"type": "object"}
        case "json_schema" if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):  # pyright: ignore[reportUnknownMemberType]
            asked["json_schema"] = schema["schema"]
        case _:
            raise _wrong("response_format", form, "text, json_object, or json_schema with a schema")
    return asked


def _of_completion(body: CompletionBody) -> dict[str, Any]:
    if body.suffix:
        raise _wrong("suffix", body.suffix, "none")
    if body.echo:
        raise _wrong("echo", body.echo, "false")
    if body.best_of not in {None, 1}:
        raise _wrong("best_of", body.best_of, "1")
    if not _among(body.logprobs, None, 0, 1):
        raise _wrong("logprobs", body.logprobs, "0 or 1")
    return {"logprobs": body.logprobs is not None and body.logprobs is not False}
