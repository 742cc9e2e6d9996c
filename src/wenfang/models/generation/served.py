"""A pretrained writer in and out of files: its graphs and its tokens together. Knows nothing of training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import Broken
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.base import Emit

from .asking import Habits, Joint, answer
from .graphs import GraphSteps
from .subwords import Subwords

__all__ = ["PretrainedWriter"]


class PretrainedWriter:
    """Graphs and tokens, ready to write.

    Args:
        model: the bytes of the graph that writes.
        tokens: its tokens.
        length_max: tokens it can stand in at once.
        target_max: the longest target it learned, in tokens.
        encoder: the bytes of the graph that reads sources; empty: there is none.
        source_max: tokens that one reads.
    """

    def __init__(self, model: bytes, tokens: Subwords, *, length_max: int, target_max: int, encoder: bytes = b"", source_max: int = 0) -> None:
        self.model, self.encoder, self.tokens, self.target_max = model, encoder, tokens, target_max
        self._steps = GraphSteps(model, encoder=encoder, starts=tokens.starts, length_max=length_max, vocabulary=tokens.size)
        self._source_max = source_max if encoder else max(1, length_max - target_max - 1)

    def write(self, texts: Sequence[str], asked: Sequence[Generation], *, task: Task, habits: Habits, emit: Emit | None) -> list[Output]:
        """A text for each source; a source longer than the network reads is cut."""
        return answer(self._steps, partial(self._prompt, task=task), texts, asked, habits=habits, speech=self.tokens.speech, emit=emit)

    def joint(self, *, task: Task, habits: Habits) -> Joint:
        """Texts that begin and end between steps."""
        return Joint(self._steps, partial(self._prompt, task=task), habits=habits, speech=self.tokens.speech)

    def _prompt(self, text: str, *, task: Task) -> list[int]:
        return self.tokens.prompt(text, task=task, limit=self._source_max)

    def losses(self, examples: Examples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Nats and tokens of each target behind its source, its end included; what is longer than the network stands in is cut."""
        nats, counts = np.zeros(len(examples)), np.zeros(len(examples), np.int64)
        for i, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
            prompt = self.tokens.prompt(text, task=examples.task, limit=self._source_max)
            ids = [*self.tokens.encode(target), self.tokens.end][: self._steps.room(len(prompt))]
            z = self._steps.scores(prompt, ids).astype(np.float64)
            z -= z.max(axis=1, keepdims=True)
            nats[i], counts[i] = -float((z[np.arange(len(ids)), ids] - np.log(np.exp(z).sum(axis=1))).sum()), len(ids)
        return nats, counts

    def save(self, folder: Path) -> None:
        """``model.onnx``, ``tokenizer.json``, ``pretrained.json``; with an encoder ``encoder.onnx``."""
        head = {"length_max": self._steps.length_max, "source_max": self._source_max, "target_max": self.target_max, **self.tokens.to_json()}
        write_file(folder / "pretrained.json", json.dumps(head, ensure_ascii=True).encode())
        write_file(folder / "tokenizer.json", self.tokens.source)
        write_file(folder / "model.onnx", self.model)
        if self.encoder:
            write_file(folder / "encoder.onnx", self.encoder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The writer that ``save`` wrote.

        Raises:
            Broken: `model.damaged`, `neural.bad-graph`, `neural.bad-tokens`.
        """
        try:
            head: dict[str, Any] = json.loads((folder / "pretrained.json").read_bytes())
            tokens = Subwords((folder / "tokenizer.json").read_bytes(), end=int(head["end"]), template=head["template"], starts=head.get("starts", ()))
            encoder = (folder / "encoder.onnx").read_bytes() if tokens.starts else b""
            model, sizes = (folder / "model.onnx").read_bytes(), {name: int(head.get(name, 0)) for name in ("length_max", "source_max", "target_max")}
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("model.damaged", file="pretrained.json", reason=type(e).__name__) from e
        return cls(model, tokens, encoder=encoder, **sizes)
