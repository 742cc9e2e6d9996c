"""What training minimises: cross entropy of classes with its long-tail kin, of tags, or a CRF over tags. Knows nothing of optimisers or schedules.

An objective gives the weighted sum over a batch and the weight of that sum apart, so that a step may be computed in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import Batch, Piece
from .crf_layer import CrfLayer

__all__ = ["ClassLoss", "ClassObjective", "Objective", "SigmoidObjective", "TagObjective", "balanced_weights", "effective_weights", "parameters_of"]

Floats = npt.NDArray[np.float32]
ClassLoss = Literal["cross-entropy", "focal", "class-balanced", "ldam"]
BETA = 0.999
"""Class-balanced loss: the share of a class's examples that the next one repeats."""


class Objective(Protocol):
    """A loss over the scores of one batch."""

    @property
    def layer(self) -> nn.Module | None:
        """Its own parameters."""
        ...

    def weight(self, batch: Batch) -> float:
        """What the batch counts; 0: it teaches nothing."""
        ...

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """A scalar: the weighted sum of losses."""
        ...

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """A scalar: the weighted sum of how far two answers to the same batch disagree, as symmetric KL divergence."""
        ...


class ClassObjective:
    """Cross entropy of classes; the windows of one text share its weight.

    Args:
        labels: class of each text, shape (n,).
        pieces: the texts' windows.
        count: L.
        smoothing: share of the target spread over all classes.
        weights: of each text, shape (n,).
        loss: which kin of cross entropy.
        gamma: focal loss: how much sure answers fade.
        margin: LDAM: how far the rarest class must lead.
        adjustment: times the log prior, added to the scores while training, so that the scores themselves favour no class.

    Source: focal: Lin et al. 2017; class-balanced: Cui et al. 2019; LDAM: Cao et al. 2019 (on plain scores); logit adjustment: Menon et al. 2021, equation 10.
    """

    layer: nn.Module | None = None

    def __init__(
        self, labels: npt.NDArray[np.int64], pieces: Sequence[Piece], *, count: int, smoothing: float = 0.0, weights: Floats | None = None, loss: ClassLoss = "cross-entropy",
        gamma: float = 2.0, margin: float = 1.0, adjustment: float = 0.0,
    ) -> None:  # fmt: skip
        texts = np.array([p.text for p in pieces], np.int64)
        frequency = np.maximum(1, np.bincount(labels, minlength=count))
        own = np.ones(len(labels), np.float32) if weights is None else weights
        if loss == "class-balanced":
            own = own * effective_weights(labels, count)
        self.smoothing = smoothing
        self.gamma = gamma if loss == "focal" else 0.0
        self.labels = torch.from_numpy(labels[texts])
        self.weights = torch.from_numpy((own[texts] / np.bincount(texts, minlength=len(labels))[texts]).astype(np.float32))
        tail = frequency.astype(np.float64) ** -0.25
        lead = margin * tail / tail.max() if loss == "ldam" else np.zeros(count)
        self.lead = torch.from_numpy(lead.astype(np.float32))
        self.prior = torch.from_numpy((adjustment * np.log(frequency / frequency.sum())).astype(np.float32))

    def weight(self, batch: Batch) -> float:
        """Weights of the rows together."""
        return float(self.weights[torch.from_numpy(batch.rows)].sum())

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Weighted sum over the rows."""
        rows = torch.from_numpy(batch.rows)
        labels = self.labels[rows].to(scores.device)
        shifted = scores + self.prior.to(scores.device) - F.one_hot(labels, scores.shape[1]) * self.lead.to(scores.device)[labels][:, None]
        loss = F.cross_entropy(shifted, labels, reduction="none", label_smoothing=self.smoothing)
        if self.gamma:
            sure = shifted.softmax(dim=1).gather(1, labels[:, None])[:, 0]
            loss = loss * (1 - sure) ** self.gamma
        return (loss * self.weights[rows].to(scores.device)).sum()

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """Over the rows."""
        return (_divergence(one, other) * self.weights[torch.from_numpy(batch.rows)].to(one.device)).sum()


class SigmoidObjective:
    """Binary cross entropy of each output: any of L labels, or a grade.

    Args:
        targets: of each text, 0..1, shape (n, L).
        pieces: the texts' windows.
        weights: of each text, shape (n,).
    """

    layer: nn.Module | None = None

    def __init__(self, targets: Floats, pieces: Sequence[Piece], *, weights: Floats | None = None) -> None:
        texts = np.array([p.text for p in pieces], np.int64)
        own = np.ones(len(targets), np.float32) if weights is None else weights
        self.targets = torch.from_numpy(targets[texts].astype(np.float32))
        self.weights = torch.from_numpy((own[texts] / np.bincount(texts, minlength=len(targets))[texts]).astype(np.float32))

    def weight(self, batch: Batch) -> float:
        """Weights of the rows together."""
        return float(self.weights[torch.from_numpy(batch.rows)].sum())

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Weighted sum over the rows, of each the sum over its outputs."""
        rows = torch.from_numpy(batch.rows)
        loss = F.binary_cross_entropy_with_logits(scores, self.targets[rows].to(scores.device), reduction="none").sum(dim=1)
        return (loss * self.weights[rows].to(scores.device)).sum()

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """Over the rows and their outputs."""
        loss = ((one.sigmoid() - other.sigmoid()) * (one - other)).sum(dim=1) / 2
        return (loss * self.weights[torch.from_numpy(batch.rows)].to(one.device)).sum()


