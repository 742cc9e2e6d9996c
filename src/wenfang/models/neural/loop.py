"""The training loop: warm-up and linear decay, early stopping, a deadline, checkpoints. Knows nothing of tasks or networks.

The decay ends where the time ends: the speed of the first steps tells how many steps fit before the deadline, and the schedule is
laid over those. Without a deadline equal seeds give equal weights, whether or not the process was killed on the way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wenfang.core.errors import Broken, Invalid
from wenfang.models.base import Curve, Step

from .batches import Batch
from .checkpoints import Checkpoints, DamagedCheckpoint, State
from .feeds import Feed
from .network import Network
from .objectives import Objective, parameters_of
from .optimisers import Average, optimisers_for, state_of, take_state, to_array
from .precision import Precision

__all__ = ["Fitted", "Plan", "Trainer", "to_tensors"]

PROBE_STEPS = 8
"""Steps after which speed is judged first; the first ones are slower than the rest."""
CHECKPOINT_S = 60.0
"""Between two checkpoints inside an epoch."""
CHECKPOINT_SHARE = 0.05
"""Of the time that may go into writing checkpoints."""
SKIPS_MAX = 20
"""fp16: steps in a row without a finite loss, while the scale shrinks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train."""

    epochs: float
    decay_epochs: float
    """Where the learning rate reaches zero."""
    learning_rate: float
    head_rate: float
    """Learning rate of the objective's own layer, and of a new head on a pretrained network."""
    gram_rate: float
    """Learning rate of the n-gram table, whose rows are seen rarely."""
    patience: int
    """Evaluations without a better score before stopping."""
    warmup: float = 0.1
    """Share of all steps."""
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    clip: float = 1.0
    accumulate: int = 1
    """Batches of one step."""
    average: float = 0.0
    """Decay of the moving average of the weights; 0: none."""
    r_drop: float = 0.0
    """Weight of the disagreement of two answers under different dropout."""
    fgm: float = 0.0
    """Length of the adversarial step on the token vectors."""
    precision: Precision = "fp32"
    reserve_s: float = 2.0
    """Kept back before a deadline for the export."""
    scores_after: int = 0
    """Evaluations that follow the training."""
    score_tokens: int = 0
    """Tokens that one evaluation reads."""
    seed: int = 0


@dataclass(slots=True)
class Fitted:
    """How a training went."""

    best_epoch: float = 0.0
    best_score: float | None = None
    decay_epochs: float = 0.0
    steps: int = 0
    tokens: int = 0
    """Real tokens learned from, padding not counted."""
    slots: int = 0
    """Tokens with padding."""
    train_s: float = 0.0
    train_cpu_s: float = 0.0
    parts: int = 1
    """Into how many parts memory made us cut each batch."""


