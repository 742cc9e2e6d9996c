"""Records of conversations → examples of chat: what was said before, and the reply that came. Knows the usual shapes, nothing of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from wenfang.core.conversation import Message, written

from .shapes import Unusable, string_of

__all__ = ["KEYS", "chat_examples", "turns_key", "whole_conversation"]

KEYS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "history")
ROLE_KEYS, CONTENT_KEYS = ("role", "from", "speaker"), ("content", "value", "message", "text", "utterance")
ROLES: dict[str, Any] = {"system": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "tool": "tool"}
TURNS_MAX = 16
"""Turns before the reply; older ones are left out."""


def turns_key(row: dict[str, Any]) -> str | None:
    """The key of ``row`` that holds a conversation, if one does for certain."""
    return next((key for key in KEYS if key in row and _is_turns(row[key])), None)


def _is_turns(value: object) -> bool:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return len(items) > 1 and (all(isinstance(i, str) for i in items) or all(isinstance(i, dict) and any(k in i for k in CONTENT_KEYS) for i in items))


def chat_examples(value: object) -> Iterator[tuple[str, str]]:
    """(conversation so far, reply) for every turn of the assistant.

    Turns without roles alternate; every one after the first is then a reply to what stands before it.

    Raises:
        Unusable: `bad-conversation`, `no-reply`.
    """
    turns = [_turn(item) for item in cast("list[Any]", value)] if isinstance(value, list) else []
    known = [role for role, _ in turns if role is not None]
    if not turns or (known and len(known) < len(turns)):
        raise Unusable("bad-conversation")
    replies = [i for i, (role, _) in enumerate(turns) if i and (role == "assistant" if known else True)]
    if not replies:
        raise Unusable("no-reply")
    for i in replies:
        before = turns[max(0, i - TURNS_MAX) : i]
        if known and turns[0][0] == "system" and before[0] != turns[0]:
            before = [turns[0], *before[1:]]
        messages = [Message(role or ("user" if (len(before) - k) % 2 else "assistant"), text) for k, (role, text) in enumerate(before)]
        yield written(messages), turns[i][1]


def whole_conversation(value: object) -> str:
    """All turns as one text, for a model that shall go on with it.

    Raises:
        Unusable: `bad-conversation`.
    """
    turns = [_turn(item) for item in cast("list[Any]", value)] if isinstance(value, list) else []
    known = [role for role, _ in turns if role is not None]
    if not turns or (known and len(known) < len(turns)):
        raise Unusable("bad-conversation")
    return written([Message(role or ("assistant" if i % 2 else "user"), text) for i, (role, text) in enumerate(turns)])


def _turn(item: object) -> tuple[Any, str]:
    if isinstance(item, str):
        return None, item
    if not isinstance(item, dict):
        raise Unusable("bad-conversation")
    row = cast("dict[str, Any]", item)
    text = next((string_of(row[k]) for k in CONTENT_KEYS if k in row), None)
    name = next((str(row[k]).casefold() for k in ROLE_KEYS if k in row), None)
    if text is None or (name is not None and name not in ROLES):
        raise Unusable("bad-conversation")
    return ROLES.get(name) if name is not None else None, text
