"""What is right, as numbers: the labels of each example (one, several or none) and how much it counts. Knows nothing of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Examples

__all__ = ["Gold"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Gold:
    """Labels of n examples in one compressed array.

    Args:
        starts: where each example's labels begin, shape (n + 1,).
        labels: their numbers; for classification the one label of each example, shape (n,).
        weights: how much each example counts, shape (n,).
        L: number of labels there are.
    """

    starts: I64
    labels: I64
    weights: F32
    L: int

    @classmethod
    def of(cls, examples: Examples, names: Sequence[str]) -> Gold:
        """The gold of ``examples``; labels not in ``names`` are left out, so that a class may have none."""
        number = {name: i for i, name in enumerate(names)}
        sets: Iterable[Sequence[str]] = examples.label_sets if examples.task == "multilabel" else [(label,) for label in examples.labels]
        found = [[number[label] for label in labels if label in number] for labels in sets]
        starts = np.zeros(len(found) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, found), np.int64, len(found)), out=starts[1:])
        weights = np.array(examples.weights or np.ones(len(found)), np.float32)
        return cls(starts, np.fromiter((i for row in found for i in row), np.int64, int(starts[-1])), weights, len(names))

    def __len__(self) -> int:
        return len(self.weights)

    def take(self, rows: I64) -> Gold:
        """The examples at ``rows``, in that order."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at: I64 = np.arange(int(starts[-1])) + np.repeat(self.starts[rows] - starts[:-1], sizes)
        return Gold(starts, self.labels[at], self.weights[rows], self.L)

    def owners(self) -> I64:
        """The example of each label, as long as ``labels``."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def matrix(self) -> npt.NDArray[np.bool_]:
        """Which labels each example has, shape (n, L)."""
        out = np.zeros((len(self), self.L), np.bool_)
        out[self.owners(), self.labels] = True
        return out

    def mass(self) -> npt.NDArray[np.float64]:
        """Weight of the examples of each label, shape (L,)."""
        return np.bincount(self.labels, self.weights[self.owners()], self.L).astype(np.float64)

    def pairs(self, starts: I64) -> tuple[I64, I64, F32]:
        """Every cell of a bag with every label of its example: place of the cell, label, weight.

        Args:
            starts: where each example's cells begin, shape (n + 1,).
        """
        owner = self.owners()
        sizes = np.diff(starts)[owner]
        ends = np.cumsum(sizes)
        at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts[owner] - (ends - sizes), sizes)
        return at, np.repeat(self.labels, sizes), np.repeat(self.weights[owner], sizes)
