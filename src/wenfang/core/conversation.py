"""Conversations as text and back, and what may be asked of generation. Every room that speaks of chat uses these words.

A conversation travels as the JSON list of its messages, so that a text column, a wire frame and a blob can hold it; a plain text is
one message of the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

__all__ = ["ROLES", "Generation", "Message", "conversation", "spoken", "written"]

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: Role
    content: str


class Generation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a caller asks of generation; None: what the model version was trained or set to do."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=32_768)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=32_768)] = 0
    temperature: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    """0: greedy."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """0: all."""
    beams: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    """Divides the odds of tokens that already stand there; 1: none."""
    no_repeat: Annotated[int, msgspec.Meta(ge=0, le=16)] | None = None
    """An n-gram of so many tokens never comes twice; 0: may."""
    stop: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    """Words that must not come."""
    json_schema: dict[str, Any] | None = None
    """The text must be JSON of this schema."""
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logprobs: bool = False


_decoder = msgspec.json.Decoder(list[Message])


def written(messages: Sequence[Message]) -> str:
    """A conversation as one text.

    >>> written([Message("user", "你好")])
    '[{"role":"user","content":"你好"}]'
    """
    return msgspec.json.encode(list(messages)).decode()


def conversation(text: str) -> list[Message]:
    """The messages of a text: those that ``written`` wrote, else one message of the user.

    >>> conversation("你好"), conversation('[{"role":"assistant","content":"在"}]')
    ([Message(role='user', content='你好')], [Message(role='assistant', content='在')])
    """
    alone = [Message("user", text)]
    if not text.startswith('[{"role"'):
        return alone
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError):  # somebody's words that only begin like a conversation
        return alone


def spoken(text: str) -> str:
    r"""What is said in a conversation, without the frame around it: how alike two of them are is told by their words alone.

    >>> spoken('[{"role":"user","content":"你好"},{"role":"assistant","content":"在"}]').split("\x1f")
    ['你好', '在']
    """
    return "\x1f".join(m.content for m in conversation(text))
