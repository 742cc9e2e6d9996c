"""Where batches come from while training: one shuffled pass after another. Knows nothing of losses or networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .batches import Batch, Stacker, buckets

__all__ = ["Feed", "PieceFeed"]


class Feed(Protocol):
    """Passes over the training data."""

    batch_tokens: int
    """Padded tokens of a batch."""

    def epoch(self, rng: np.random.Generator) -> tuple[int, Iterator[Batch]]:
        """One pass: how many batches it has (or about how many), and they in order; equal ``rng``, equal batches."""
        ...


class PieceFeed:
    """Labelled texts in memory, shuffled into buckets of like length.

    Args:
        stacker: their pieces.
        batch_tokens: padded tokens of a batch.
    """

    def __init__(self, stacker: Stacker, batch_tokens: int) -> None:
        self.stacker = stacker
        self.batch_tokens = batch_tokens

    def epoch(self, rng: np.random.Generator) -> tuple[int, Iterator[Batch]]:
        """Every piece once."""
        batches = list(buckets(self.stacker.lengths, self.batch_tokens, rng))
        return len(batches), (self.stacker.stack(rows) for rows in batches)
