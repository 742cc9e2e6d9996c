"""A pretrained writer as onnxruntime runs it, with keys and values kept. Knows nothing of training.

The graph takes ``ids mask places past_0 past_1 …`` and gives ``scores now_0 now_1 …``; a text shorter than its neighbours has holes in its
past, which its mask hides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import Broken
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.base import Emit

from .asking import Habits, answer
from .subwords import Subwords

__all__ = ["GraphSteps", "PretrainedWriter"]

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class GraphCache:
    """Keys and values (B, heads, P, D) of each layer, which of them stand (B, P), and tokens of each text (B,)."""

    past: list[Floats]
    there: Ints
    lengths: Ints

    def take(self, rows: npt.NDArray[np.intp]) -> GraphCache:
        """Some of the texts."""
        return GraphCache([p[rows] for p in self.past], self.there[rows], self.lengths[rows])


class GraphSteps:
    """A graph with a past, ready to write.

    Args:
        model: the bytes of the ONNX file.
        length_max: tokens it can stand in at once.

    Raises:
        Broken: `neural.bad-graph`.
    """

    def __init__(self, model: bytes, *, length_max: int) -> None:
        import onnxruntime as ort

        options: Any = cast("Any", ort).SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: Any = cast("Any", ort).InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime raises its own unrelated classes for damaged files
            raise Broken("neural.bad-graph", reason=type(e).__name__) from e
        self._past = [i for i in self._session.get_inputs() if i.name.startswith("past_")]
        self._names = {i.name for i in self._session.get_inputs()}
        self.length_max = length_max

    def room(self, prompt: int) -> int:
        """How many tokens fit behind a prompt of so many."""
        return self.length_max - prompt

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[GraphCache, Floats]:
        """Read B prompts, each alone: scores (B, V) of the first token."""
        read = [self._read(p) for p in prompts]
        P = max(len(p) for p in prompts)
        there = np.zeros((len(prompts), P), np.int64)
        past = [np.zeros((len(prompts), *one.shape[1:2], P, one.shape[3]), np.float32) for one in read[0][1]]
        for b, (prompt, (_, now)) in enumerate(zip(prompts, read, strict=True)):
            there[b, : len(prompt)] = 1
            for whole, one in zip(past, now, strict=True):
                whole[b, :, : len(prompt)] = one[0]
        return GraphCache(past, there, there.sum(axis=1)), np.stack([scores[0, -1] for scores, _ in read])

    def step(self, cache: GraphCache, tokens: Sequence[int]) -> tuple[GraphCache, Floats]:
        """Append a token to each of B texts: scores (B, V) of the next."""
        there = np.concatenate([cache.there, np.ones((len(tokens), 1), np.int64)], axis=1)
        scores, now = self.run(np.array(tokens, np.int64)[:, None], there, cache.lengths[:, None], cache.past)
        return GraphCache(now, there, cache.lengths + 1), scores[:, -1]

    def scores(self, ids: Sequence[int]) -> Floats:
        """Of what follows each token, shape (T, V)."""
        return self._read(ids)[0][0]

    def _read(self, ids: Sequence[int]) -> tuple[Floats, list[Floats]]:
        empty: list[Floats] = [np.zeros((1, p.shape[1], 0, p.shape[3]), np.float32) for p in self._past]
        return self.run(np.array([ids], np.int64), np.ones((1, len(ids)), np.int64), np.arange(len(ids), dtype=np.int64)[None], empty)

    def run(self, ids: Ints, mask: Ints, places: Ints, past: list[Floats]) -> tuple[Floats, list[Floats]]:
        """Scores (B, T, V) behind each of ids (B, T), and the new past."""
        given: dict[str, Any] = {"ids": ids, "mask": mask, "places": places, **{f"past_{i}": p for i, p in enumerate(past)}}
        scores, *now = self._session.run(None, {name: given[name] for name in self._names})
        return scores, now


class PretrainedWriter:
    """A graph and its tokens together, in and out of files.

    Args:
        model: the bytes of the ONNX file.
        tokens: its tokens.
        length_max: tokens it can stand in at once.
        target_max: the longest target it learned, in tokens.
    """

    def __init__(self, model: bytes, tokens: Subwords, *, length_max: int, target_max: int) -> None:
        self.model, self.tokens, self.target_max = model, tokens, target_max
        self._steps = GraphSteps(model, length_max=length_max)

    def _limit(self) -> int:
        return max(1, self._steps.length_max - self.target_max - 1)

    def write(self, texts: Sequence[str], asked: Sequence[Generation], *, task: Task, habits: Habits, emit: Emit | None) -> list[Output]:
        """A text for each source; a source longer than the network reads is cut."""

        def prompt(text: str) -> list[int]:
            return self.tokens.prompt(text, task=task, limit=self._limit())

        return answer(self._steps, prompt, texts, asked, habits=habits, speech=self.tokens.speech, emit=emit)

    def losses(self, examples: Examples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Nats and tokens of each target behind its source, its end included; what is longer than the network stands in is cut."""
        nats, counts = np.zeros(len(examples)), np.zeros(len(examples), np.int64)
        for i, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
            prompt = self.tokens.prompt(text, task=examples.task, limit=self._limit())
            ids = [*self.tokens.encode(target), self.tokens.end][: self._steps.room(len(prompt))]
            z = self._steps.scores([*prompt, *ids[:-1]])[len(prompt) - 1 :].astype(np.float64)
            z -= z.max(axis=1, keepdims=True)
            nats[i], counts[i] = -float((z[np.arange(len(ids)), ids] - np.log(np.exp(z).sum(axis=1))).sum()), len(ids)
        return nats, counts

    def save(self, folder: Path) -> None:
        """``model.onnx``, ``tokenizer.json`` and ``pretrained.json``."""
        head = {"length_max": self._steps.length_max, "target_max": self.target_max, "end": self.tokens.end, "template": self.tokens.template}
        write_file(folder / "pretrained.json", json.dumps(head, ensure_ascii=True).encode())
        write_file(folder / "tokenizer.json", self.tokens.source)
        write_file(folder / "model.onnx", self.model)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The writer that ``save`` wrote.

        Raises:
            Broken: `model.damaged`, `neural.bad-graph`, `neural.bad-tokens`.
        """
        try:
            head: dict[str, Any] = json.loads((folder / "pretrained.json").read_bytes())
            tokens = Subwords((folder / "tokenizer.json").read_bytes(), end=int(head["end"]), template=head["template"])
            return cls((folder / "model.onnx").read_bytes(), tokens, length_max=int(head["length_max"]), target_max=int(head["target_max"]))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("model.damaged", file="pretrained.json", reason=type(e).__name__) from e
