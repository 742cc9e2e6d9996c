"""The fast tokeniser of a pretrained directory for writing: prompts as numbers, and what each number says in bytes. Knows nothing of networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wenfang.core.conversation import Message, conversation
from wenfang.core.errors import Broken, Unsupported
from wenfang.core.records import Task
from wenfang.core.text import encodable

from .rules import Speech

__all__ = ["Subwords"]

BLANK = "▁"
GLUED = "##"
"""Before tokens that go on with a word."""


class Subwords:
    """Tokens of a pretrained writer.

    Args:
        source: the bytes of ``tokenizer.json``.
        end: number of the token that ends a text.
        template: the directory's chat template, or none: roles with colons, one turn a line.
        starts: what stands before every text behind an encoder; none: there is no encoder, and sources need no special tokens.

    Raises:
        Broken: `neural.bad-tokens`.
    """

    def __init__(self, source: bytes, *, end: int, template: str | None = None, starts: Sequence[int] = ()) -> None:
        from tokenizers import Tokenizer

        self.source, self.end, self.template, self.starts = source, end, template, tuple(starts)
        try:
            self._tokenizer: Any = Tokenizer.from_str(source.decode("utf-8"))
            described: dict[str, Any] = json.loads(source)
        except Exception as e:  # tokenizers raises bare Exceptions for damaged files
            raise Broken("neural.bad-tokens", reason=type(e).__name__) from e
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        kinds = json.dumps(described.get("decoder"))
        bytewise, wordpieces = '"ByteLevel"' in kinds, '"WordPiece"' in kinds
        special: set[int] = {t["id"] for t in described.get("added_tokens", []) if t.get("special")}
        self.size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        """One more than the highest number it gives."""
        tokens: list[str] = [self._tokenizer.id_to_token(i) or "" for i in range(self.size)]
        said = [b"" if i in special or i == end else _bytes_of(token, bytewise=bytewise) for i, token in enumerate(tokens)]
        words = [not token.startswith(GLUED) for token in tokens] if wordpieces else None
        self.speech = Speech([piece.removeprefix(GLUED.encode()) if wordpieces else piece for piece in said], [end], blank_first=not bytewise, words=words)
        probe = self._tokenizer.encode("a", add_special_tokens=True)
        inner = [i for i, mark in enumerate(probe.special_tokens_mask) if not mark] or [len(probe.ids)]
        self._before, self._behind = list(probe.ids[: inner[0]]), list(probe.ids[inner[-1] + 1 :])

    @property
    def behind(self) -> int | None:
        """The last special token behind a source; None: there is none."""
        return self._behind[-1] if self._behind else None

    def to_json(self) -> dict[str, Any]:
        """What is kept beside ``tokenizer.json``."""
        return {"end": self.end, "template": self.template, "starts": list(self.starts)}

    def encode(self, text: str) -> list[int]:
        """Without special tokens."""
        return list(self._tokenizer.encode(encodable(text), add_special_tokens=False).ids)

    def prompt(self, text: str, *, task: Task, limit: int) -> list[int]:
        """A source with a line break behind it, or a conversation up to where the assistant speaks; for an encoder between its special tokens; at least one token."""
        if self.starts:
            room = max(0, limit - len(self._before) - len(self._behind))
            if task == "chat":
                ids = self.encode(self._conversation(conversation(text)))
                inner = ids[max(0, len(ids) - room) :]
            else:
                inner = self.encode(text)[:room]
            return [*self._before, *inner, *self._behind] or [self.end]
        if task == "chat":
            return self.encode(self._conversation(conversation(text)))[-limit:] or [self.end]
        last = self.encode("\n") or [self.end]
        return [*self.encode(text)[: max(0, limit - len(last))], *last]

    def _conversation(self, messages: Sequence[Message]) -> str:
        if self.template is None:
            return "".join(f"{m.role}: {m.content}\n" for m in messages) + "assistant: "
        try:
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError as e:
            raise Unsupported("model.needs-package", package="jinja2") from e
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        turns = [{"role": m.role, "content": m.content} for m in messages]
        return environment.from_string(self.template).render(messages=turns, add_generation_prompt=True, bos_token="", eos_token="")  # noqa: S106 not a password


def _bytes_of(token: str, *, bytewise: bool) -> bytes:
    """What a token says: byte-level vocabularies write each byte as a letter of its own, others a blank as a low line and rare bytes as ``<0x0A>``."""
    if bytewise:
        return bytes(_LETTERS[c] for c in token) if all(c in _LETTERS for c in token) else token.encode()
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace(BLANK, " ").encode()


def _letters() -> dict[str, int]:
    """The byte of each letter of byte-level vocabularies: printable bytes are themselves, the others follow behind 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_LETTERS = _letters()
