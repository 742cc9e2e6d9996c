"""Pre-training on raw texts: masked characters are guessed, and the network becomes a local directory to start from. Knows nothing of tasks.

The directory holds ``encoder.json`` (sizes, characters, hash) and ``encoder.safetensors``; ``TransformerHyper.pretrained`` and every
family with an encoder of ours accept it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from wenfang.core.errors import Invalid
from wenfang.core.text import fold
from wenfang.models.base import Curve, Hyper

from .batches import Batch
from .checkpoints import Checkpoints, DamagedCheckpoint, fingerprint
from .encoder import Encoder, EncoderShape
from .folders import save_encoder
from .loop import Fitted, Plan, Trainer
from .masking import Cohesion, MaskedFeed, encoded_chunks
from .precision import Precision, device, precision_of
from .tokens import CharTokens
from .torch_state import torch_state

__all__ = ["PretrainHyper", "pretrain"]


class PretrainHyper(Hyper):
    """What is made, and how; ``hidden`` is a multiple of ``heads``."""

    layers: int = Field(4, ge=1, le=24)
    hidden: int = Field(256, ge=8, le=2048)
    heads: int = Field(4, ge=1, le=32)
    ff: int = Field(1024, ge=8, le=8192, description="width of the feed-forward layer")
    min_count: int = Field(3, ge=1, description="rarer characters are unknown")
    max_length: int = Field(128, ge=8, le=8192, description="characters read at once; longer texts are cut, nothing is left out")
    mask_rate: float = Field(0.25, gt=0, le=0.8, description="share of characters to be guessed")
    dropout: float = Field(0.1, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    batch_tokens: int = Field(2048, ge=8, description="padded tokens of a batch")
    accumulate: int = Field(1, ge=1, le=1024, description="batches of one step")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights; 0: none")
    epochs: float = Field(1.0, gt=0, le=1000)
    save_memory: bool = Field(False, description="compute layers again going back instead of keeping their states")
    precision: Precision | None = Field(None, description="arithmetic; None: what the machine gains by")
    threads: int = Field(1, ge=1, le=256)
    seed: int = 0

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class Guess(nn.Module):
    """From states to scores of characters; the vectors of the characters serve once more.

    Args:
        hidden: H.
        vocabulary: V.
    """

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, vectors: Tensor) -> Tensor:
        """Scores (n, V) of states (n, H) under character vectors (V, H)."""
        return self.norm(F.gelu(self.dense(states))) @ vectors.T + self.bias


class MaskedObjective:
    """Cross entropy of the characters that were hidden.

    Args:
        encoder: gives states, and the characters' vectors.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.layer: nn.Module = Guess(encoder.shape.hidden, encoder.shape.vocabulary)

    def weight(self, batch: Batch) -> float:
        """Characters to guess."""
        return 0.0 if batch.targets is None else float((batch.targets >= 0).sum())

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Sum over the hidden characters; ``scores`` are states (B, T, H)."""
        assert batch.targets is not None
        targets = torch.from_numpy(batch.targets).to(scores.device)
        asked = targets >= 0
        return F.cross_entropy(self.layer(scores[asked], self.encoder.embedding()), targets[asked].long(), reduction="sum")

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """Guessing is not regularised by disagreement."""
        del other, batch
        return one.sum() * 0.0


def pretrain(texts: Iterable[str], folder: Path, hyper: PretrainHyper, curve: Curve | None = None) -> dict[str, Any]:
    """Learn from raw texts and write a local pretrained directory.

    Args:
        texts: read several times in the same order, a chunk in memory at a time: a list, or an object that opens its source anew for each loop.
        folder: made when needed.
        hyper: sizes and settings.
        curve: told how it goes; says when to stop; its ``checkpoints`` let a killed run go on to the same result.

    Returns:
        ``characters``, ``vocabulary``, ``steps``, ``loss`` (nats for each hidden character, over the last epoch), ``tokens_per_cpu_s``.

    Raises:
        Invalid: `neural.texts-once`, `neural.no-texts`, `neural.not-finite`.
        Broken: `neural.out-of-memory`, `home.write-failed`.

    Cost: two passes that count, then ``epochs`` passes of training.

    Source: Devlin et al. 2019, section 3.1.
    """
    if iter(texts) is texts:
        raise Invalid("neural.texts-once")
    curve = curve or Curve()
    counts, read = _counted(texts)
    known = sorted((c for c, n in counts.items() if n >= hyper.min_count), key=lambda c: (-counts[c], c))
    if not known:
        raise Invalid("neural.no-texts", texts=read, min_count=hyper.min_count)
    tokens = CharTokens("".join(known))
    characters = counts.total()
    request = {"hyper": hyper.model_dump(mode="json"), "counts": sorted((ord(c), n) for c, n in counts.items()), "texts": read, "torch": torch.__version__, "device": device().type}
    checkpoints = None if curve.checkpoints is None else Checkpoints(curve.checkpoints, fingerprint(request))
    cohesion = Cohesion(np.zeros(len(tokens), np.int64))
    for chunk in encoded_chunks(texts, tokens):
        cohesion.add(chunk)
    feed = MaskedFeed(texts, tokens, cohesion, rate=hyper.mask_rate, size=hyper.max_length - 1, batch_tokens=hyper.batch_tokens, count=characters + read)
    try:
        encoder, fitted = _learn(feed, tokens, hyper, curve, checkpoints)
    except DamagedCheckpoint as e:
        curve.progress.note("neural.checkpoint-damaged", reason=str(e))
        assert checkpoints is not None
        checkpoints.discard()
        encoder, fitted = _learn(feed, tokens, hyper, curve, checkpoints)
    speed = round(fitted.tokens / max(1e-9, fitted.train_cpu_s), 1)
    figures: dict[str, Any] = {"characters": characters, "texts": read, "vocabulary": len(tokens), "steps": fitted.steps, "tokens": fitted.tokens, "tokens_per_cpu_s": speed}
    figures["padding_share"] = round(1 - fitted.tokens / max(1, fitted.slots), 4)
    figures["loss"] = curve.steps[-1].loss if curve.steps else None
    save_encoder(folder, encoder, tokens, {"hyper": hyper.model_dump(mode="json"), "found": figures})
    return figures


def _counted(texts: Iterable[str]) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    read = 0
    for text in texts:
        counts.update(fold(text))
        read += 1
    return counts, read


def _learn(feed: MaskedFeed, tokens: CharTokens, hyper: PretrainHyper, curve: Curve, checkpoints: Checkpoints | None) -> tuple[Encoder, Fitted]:
    with torch_state(hyper.seed, hyper.threads):
        encoder = Encoder(EncoderShape(len(tokens), 0, True, hyper.layers, hyper.hidden, hyper.heads, hyper.ff, hyper.dropout)).to(device())
        if hyper.save_memory:
            encoder.save_memory()
        objective = MaskedObjective(encoder)
        objective.layer.to(device())
        plan = Plan(
            epochs=hyper.epochs, decay_epochs=hyper.epochs, learning_rate=hyper.learning_rate, head_rate=hyper.learning_rate, gram_rate=hyper.learning_rate, patience=1,
            weight_decay=hyper.weight_decay, accumulate=hyper.accumulate, average=hyper.average, precision=hyper.precision or precision_of(device().type), seed=hyper.seed,
        )  # fmt: skip
        fitted = Trainer(encoder, objective, feed, plan, curve, checkpoints).run(None)
    return encoder.to("cpu"), fitted
