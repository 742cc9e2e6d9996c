"""What a replica and its callers say to each other in frames. Knows nothing of models or HTTP.

A caller says ``Ask`` and waits for the ``Answer``; meanwhile it may say ``Cancel``, and hears ``Piece`` of texts that are being written.
"""

from __future__ import annotations

from typing import Any

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.examples import Output
from wenfang.core.trace import Trace

__all__ = ["Answer", "Ask", "Cancel", "Hello", "Leaving", "Piece"]


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
    silent_s: float = 0.0
    """How long a batch may take without a sign of life, when that is longer than its caller would wait."""
    slots: int = 0
    """Texts that one caller may have with it at once, in as many questions as it likes: each joins those that are being written. 0: one batch after another."""
    steady: bool = True
    """The same text always gets the same answer: it may be kept."""


class Ask(msgspec.Struct, frozen=True, omit_defaults=True, tag="ask"):
    """A batch."""

    id: int
    texts: list[str]
    top_k: int = 1
    texts_b: list[str] = []
    """The second texts, when pairs are asked about."""
    options: list[Generation | None] = []
    """What is asked of generation, one for each text; none: nothing special."""
    stream: list[int] = []
    """Numbers of the texts whose pieces are wanted as they come; an empty ``Piece`` now and then says that work goes on."""
    traces: list[Trace | None] = []
    """Whose work each text is part of; none: no text is traced."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody wants the answer to this batch any more; it still gets one, at once and empty where it is not done."""

    id: int


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The answers to a batch, in order; None where that text's error stands in ``errors``."""

    id: int
    outputs: list[Output | None]
    errors: dict[int, dict[str, Any]] = msgspec.field(default_factory=dict[int, dict[str, Any]])
    ms: float = 0.0
    """Time in the model."""
    told: list[int] = []
    """Of a batch that was cancelled in the middle: pieces written of each text, about its tokens."""


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """Another replica listens where this one did: ask nothing new here, hear what was asked to its end, hang up and connect again."""


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """A piece of one text of the batch at hand."""

    id: int
    index: int
    """-1: the batch still waits its turn behind another caller's."""
    text: str
