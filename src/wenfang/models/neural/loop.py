"""The training loop: length buckets, AdamW with warm-up and linear decay, early stopping, a deadline. Knows nothing of tasks or networks.

The decay ends where the time ends: the speed of the first steps tells how many steps fit before the deadline, and the schedule is
laid over those. Without a deadline equal seeds give equal weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wenfang.models.base import Curve

from .batches import Batch, Stacker, buckets
from .network import Network
from .objectives import Objective, parameters_of

__all__ = ["Fitted", "Plan", "Trainer", "to_tensors"]

PROBE_STEPS = 8
"""Steps after which speed is judged first; the first ones are slower than the rest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train."""

    epochs: float
    decay_epochs: float
    """Where the learning rate reaches zero."""
    learning_rate: float
    head_rate: float
    """Learning rate of the CRF, and of a new head on a pretrained network."""
    gram_rate: float
    """Learning rate of the n-gram table, whose rows are seen rarely."""
    batch_tokens: int
    patience: int
    """Evaluations without a better score before stopping."""
    warmup: float = 0.1
    """Share of all steps."""
    weight_decay: float = 0.01
    clip: float = 1.0
    bf16: bool = False
    reserve_s: float = 2.0
    """Kept back before a deadline for the export."""
    scores_after: int = 0
    """Evaluations that follow the training."""
    score_tokens: int = 0
    """Tokens that one evaluation reads."""
    seed: int = 0


@dataclass(slots=True)
class Fitted:
    """What training found."""

    best_epoch: float = 0.0
    decay_epochs: float = 0.0
    """Where the schedule really ended."""
    best_score: float | None = None
    steps: int = 0
    tokens: int = 0
    """Real tokens learned from, padding not counted."""
    slots: int = 0
    """Tokens with padding."""
    train_s: float = 0.0
    train_cpu_s: float = 0.0
    state: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Trainer:
    """One fit.

    Args:
        network: scores from (ids, mask, grams).
        objective: the loss.
        stacker: the training pieces.
        plan: how to train.
        curve: is told how it goes, and says when to stop.
    """

    def __init__(self, network: Network, objective: Objective, stacker: Stacker, plan: Plan, curve: Curve) -> None:
        self.network = network
        self.objective = objective
        self.stacker = stacker
        self.plan = plan
        self.curve = curve
        self.fitted = Fitted()
        self.device = next(network.parameters()).device
        self._rng = np.random.default_rng(plan.seed)
        self._optimisers = _optimisers(network, objective, plan)
        self._rates = [[float(g["lr"]) for g in o.param_groups] for o in self._optimisers]
        self._horizon = 0.0
        self._step_s = self._score_s = 0.0
        self._misses = 0
        self._given_s = curve.left_s() or 0.0

    def run(self, score: Callable[[], float] | None) -> Fitted:
        """Train; afterwards the network holds the best state that ``score`` saw (without it, the last).

        Args:
            score: evaluates the network as it stands, more is better.
        """
        fitted, epoch, stop = self.fitted, 0, False
        while not stop and epoch < self.plan.epochs:
            batches = list(buckets(self.stacker.lengths, self.plan.batch_tokens, self._rng))
            here = batches[: max(1, round(len(batches) * min(1.0, self.plan.epochs - epoch)))]
            if self._horizon == 0.0:
                self._horizon = self.plan.decay_epochs * len(batches)
            loss, done = self._epoch(here, len(batches))
            stop = done < len(here)
            fitted.decay_epochs = self._horizon / len(batches)
            at = epoch + done / len(batches)
            epoch += 1
            stop = self._evaluate(score, at, loss) or stop or fitted.steps >= self._horizon
        if fitted.state:
            self._load(fitted.state)
            fitted.state = {}
        return fitted

    def _epoch(self, batches: Sequence[npt.NDArray[np.intp]], per_epoch: int) -> tuple[float, int]:
        """Mean loss and batches done; fewer than given when the time is up."""
        self.network.train()
        total, done = 0.0, 0
        start, start_cpu = time.monotonic(), time.process_time()
        for done, rows in enumerate(batches, 1):
            total += self._step(self.stacker.stack(rows))
            self._step_s = (time.monotonic() - start) / done
            if done in {PROBE_STEPS, per_epoch} or done % 64 == 0:
                self._fit_into_time(per_epoch)
            if self.curve.late() or self.fitted.steps >= self._horizon:
                break
        self.fitted.train_s += time.monotonic() - start
        self.fitted.train_cpu_s += time.process_time() - start_cpu
        return total / done, done

    def _step(self, batch: Batch) -> float:
        factor = self._factor()
        for optimiser, rates in zip(self._optimisers, self._rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.bf16):
            scores = self.network.scores(*to_tensors(batch, self.device))
        loss = self.objective(scores, batch)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in parameters_of(self.network, self.objective) if p.grad is not None and not p.grad.is_sparse], self.plan.clip)
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.fitted.steps += 1
        self.fitted.tokens += int(batch.mask.sum())
        self.fitted.slots += batch.mask.size
        return float(loss.detach())

    def _factor(self) -> float:
        """Linear up over the warm-up, linear down to zero at the horizon."""
        step, warm = self.fitted.steps + 1, max(1.0, self.plan.warmup * self._horizon)
        return min(step / warm, max(0.0, (self._horizon - step + 1) / max(1.0, self._horizon - warm)))

    def _fit_into_time(self, per_epoch: int) -> None:
        """Shorten the schedule to the steps that fit before the deadline, an evaluation for each epoch and the export included."""
        left = self.curve.left_s()
        if left is None:
            return
        score_s = self._score_s or self._step_s * self.plan.score_tokens / self.plan.batch_tokens  # before the first: as dear as training on it
        step_s = self._step_s + score_s / per_epoch
        after_s = self.plan.reserve_s + self.plan.scores_after * score_s
        usable_s = left - score_s - min(after_s, 0.2 * self._given_s)
        fitting = self.fitted.steps + max(0.0, usable_s) / max(1e-9, step_s)
        self._horizon = max(1.0, min(self.plan.decay_epochs * per_epoch, fitting))

    def _evaluate(self, score: Callable[[], float] | None, epoch: float, loss: float) -> bool:
        """Record the epoch; True: stop here."""
        fitted = self.fitted
        left = self.curve.left_s()
        affordable = left is None or fitted.best_score is None or self._score_s < left
        if score is None or not affordable:
            if score is None:
                fitted.best_epoch = epoch
            self.curve.point(epoch, loss=loss)
            return False
        start = time.monotonic()
        self.network.eval()
        value = score()
        self._score_s = time.monotonic() - start
        self.curve.point(epoch, loss=loss, valid_score=value)
        if fitted.best_score is None or value > fitted.best_score:
            fitted.best_score, fitted.best_epoch, self._misses = value, epoch, 0
            fitted.state = self._state()
        else:
            self._misses += 1
        return self._misses >= self.plan.patience

    def _state(self) -> dict[str, Tensor]:
        crf = self.objective.crf
        own = {f"network.{k}": v.detach().clone() for k, v in self.network.state_dict().items()}
        return own | ({} if crf is None else {f"crf.{k}": v.detach().clone() for k, v in crf.state_dict().items()})

    def _load(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        if self.objective.crf is not None:
            self.objective.crf.load_state_dict({k.removeprefix("crf."): v for k, v in state.items() if k.startswith("crf.")})


def to_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """(ids, mask, grams) on ``device``."""
    grams = None if batch.grams is None else torch.from_numpy(batch.grams).to(device)
    return torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device), grams


def _optimisers(network: Network, objective: Objective, plan: Plan) -> list[torch.optim.Optimizer]:
    sparse, new = network.sparse_parameters(), network.new_parameters()
    apart = {id(p) for p in (*sparse, *new)}
    rest = [p for p in network.parameters() if id(p) not in apart]
    heads: list[nn.Parameter] = [*new, *(objective.crf.parameters() if objective.crf is not None else [])]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() == 2], "lr": plan.learning_rate, "weight_decay": plan.weight_decay},
        {"params": [p for p in rest if p.dim() != 2], "lr": plan.learning_rate, "weight_decay": 0.0},
        {"params": heads, "lr": plan.head_rate, "weight_decay": 0.0},
    ]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW([g for g in groups if g["params"]], fused=True)]
    if sparse:
        optimisers.append(torch.optim.SparseAdam(sparse, lr=plan.gram_rate))
    return optimisers
