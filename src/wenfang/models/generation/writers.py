"""Our own writer as a family holds it: alphabet, network and habits together, in and out of files. Knows nothing of training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

from .alphabet import END, Alphabet
from .asking import Habits, Joint, answer
from .rules import Speech
from .sequences import prompt_of
from .shape import WriterShape
from .stepping import WriterSteps

__all__ = ["CharWriter"]

Floats = npt.NDArray[np.floating]


class CharWriter:
    """A network over characters, ready to write.

    Args:
        alphabet: its characters.
        shape: its sizes.
        weights: its ``state_dict`` as arrays.
        target_max: the longest target it learned, in characters.
    """

    def __init__(self, alphabet: Alphabet, shape: WriterShape, weights: Mapping[str, Floats], *, target_max: int) -> None:
        if len(alphabet) != shape.vocabulary or weights["chars.weight"].shape != (shape.vocabulary, shape.hidden):
            raise Broken("model.damaged", file="writer.json", reason="shapes")
        self.alphabet, self.shape, self.target_max = alphabet, shape, target_max
        self.weights = dict(weights)
        self._steps = WriterSteps(shape, weights)
        self._speech = Speech(alphabet.pieces(), [END])

    def write(self, texts: Sequence[str], asked: Sequence[Generation], *, task: Task, habits: Habits, emit: Emit | None) -> list[Output]:
        """A text for each source; a source longer than the network reads is cut."""
        return answer(self._steps, partial(self._prompt, task=task), texts, asked, habits=habits, speech=self._speech, emit=emit)

    def joint(self, *, task: Task, habits: Habits) -> Joint:
        """Texts that begin and end between steps."""
        return Joint(self._steps, partial(self._prompt, task=task), habits=habits, speech=self._speech)

    def _prompt(self, text: str, *, task: Task) -> list[int]:
        return prompt_of(text, self.alphabet, task=task, limit=self._source_max())

    def losses(self, examples: Examples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Nats and tokens of each target behind its source, its end included; what is longer than the network stands in is cut."""
        nats, counts = np.zeros(len(examples)), np.zeros(len(examples), np.int64)
        for i, (text, target) in enumerate(zip(examples.texts, examples.targets, strict=True)):
            prompt = prompt_of(text, self.alphabet, task=examples.task, limit=self._source_max())
            ids = [*self.alphabet.encode(target), END][: self._steps.room(len(prompt))]
            nats[i], counts[i] = -float(self._steps.log_probabilities(prompt, ids).sum(dtype=np.float64)), len(ids)
        return nats, counts

    def _source_max(self) -> int:
        return max(0, self.shape.length_max - self.target_max - 2)

    def save(self, folder: Path) -> None:
        """``writer.json`` and ``writer.safetensors``."""
        from safetensors.numpy import save

        head = {"alphabet": self.alphabet.to_json(), "shape": self.shape.to_dict(), "target_max": self.target_max}
        write_file(folder / "writer.json", json.dumps(head, ensure_ascii=True).encode())
        write_file(folder / "writer.safetensors", save({name: np.ascontiguousarray(value) for name, value in self.weights.items()}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The writer that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            head: dict[str, Any] = json.loads((folder / "writer.json").read_bytes())
            weights = load((folder / "writer.safetensors").read_bytes())
            return cls(Alphabet.from_json(head["alphabet"]), WriterShape(**head["shape"]), weights, target_max=int(head["target_max"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            raise Broken("model.damaged", file="writer.json", reason=type(e).__name__) from e
