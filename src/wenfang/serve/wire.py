"""What a replica and its callers say to each other in frames. Knows nothing of models or HTTP."""

from __future__ import annotations

from typing import Any

import msgspec

from wenfang.core.examples import Output

__all__ = ["Answer", "Ask", "Hello"]


class Hello(msgspec.Struct, frozen=True):
    """A replica's first frame on every connection: what it serves and what it measured of itself."""

    hello: int
    """Version of this protocol."""
    pid: int
    model: str
    task: str
    labels: list[str]
    batch_max: int
    """Texts in one batch at most."""
    item_ms: float
    """Milliseconds for each code point of the padded batch (texts × longest)."""
    fixed_ms: float
    """Milliseconds of every batch, however small."""


class Ask(msgspec.Struct, frozen=True):
    """A batch."""

    id: int
    texts: list[str]
    top_k: int = 1
    texts_b: list[str] = []
    """The second texts, when pairs are asked about."""


class Answer(msgspec.Struct, frozen=True):
    """The answers to a batch, in order; None where that text's error stands in ``errors``."""

    id: int
    outputs: list[Output | None]
    errors: dict[int, dict[str, Any]] = msgspec.field(default_factory=dict[int, dict[str, Any]])
    ms: float = 0.0
    """Time in the model."""
