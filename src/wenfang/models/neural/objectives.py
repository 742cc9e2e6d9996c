"""What training minimises: cross entropy of classes, of tags, or a CRF over tags. Knows nothing of optimisers or schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import Batch, Piece
from .crf_layer import CrfLayer

__all__ = ["ClassObjective", "Objective", "TagObjective", "balanced_weights", "parameters_of"]


class Objective(Protocol):
    """A loss over the scores of one batch."""

    crf: CrfLayer | None

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """A scalar."""
        ...


class ClassObjective:
    """Weighted cross entropy; the windows of one text share its weight.

    Args:
        labels: class of each text, shape (n,).
        pieces: the texts' windows.
        smoothing: share of the target spread over all classes.
        class_weights: shape (L,), or None.
    """

    crf: CrfLayer | None = None

    def __init__(self, labels: npt.NDArray[np.int64], pieces: Sequence[Piece], *, smoothing: float, class_weights: npt.NDArray[np.float32] | None) -> None:
        texts = np.array([p.text for p in pieces], np.int64)
        self.smoothing = smoothing
        self.labels = torch.from_numpy(labels[texts])
        share = 1.0 / np.bincount(texts, minlength=len(labels))[texts]
        self.weights = torch.from_numpy((share * (1.0 if class_weights is None else class_weights[labels[texts]])).astype(np.float32))

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Mean over the batch, weighted."""
        rows = torch.from_numpy(batch.rows)
        labels, weights = self.labels[rows].to(scores.device), self.weights[rows].to(scores.device)
        loss = F.cross_entropy(scores, labels, reduction="none", label_smoothing=self.smoothing)
        return (loss * weights).sum() / weights.sum()


class TagObjective:
    """A CRF's negative log likelihood for each piece, or cross entropy for each token.

    Args:
        tags: tags of each text's tokens.
        pieces: the texts' windows.
        head: special tokens before a text.
        crf: the layer, or None.
        smoothing: without a CRF, share of the target spread over all tags.
    """

    def __init__(self, tags: Sequence[npt.NDArray[np.int32]], pieces: Sequence[Piece], *, head: int, crf: CrfLayer | None, smoothing: float = 0.0) -> None:
        self.tags = tags
        self.pieces = pieces
        self.head = head
        self.crf = crf
        self.smoothing = smoothing

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Mean over the pieces (CRF) or tokens; pieces without tokens teach nothing."""
        T = int(batch.lengths.max())
        rows: list[int] = batch.rows.tolist()
        target = np.zeros((len(rows), T), np.int64)
        for b, row in enumerate(rows):
            piece = self.pieces[row]
            target[b, : batch.lengths[b]] = self.tags[piece.text][piece.start : piece.end]
        there = np.flatnonzero(batch.lengths)
        if not len(there):
            return scores.sum() * 0.0
        emissions = scores[torch.from_numpy(there), self.head : self.head + T]
        tags = torch.from_numpy(target[there]).to(scores.device)
        lengths = torch.from_numpy(batch.lengths[there].astype(np.int64)).to(scores.device)
        if self.crf is not None:
            return self.crf(emissions, tags, lengths).mean()
        inside = torch.arange(T, device=scores.device)[None] < lengths[:, None]
        return F.cross_entropy(emissions[inside], tags[inside], label_smoothing=self.smoothing)


def balanced_weights(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float32]:
    """Class weights by the square root of the inverse frequency, mean 1 over the examples: lifts the tail without drowning the head."""
    frequency = np.maximum(1, np.bincount(labels, minlength=count)) / len(labels)
    weights = 1.0 / np.sqrt(frequency)
    return (weights / weights[labels].mean()).astype(np.float32)


def parameters_of(network: nn.Module, objective: Objective) -> list[nn.Parameter]:
    """Everything that learns."""
    return [*network.parameters(), *(objective.crf.parameters() if objective.crf is not None else [])]
