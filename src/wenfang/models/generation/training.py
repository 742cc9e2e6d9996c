"""One fit of our own writer: rows, network, loop, and the loss on texts it has not seen. Knows nothing of families or decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenfang.core.examples import Examples
from wenfang.models.base import Curve
from wenfang.models.neural.batches import Batch
from wenfang.models.neural.checkpoints import Checkpoints, DamagedCheckpoint, fingerprint
from wenfang.models.neural.loop import Fitted, Plan, Trainer, to_tensors
from wenfang.models.neural.network import Network
from wenfang.models.neural.precision import device, precision_of
from wenfang.models.neural.torch_state import torch_state

from .alphabet import PAD, Alphabet
from .network import Writer
from .sequences import Row, RowFeed, rows_of
from .shape import WriterShape

__all__ = ["LearnedWriter", "NextToken", "Rows", "fit_writer", "train_rows"]

Floats = npt.NDArray[np.float32]


@dataclass(slots=True)
class LearnedWriter:
    """All that writing needs."""

    alphabet: Alphabet
    shape: WriterShape
    weights: dict[str, Floats]
    found: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a network learns from and what it is stopped by."""

    learned: Sequence[Row]
    judged: Sequence[Row]
    """May be empty."""
    apart: bool = False
    """For an encoder."""
    pad: int = PAD


class NextToken:
    """Cross entropy of the token that follows, summed over those that are asked for.

    Args:
        smoothing: share of the target spread over all tokens.
    """

    layer: nn.Module | None = None

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def weight(self, batch: Batch) -> float:
        """Tokens that are asked for."""
        return float((_targets(batch) >= 0).sum())

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Nats, summed."""
        targets = torch.from_numpy(_targets(batch)[:, -scores.shape[1] :].astype(np.int64)).to(scores.device)
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum", label_smoothing=self.smoothing)

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """Symmetric KL divergence of two answers, over the same tokens."""
        asked = torch.from_numpy(_targets(batch)[:, -one.shape[1] :] >= 0).to(one.device)
        p, q = one.log_softmax(dim=-1), other.log_softmax(dim=-1)
        return (((p.exp() - q.exp()) * (p - q)).sum(dim=-1) * asked).sum() / 2


def _targets(batch: Batch) -> npt.NDArray[np.int32]:
    assert batch.targets is not None
    return batch.targets


def fit_writer(hyper: Any, train: Examples, valid: Examples | None, *, seed: int, curve: Curve) -> LearnedWriter:
    """Learn an alphabet and a network from pairs.

    Args:
        hyper: the hyper-parameters of the ``generator`` family.
        train: to learn from.
        valid: to stop by, or None.
        seed: of everything random.
        curve: told how it goes; its valid score is minus the loss in nats for each token of a target.

    Raises:
        Invalid: `neural.not-finite`.
    """
    alphabet = Alphabet.learn([*train.texts, *train.targets], min_count=hyper.min_count)
    target_max = max(1, min(hyper.max_length // 2, max(map(len, train.targets))))
    source_max = max(0, hyper.max_length - target_max - 2)
    rows = rows_of(train, alphabet, source_max=source_max, target_max=target_max)
    judged = rows_of(valid, alphabet, source_max=source_max, target_max=target_max) if valid is not None and len(valid) else []
    shape = WriterShape(len(alphabet), hyper.layers, hyper.encoder_layers, hyper.hidden, hyper.heads, hyper.ff, hyper.max_length, hyper.dropout)
    with torch_state(seed, hyper.threads or 1):
        network = Writer(shape)
        request = {"hyper": hyper.model_dump(mode="json"), "rows": [[r.prompt, r.target] for r in [*rows, *judged]], "seed": seed}
        fitted, loss = train_rows(network, Rows(rows, judged, apart=bool(hyper.encoder_layers)), hyper=hyper, curve=curve, request=request, seed=seed)
        weights = {name: value.detach().cpu().numpy().astype(np.float32) for name, value in network.state_dict().items()}
    return LearnedWriter(alphabet, shape, weights, found_of(fitted, loss, target_max))


def found_of(fitted: Fitted, loss: float | None, target_max: int) -> dict[str, Any]:
    """What a training found, for the model's card."""
    return {
        "best_epoch": fitted.best_epoch or fitted.decay_epochs,
        "decay_epochs": fitted.decay_epochs,
        "steps": fitted.steps,
        "tokens_per_cpu_s": round(fitted.tokens / max(1e-9, fitted.train_cpu_s), 1),
        "padding_share": round(1 - fitted.tokens / max(1, fitted.slots), 4),
        "target_max": target_max,
        **({} if loss is None else {"valid_perplexity": round(math.exp(min(50.0, loss)), 3)}),
    }


def train_rows(network: Network, rows: Rows, *, hyper: Any, curve: Curve, request: dict[str, Any], seed: int) -> tuple[Fitted, float | None]:
    """Train a network on rows; afterwards it is on the processor and holds the best state.

    Args:
        network: scores of next tokens.
        rows: to learn from and to stop by.
        hyper: of the family.
        curve: told how it goes; its checkpoints are used.
        request: what shapes the fit; a checkpoint of anything else is not taken up.
        seed: of the shuffling.

    Returns:
        how it went, and the loss on those judged, in nats a token (None: none was judged).
    """
    network.to(device())
    feed = RowFeed(rows.learned, hyper.batch_tokens, apart=rows.apart, learn_prompt=hyper.learn_prompt, pad=rows.pad)
    trial = RowFeed(rows.judged, hyper.batch_tokens, apart=rows.apart, learn_prompt=False, pad=rows.pad) if rows.judged else None
    score = None if trial is None else (lambda: -mean_loss(network, trial))
    checkpoints = None if curve.checkpoints is None else Checkpoints(curve.checkpoints, fingerprint({**request, "torch": torch.__version__, "device": device().type}))
    plan = _plan(hyper, seed, 0 if trial is None else int(trial.lengths.sum()))
    start = {name: value.detach().clone() for name, value in network.state_dict().items()}
    try:
        fitted = Trainer(network, NextToken(hyper.label_smoothing), feed, plan, curve, checkpoints).run(score)
    except DamagedCheckpoint as e:
        curve.progress.note("neural.checkpoint-damaged", reason=str(e))
        assert checkpoints is not None
        checkpoints.discard()
        network.load_state_dict(start)
        fitted = Trainer(network, NextToken(hyper.label_smoothing), feed, plan, curve, checkpoints).run(score)
    network.to("cpu")
    network.eval()
    return fitted, None if fitted.best_score is None else -fitted.best_score


def mean_loss(network: Network, feed: RowFeed) -> float:
    """Nats for each token of the targets, ends included."""
    network.eval()
    objective, total, count = NextToken(), 0.0, 0.0
    where = next(network.parameters()).device
    with torch.inference_mode():
        for batch in feed.in_order():
            total += float(objective(network.scores(*to_tensors(batch, where)), batch))
            count += objective.weight(batch)
    return total / max(1.0, count)


def _plan(hyper: Any, seed: int, score_tokens: int) -> Plan:
    rate = hyper.learning_rate or 2e-3
    return Plan(
        epochs=hyper.epochs,
        decay_epochs=max(hyper.epochs, hyper.decay_epochs or hyper.epochs),
        learning_rate=rate,
        head_rate=rate,
        gram_rate=rate,
        patience=hyper.patience,
        warmup=0.05,
        weight_decay=hyper.weight_decay,
        precision=precision_of(device().type),
        reserve_s=1.0 if hyper.pretrained is None else 20.0,
        score_tokens=score_tokens,
        seed=seed,
    )