@dataclass(slots=True)
class _Place:
    """Where the training stands."""

    epoch: int = 0
    done: int = 0
    """Steps of this epoch."""
    loss: float = 0.0
    """Sum over the steps of this epoch."""
    horizon: float = 0.0
    """Step at which the learning rate reaches zero."""
    misses: int = 0
    """Evaluations since the best one."""
    stopped: bool = False
    rng: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of the data, as it was at the beginning of this epoch."""


class Trainer:
    """One fit.

    Args:
        network: scores from (ids, mask, grams).
        objective: the loss.
        feed: the training data.
        plan: how to train.
        curve: is told how it goes, and says when to stop.
        checkpoints: where the state is kept; None: nowhere.
    """

    def __init__(self, network: Network, objective: Objective, feed: Feed, plan: Plan, curve: Curve, checkpoints: Checkpoints | None = None) -> None:
        self.network = network
        self.objective = objective
        self.feed = feed
        self.plan = plan
        self.curve = curve
        self.checkpoints = checkpoints
        self.fitted = Fitted()
        self.device = next(network.parameters()).device
        self._rng = np.random.default_rng(plan.seed)
        self._optimisers = optimisers_for(
            network, objective.layer, rate=plan.learning_rate, head_rate=plan.head_rate, gram_rate=plan.gram_rate, weight_decay=plan.weight_decay, layer_decay=plan.layer_decay
        )
        self._rates = [[float(g["lr"]) for g in o.param_groups] for o in self._optimisers]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=plan.precision == "fp16")
        self._average = Average(self._named(), plan.average) if plan.average else None
        self._best: dict[str, Tensor] = {}
        self._at = _Place(rng=self._rng.bit_generator.state)
        self._step_s = self._score_s = 0.0
        self._skips = 0
        self._given_s = curve.left_s() or 0.0
        self._saved_at, self._save_s = time.monotonic(), 0.0

    def run(self, score: Callable[[], float] | None) -> Fitted:
        """Train; afterwards the network holds the best state that ``score`` saw (without it, the last, averaged when averages are kept).

        Args:
            score: evaluates the network as it stands, more is better.

        Raises:
            Invalid: `neural.not-finite`.
            Broken: `neural.out-of-memory`, `home.write-failed`.
            DamagedCheckpoint: there is one of this request, and it cannot be used.
        """
        self._resume()
        while not self._at.stopped and self._at.epoch < self.plan.epochs:
            self._epoch(score)
        if self._best:
            self._put(self._best)
        elif self._average is not None:
            self._average.put(self._average.mean)
        return self.fitted

    def _epoch(self, score: Callable[[], float] | None) -> None:
        at, plan, fitted = self._at, self.plan, self.fitted
        count, batches = self.feed.epoch(self._rng)
        per_epoch = max(1, -(-count // plan.accumulate))
        if at.horizon == 0.0:
            at.horizon = plan.decay_epochs * per_epoch
        limit = max(1, round(per_epoch * min(1.0, plan.epochs - at.epoch)))
        steps = islice(_grouped(batches, plan.accumulate), at.done, limit)
        ended = self._steps(steps, per_epoch)
        fitted.decay_epochs = at.horizon / per_epoch
        reached, loss = at.epoch + at.done / per_epoch, at.loss / max(1, at.done)
        at.epoch, at.done, at.loss, at.rng = at.epoch + 1, 0, 0.0, self._rng.bit_generator.state
        at.stopped = self._evaluate(score, reached, loss) or not ended or fitted.steps >= at.horizon
        self._save_if_due(at_epoch=True)

    def _steps(self, steps: Iterator[list[Batch]], per_epoch: int) -> bool:
        """Learn from each group of batches; False: the time is up."""
        self.network.train()
        start, start_cpu, first = time.monotonic(), time.process_time(), self._at.done
        ended = True
        for group in steps:
            self._at.loss += self._step(group)
            self._at.done += 1
            done = self._at.done - first
            self._step_s = (time.monotonic() - start) / done
            if done in {PROBE_STEPS, per_epoch} or done % 64 == 0:
                self._fit_into_time(per_epoch)
            if self.curve.late() or self.fitted.steps >= self._at.horizon:
                ended = False
                break
            self._save_if_due(at_epoch=False)
        self.fitted.train_s += time.monotonic() - start
        self.fitted.train_cpu_s += time.process_time() - start_cpu
        return ended

    # ---- one step

    def _step(self, group: list[Batch]) -> float:
        factor = self._factor()
        for optimiser, rates in zip(self._optimisers, self._rates, strict=True):
            for settings, rate in zip(optimiser.param_groups, rates, strict=True):
                settings["lr"] = rate * factor
        loss = self._gradients(group)
        while loss is None:  # too large for the memory: the same step in smaller parts
            self._halve(max(len(batch.rows) for batch in group))
            loss = self._gradients(group)
        finite = self._finite(loss)
        for optimiser in self._optimisers:
            self._scaler.unscale_(optimiser)
        whole = [p for p in parameters_of(self.network, self.objective) if p.grad is not None and not p.grad.is_sparse]
        nn.utils.clip_grad_norm_(whole, self.plan.clip)
        for optimiser in self._optimisers:
            self._scaler.step(optimiser)
            optimiser.zero_grad()
        self._scaler.update()
        self.fitted.steps += 1
        self.fitted.tokens += sum(int(batch.mask.sum()) for batch in group)
        self.fitted.slots += sum(batch.mask.size for batch in group)
        if self._average is not None:
            self._average.step(self.fitted.steps)
        return loss if finite else 0.0

    def _gradients(self, group: list[Batch]) -> float | None:
        """Loss of the step, its gradients in place; None: out of memory."""
        parts = [part for batch in group for part in batch.parts(self.fitted.parts)]
        whole = max(1e-12, sum(self.objective.weight(part) for part in parts))
        total = 0.0
        try:
            for part in parts:
                total += self._backward(part, whole)
        except (RuntimeError, MemoryError) as e:
            if not _out_of_memory(e):
                raise
        else:
            return total
        for optimiser in self._optimisers:  # outside of the handler: its traceback would keep the memory
            optimiser.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _backward(self, batch: Batch, whole: float) -> float:
        loss = self._loss(batch) / whole
        self._scaler.scale(loss).backward()
        value = float(loss.detach())
        table = self.network.embedding() if self.plan.fgm else None
        slope: Any = None if table is None else table.grad
        if table is not None and slope is not None:
            # Miyato et al. 2017, section 3: the same batch once more where its token vectors hurt most
            own = table.detach().clone()
            with torch.no_grad():
                table.add_(slope * (self.plan.fgm / max(1e-12, float(slope.norm()))))
            try:
                self._scaler.scale(self._loss(batch) / whole).backward()
            finally:
                with torch.no_grad():
                    table.copy_(own)
        return value

    def _loss(self, batch: Batch) -> Tensor:
        given = to_tensors(batch, self.device)
        dtype = torch.float16 if self.plan.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.plan.precision != "fp32"):
            scores = self.network.scores(*given)
            again = self.network.scores(*given) if self.plan.r_drop else None
        loss = self.objective(scores, batch)
        if again is None:
            return loss
        # R-Drop: Liang et al. 2021, equation 4
        return (loss + self.objective(again, batch)) / 2 + self.plan.r_drop * self.objective.apart(scores, again, batch)

    def _finite(self, loss: float) -> bool:
        if math.isfinite(loss):
            self._skips = 0
            return True
        self._skips += 1
        if self.plan.precision != "fp16" or self._skips > SKIPS_MAX:
            raise Invalid("neural.not-finite", step=self.fitted.steps + 1, rate=self.plan.learning_rate)
        return False

    def _halve(self, rows: int) -> None:
        if self.fitted.parts >= rows:
            raise Broken("neural.out-of-memory", rows=rows)
        self.fitted.parts *= 2
        self.curve.progress.note("neural.batch-halved", parts=self.fitted.parts, tokens=self.feed.batch_tokens // self.fitted.parts)

    # ---- the schedule

    def _factor(self) -> float:
        """Linear up over the warm-up, linear down to zero at the horizon."""
        step, warm = self.fitted.steps + 1, max(1.0, self.plan.warmup * self._at.horizon)
        return min(step / warm, max(0.0, (self._at.horizon - step + 1) / max(1.0, self._at.horizon - warm)))

    def _fit_into_time(self, per_epoch: int) -> None:
        """Shorten the schedule to the steps that fit before the deadline, an evaluation for each epoch and the export included."""
        left = self.curve.left_s()
        if left is None:
            return
        score_s = self._score_s or self._step_s * self.plan.score_tokens / (self.feed.batch_tokens * self.plan.accumulate)  # before the first: as dear as training on it
        step_s = self._step_s + score_s / per_epoch
        after_s = self.plan.reserve_s + self.plan.scores_after * score_s
        usable_s = left - score_s - min(after_s, 0.2 * self._given_s)
        fitting = self.fitted.steps + max(0.0, usable_s) / max(1e-9, step_s)
        self._at.horizon = max(1.0, min(self.plan.decay_epochs * per_epoch, fitting))

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
        if self._average is None:
            value = self._judged(score, epoch)
        else:
            with self._average.in_place():
                value = self._judged(score, epoch)
        self._score_s = time.monotonic() - start
        self.curve.point(epoch, loss=loss, valid_score=value)
        return self._at.misses >= self.plan.patience

    def _judged(self, score: Callable[[], float], epoch: float) -> float:
        self.network.eval()
        value = score()
        if self.fitted.best_score is None or value > self.fitted.best_score:
            self.fitted.best_score, self.fitted.best_epoch, self._at.misses = value, epoch, 0
            self._best = {name: p.detach().clone() for name, p in self._named().items()}
        else:
            self._at.misses += 1
        return value

    def _named(self) -> dict[str, nn.Parameter]:
        """What learns; frozen weights are as they were given."""
        layer = self.objective.layer
        own = {f"network.{k}": p for k, p in self.network.named_parameters() if p.requires_grad}
        return own | ({} if layer is None else {f"layer.{k}": p for k, p in layer.named_parameters()})

    def _put(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self._named().items():
                p.copy_(values[name])

    # ---- checkpoints

    def _save_if_due(self, *, at_epoch: bool) -> None:
        if self.checkpoints is None:
            return
        since_s = time.monotonic() - self._saved_at
        if since_s * CHECKPOINT_SHARE >= self._save_s and (at_epoch or since_s >= CHECKPOINT_S):
            start = time.monotonic()
            self._save(self.checkpoints)
            self._saved_at, self._save_s = time.monotonic(), time.monotonic() - start

    def _save(self, checkpoints: Checkpoints) -> None:
        tensors, numbers = state_of(self._optimisers)
        kinds: dict[str, dict[str, Any]] = {"now": dict(self._named()), "best": self._best, "optimiser": tensors, "rng": {"cpu": torch.random.get_rng_state()}}
        if self.device.type == "cuda":
            kinds["rng"]["cuda"] = torch.cuda.get_rng_state()
        if self._average is not None:
            kinds["average"] = self._average.mean
        arrays = {f"{kind}/{name}": to_array(value) for kind, values in kinds.items() for name, value in values.items()}
        steps = [(s.step, s.loss, s.valid_score) for s in self.curve.steps]
        values = {"at": asdict(self._at), "fitted": asdict(self.fitted), "optimiser": numbers, "scaler": self._scaler.state_dict(), "score_s": self._score_s, "curve": steps}
        checkpoints.save(arrays, values)

    def _resume(self) -> None:
        state = None if self.checkpoints is None else self.checkpoints.load()
        if state is None:
            return
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as e:
            raise DamagedCheckpoint(type(e).__name__) from e
        self.curve.progress.note("neural.resumed", steps=self.fitted.steps)

    def _restore(self, state: State) -> None:
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, array in state.arrays.items():
            kind, name = key.split("/", 1)
            kinds.setdefault(kind, {})[name] = torch.from_numpy(array)
        values = state.values
        at, fitted = _Place(**values["at"]), Fitted(**values["fitted"])
        self._put(kinds["now"])
        take_state(self._optimisers, kinds.get("optimiser", {}), values["optimiser"])
        self._scaler.load_state_dict(values["scaler"])
        self._best = {name: value.to(self.device) for name, value in kinds.get("best", {}).items()}
        if self._average is not None:
            self._average.mean = {name: value.to(self.device) for name, value in kinds["average"].items()}
        self._rng.bit_generator.state = at.rng
        torch.random.set_rng_state(kinds["rng"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(kinds["rng"]["cuda"])
        self._at, self.fitted, self._score_s = at, fitted, values["score_s"]
        self.curve.steps[:] = [Step(*step) for step in values["curve"]]


def to_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """(ids, mask, grams) on ``device``."""
    grams = None if batch.grams is None else torch.from_numpy(batch.grams).to(device)
    return torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device), grams


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while group := list(islice(batches, size)):
        yield group


def _out_of_memory(e: Exception) -> bool:
    """Whether memory ran out: a class of its own on a card, a sentence on the processor."""
    return isinstance(e, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(e)
