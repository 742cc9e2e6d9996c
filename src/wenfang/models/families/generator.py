"""The ``generator`` family: texts written for texts and conversations, by a small network of ours or from pieces of the source.

``decoder`` and ``encoder-decoder`` are networks over characters, trained with torch and run in numpy; ``extractive`` puts pieces of the
source together and learns that from a few hundred pairs. A directory of the transformers library, a decoder alone or behind an encoder, is
fine-tuned with torch (all weights, or low-rank differences that are folded in) and served through ONNX with its keys and values kept.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import trainable_labels
from wenfang.models.base import Curve, DataShape, Emit, Hyper, Model
from wenfang.models.generation.asking import Habits, Joint
from wenfang.models.generation.composing import Composer
from wenfang.models.generation.served import PretrainedWriter
from wenfang.models.generation.writers import CharWriter
from wenfang.models.loading import TORCH

__all__ = ["Generator", "GeneratorHyper"]


class GeneratorHyper(Hyper):
    """Hyper-parameters; ``None`` chooses by what is trained."""

    kind: Literal["decoder", "encoder-decoder", "extractive"] = Field(
        "decoder", description="one network for source and target, an encoder before it, or pieces of the source put together"
    )
    pretrained: str | None = Field(None, description="local directory of the transformers library that writes (Qwen, Llama, T5, BART, Pegasus and like layouts); None: own model")
    lora_rank: int = Field(0, ge=0, le=256, description="pretrained: train low-rank differences of this rank; 0: all weights")
    lora_alpha: float | None = Field(None, gt=0, le=4096, description="their weight is this over the rank; None: twice the rank")
    lora_targets: tuple[str, ...] = Field((), description="last names of the layers that get them, such as q and v; none: every linear layer")
    layers: int = Field(2, ge=1, le=24, description="of the decoder, and as many of the encoder")
    hidden: int = Field(192, ge=8, le=2048, description="an even multiple of heads")
    heads: int = Field(6, ge=1, le=32)
    ff: int = Field(576, ge=8, le=8192, description="width of the feed-forward layer")
    min_count: int = Field(2, ge=1, description="rarer characters are unknown")
    max_length: int = Field(512, ge=16, le=8192, description="tokens of source and target together; longer sources are cut")
    learn_prompt: bool = Field(True, description="a decoder learns to write the sources too")
    dropout: float = Field(0.2, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    learning_rate: float | None = Field(None, gt=0, le=1, description="None: 2e-3 from scratch, 5e-5 from a pretrained decoder, 1e-4 from an encoder-decoder, 3e-4 with lora")
    weight_decay: float = Field(0.1, ge=0, le=1)
    batch_tokens: int = Field(2048, ge=8, description="padded tokens of a batch")
    epochs: float = Field(10.0, gt=0, le=1000)
    decay_epochs: float | None = Field(None, gt=0, description="where the learning rate reaches zero; None: at the end")
    patience: int = Field(3, ge=1, description="epochs without a better valid loss before stopping")
    threads: int = Field(0, ge=0, le=256, description="training threads; 0: one, or for a pretrained network the cores this process may use")
    max_tokens: int | None = Field(None, ge=1, le=32_768, description="tokens of an answer where the caller says nothing; None: the longest target of training")
    temperature: float = Field(0.0, ge=0, le=10, description="where the caller says nothing; 0: greedy")
    beams: int = Field(1, ge=1, le=16, description="where the caller says nothing")
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="where the caller says nothing")
    no_repeat: int = Field(0, ge=0, le=16, description="where the caller says nothing: an n-gram of so many tokens never comes twice")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of twice heads ({self.heads})")
        return self

    @property
    def encoder_layers(self) -> int:
        """As many as decoder layers, or none."""
        return self.layers if self.kind == "encoder-decoder" and self.pretrained is None else 0


Writing = PretrainedWriter | CharWriter | Composer


class Generator(Model):
    """Writes texts."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"generation", "chat"})
    cost_rank: ClassVar[int] = 11
    Hyper: ClassVar[type[BaseModel]] = GeneratorHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.writer_: Writing | None = None
        self.found_: dict[str, Any] = {}
        """What training found: best epoch, speed, padding, perplexity on valid."""

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Where targets are much shorter than sources, pieces of the source; then small networks, then every pretrained directory."""
        characters = max(1.0, shape.rows * (shape.length_mean + shape.target_mean))
        window = int(np.clip(2 ** math.ceil(math.log2(shape.length_mean * 1.5 + shape.target_mean * 2 + 16)), 64, 1024))
        epochs = float(round(np.clip(8e6 / characters, 3, 40)))
        if shape.task == "generation" and 0 < 2 * shape.target_mean <= shape.length_mean:
            yield GeneratorHyper(kind="extractive", epochs=3)  # pyright: ignore[reportCallIssue]
        small = GeneratorHyper(max_length=window, epochs=epochs, no_repeat=4 if shape.task == "chat" else 0)  # pyright: ignore[reportCallIssue]
        yield small
        yield small.model_copy(update={"layers": 4, "hidden": 256, "heads": 8, "ff": 1024, "learning_rate": 1e-3})
        yield small.model_copy(update={"kind": "encoder-decoder"})
        for folder in shape.pretrained:
            yield GeneratorHyper(pretrained=str(folder), max_length=window, epochs=min(5.0, epochs))  # pyright: ignore[reportCallIssue]

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Learn to write the targets of ``train``.

        Raises:
            Invalid: `model.no-examples`, `model.no-targets`, `generation.nothing-to-extract`, `neural.not-finite`, `neural.lora-unfit`, `neural.lora-no-modules`, `neural.pickled-weights` and its like.
            Unsupported: `generation.not-exportable`.
        """
        trainable_labels(train)
        if not any(train.targets):
            raise Invalid("model.no-targets")
        self.labels_ = []
        valid = None if valid is None or not len(valid) else valid
        curve = curve or Curve()
        if self.hyper.lora_rank and self.hyper.pretrained is None:
            raise Invalid("neural.lora-unfit", rank=self.hyper.lora_rank)
        if self.hyper.pretrained is None and self.hyper.kind == "extractive":
            return self._compose(train, valid, curve)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the transformer family: threads that spin at barriers crawl on a busy machine
        if self.hyper.pretrained is not None:
            from wenfang.models.generation.pretrained import fit_pretrained

            tuned = fit_pretrained(self.hyper, train, valid, seed=self.seed, curve=curve)
            self.writer_, self.found_ = tuned.writer, tuned.found
            return self
        from wenfang.models.generation.training import fit_writer

        learned = fit_writer(self.hyper, train, valid, seed=self.seed, curve=curve)
        self.writer_ = CharWriter(learned.alphabet, learned.shape, learned.weights, target_max=learned.found["target_max"])
        self.found_ = learned.found
        return self

    def _compose(self, train: Examples, valid: Examples | None, curve: Curve) -> Self:
        if self.task != "generation":
            raise Invalid("generation.nothing-to-extract", task=self.task)
        self.writer_, score = Composer.learn(train, valid, epochs=max(1, round(self.hyper.epochs)), seed=self.seed, curve=curve)
        self.found_ = {} if score is None else {"valid_rouge_l": round(score, 4)}
        return self

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:  # noqa: ARG002 a text has no rivals
        """One written text for each, with nothing special asked."""
        return self.generate(texts, [Generation()] * len(texts))

    def generate(self, texts: Sequence[str], options: Sequence[Generation], *, emit: Emit | None = None) -> list[Output]:
        """One written text for each source or conversation.

        Args:
            texts: B strings.
            options: B; beams rule out sampling.
            emit: told each piece as soon as it is certain; with beams, once.

        Raises:
            Invalid: `generation.schema-unsupported` and its like.

        Cost: for the small decoder (2 layers of 192) under 1 ms a token; a prompt of 400 characters is read in 60 ms by one of 4 layers of 256.
        """
        writer = self._ready()
        return writer.write(texts, options, task=self.task, habits=self._habits(writer), emit=emit)

    def joint(self) -> Joint | None:
        """Texts that begin and end between the steps of others; None: pieces are put together at once."""
        writer = self._ready()
        return None if isinstance(writer, Composer) else writer.joint(task=self.task, habits=self._habits(writer))

    def _habits(self, writer: Writing) -> Habits:
        h = self.hyper
        return Habits(h.max_tokens or writer.target_max + 1, h.temperature, h.beams, h.repetition_penalty, h.no_repeat)

    def losses(self, examples: Examples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How surprising each target is behind its source: nats, shape (n,), and tokens, shape (n,), ends included.

        Raises:
            Unsupported: `generation.no-perplexity` for pieces put together.
        """
        return self._ready().losses(examples)

    def perplexity(self, examples: Examples) -> float:
        """Exponential of the mean loss per token; comparable only between models with equal tokens."""
        nats, tokens = self.losses(examples)
        return math.exp(min(700.0, float(nats.sum()) / max(1, int(tokens.sum()))))

    def _ready(self) -> Writing:
        if self.writer_ is None:
            raise Invalid("model.not-fitted", family="generator")
        return self.writer_

    def save(self, folder: Path) -> None:
        """``generator.json`` and the files of what writes."""
        writer = self._ready()
        write_file(folder / "generator.json", json.dumps({"found": self.found_}).encode())
        writer.save(folder)

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote; never imports torch.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        model.labels_ = labels
        try:
            model.found_ = json.loads((folder / "generator.json").read_bytes())["found"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("model.damaged", file="generator.json", reason=type(e).__name__) from e
        kind: type[PretrainedWriter | Composer | CharWriter] = PretrainedWriter if model.hyper.pretrained else Composer if model.hyper.kind == "extractive" else CharWriter
        model.writer_ = kind.load(folder)
        return model

    def libraries(self) -> Sequence[str]:
        """Torch, where there is a network."""
        return () if self.hyper.pretrained is None and self.hyper.kind == "extractive" else TORCH

    def refit_hyper(self) -> BaseModel:
        """The same with the best epoch and the schedule's end fixed."""
        if "best_epoch" not in self.found_:
            return self.hyper
        return self.hyper.model_copy(update={"epochs": self.found_["best_epoch"], "decay_epochs": self.found_["decay_epochs"]})

    def environment(self) -> Mapping[str, str]:
        """Versions of what shaped the result."""
        if self.hyper.pretrained is not None:
            return {name: version(name) for name in ("numpy", "torch", "transformers", "tokenizers", "onnxruntime", *(("peft",) if self.hyper.lora_rank else ()))}
        return {name: version(name) for name in (("numpy",) if self.hyper.kind == "extractive" else ("numpy", "torch"))}
