"""Tokens as they were kept in a bundle or a pretrained directory. Knows the kinds of tokens, nothing of networks."""

from __future__ import annotations

from typing import Any

from wenfang.core.errors import Broken

from .tokens import CharTokens, SubwordTokens, Tokens
from .word_tokens import WordTokens

__all__ = ["tokens_from_json"]


def tokens_from_json(data: dict[str, Any], files: dict[str, bytes]) -> Tokens:
    """The tokens that ``to_json`` and ``files`` described.

    Raises:
        Broken: `neural.bad-tokens`.
    """
    try:
        if data["kind"] == "characters":
            return CharTokens("".join(map(chr, data["codes"])), patterns=data["patterns"], buckets=data["buckets"])
        if data["kind"] == "words":
            return WordTokens(data["words"], buckets=data["buckets"])
        if data["kind"] == "subwords":
            return SubwordTokens(files["tokenizer.json"], pad=data["pad"])
    except (KeyError, TypeError, ValueError) as e:
        raise Broken("neural.bad-tokens", reason=type(e).__name__) from e
    raise Broken("neural.bad-tokens", reason="kind")