class TagObjective:
    """A CRF's negative log likelihood for each piece, or cross entropy for each token.

    Args:
        tags: tags of each text's tokens.
        pieces: the texts' windows.
        head: special tokens before a text.
        crf: the layer, or None.
        smoothing: without a CRF, share of the target spread over all tags.
        weights: of each text, shape (n,).
    """

    def __init__(
        self, tags: Sequence[npt.NDArray[np.int32]], pieces: Sequence[Piece], *, head: int, crf: CrfLayer | None, smoothing: float = 0.0, weights: Floats | None = None
    ) -> None:
        self.tags = tags
        self.pieces = pieces
        self.head = head
        self.crf = crf
        self.smoothing = smoothing
        self.weights = np.ones(len(tags), np.float32) if weights is None else weights

    @property
    def layer(self) -> nn.Module | None:
        """The CRF."""
        return self.crf

    def weight(self, batch: Batch) -> float:
        """Pieces with tokens (CRF), or tokens, each with its text's weight."""
        return float((self._row_weights(batch) * (batch.lengths > 0 if self.crf is not None else batch.lengths)).sum())

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Weighted sum over the pieces (CRF) or tokens; pieces without tokens teach nothing."""
        T = int(batch.lengths.max())
        there = np.flatnonzero(batch.lengths)
        if not len(there):
            return scores.sum() * 0.0
        emissions = scores[torch.from_numpy(there).to(scores.device), self.head : self.head + T]
        tags = torch.from_numpy(self._targets(batch, T)[there]).to(scores.device)
        lengths = torch.from_numpy(batch.lengths[there].astype(np.int64)).to(scores.device)
        weights = torch.from_numpy(self._row_weights(batch)[there]).to(scores.device)
        if self.crf is not None:
            return (self.crf(emissions, tags, lengths) * weights).sum()
        inside = torch.arange(T, device=scores.device)[None] < lengths[:, None]
        loss = F.cross_entropy(emissions[inside], tags[inside], label_smoothing=self.smoothing, reduction="none")
        return (loss * weights[:, None].expand(-1, T)[inside]).sum()

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """Over the tokens, scaled as the loss is."""
        inside = torch.from_numpy(np.arange(one.shape[1])[None] - self.head < batch.lengths[:, None]).to(one.device)
        inside[:, : self.head] = False
        weights = torch.from_numpy(self._row_weights(batch)).to(one.device)
        if self.crf is not None:
            weights = weights / torch.from_numpy(np.maximum(1, batch.lengths)).to(one.device)
        return (_divergence(one, other) * inside * weights[:, None]).sum()

    def _targets(self, batch: Batch, T: int) -> npt.NDArray[np.int64]:
        target = np.zeros((len(batch.rows), T), np.int64)
        rows: list[int] = batch.rows.tolist()
        for b, row in enumerate(rows):
            piece = self.pieces[row]
            target[b, : batch.lengths[b]] = self.tags[piece.text][piece.start : piece.end]
        return target

    def _row_weights(self, batch: Batch) -> Floats:
        rows: list[int] = batch.rows.tolist()
        return self.weights[[self.pieces[row].text for row in rows]]


def _divergence(one: Tensor, other: Tensor) -> Tensor:
    """Mean of both KL divergences over the last axis."""
    p, q = one.log_softmax(dim=-1), other.log_softmax(dim=-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1) / 2


def balanced_weights(labels: npt.NDArray[np.int64], count: int) -> Floats:
    """Weight of each example by the square root of its class's inverse frequency, mean 1: lifts the tail without drowning the head; shape (n,)."""
    frequency = np.maximum(1, np.bincount(labels, minlength=count)) / len(labels)
    weights = (1.0 / np.sqrt(frequency))[labels]
    return (weights / weights.mean()).astype(np.float32)


def effective_weights(labels: npt.NDArray[np.int64], count: int) -> Floats:
    """Weight of each example by its class's effective number of examples, mean 1; shape (n,).

    Source: Cui et al. 2019, equation 2.
    """
    weights = ((1 - BETA) / (1 - BETA ** np.maximum(1, np.bincount(labels, minlength=count))))[labels]
    return (weights / weights.mean()).astype(np.float32)


def parameters_of(network: nn.Module, objective: Objective) -> list[nn.Parameter]:
    """Everything that learns."""
    return [*network.parameters(), *(objective.layer.parameters() if objective.layer is not None else [])]
