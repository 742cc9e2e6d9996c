"""What answers from a bag of grams: a dense table for few labels, sparse prototypes for many. Needs numpy only.

Both give a bag the same scores alone and in a batch. Knows nothing of texts, nor of how the weights were learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .bags import Bags, sum_rows
from .gold import Gold

__all__ = ["Dense", "Head", "Prototypes", "bag_lengths", "scaled_bags", "scaled_units"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_EXPANDED_MAX = 1 << 22


def bag_lengths(bags: Bags, scale: F32) -> F64:
    """Length of each bag with scaled grams, never 0, shape (n,); ``scale`` has shape (V,)."""
    squares = (bags.values * scale[bags.rows]).astype(np.float64) ** 2
    return np.maximum(np.sqrt(np.bincount(bags.owners(), squares, len(bags))), 1e-12)


def scaled_units(bags: Bags, scale: F32) -> Bags:
    """The bags with scaled grams and length one; ``scale`` has shape (V,)."""
    return Bags(bags.starts, bags.rows, (bags.values * scale[bags.rows] / bag_lengths(bags, scale)[bags.owners()]).astype(np.float32))


def scaled_bags(bags: Bags, scale: F32, lengths: F64) -> tuple[Bags, F32]:
    """The bags with scaled grams, divided by ``lengths`` and one factor that makes them about one long; also ``scale`` over that factor.

    Args:
        bags: n bags.
        scale: of the grams, shape (V,).
        lengths: shape (n,).
    """
    values = bags.values * scale[bags.rows] / lengths[bags.owners()]
    factor = float(np.sqrt(max(1e-12, float((values**2).sum())) / max(1, len(bags))))
    return Bags(bags.starts, bags.rows, (values / factor).astype(np.float32)), (scale / factor).astype(np.float32)


class Dense:
    """One weight for each gram and label; whatever learned them, they are added up, for all read the bag divided by the same length.

    Args:
        table: shape (V, L).
        scale: of the grams where a bag's length is measured, shape (V,).
        bias: shape (L,).
    """

    format: ClassVar[Mapping[str, tuple[Any, int]]] = {"table": (np.float16, 2), "scale": (np.float32, 1), "bias": (np.float32, 1)}

    def __init__(self, table: npt.NDArray[np.float16], scale: F32, bias: F32) -> None:
        self.table, self.scale, self.bias = table, scale, bias
        self._wide = table.astype(np.float32)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What ``format`` lists."""
        return {"table": self.table, "scale": self.scale, "bias": self.bias}

    def fits(self, V: int, L: int) -> bool:
        """Whether the shapes are those of V grams and L labels."""
        return self.table.shape == (V, L) and self.scale.shape == (V,) and self.bias.shape == (L,)

    def scores(self, bags: Bags, L: int) -> F32:  # noqa: ARG002 as the other heads
        """Shape (n, L)."""
        sums = sum_rows(self._wide, bags)
        sums /= bag_lengths(bags, self.scale)[:, None].astype(np.float32)
        sums += self.bias
        return sums


@dataclass(slots=True)
class Prototypes:
    """Weights only where a gram and a label occur together: for each gram the labels it speaks for.

    Args:
        starts: where each gram's labels begin, shape (V + 1,).
        labels: ascending for each gram, shape (P,).
        values: weight of each, shape (P,).
        scale: of the grams, shape (V,).
    """

    format: ClassVar[Mapping[str, tuple[Any, int]]] = {"starts": (np.int64, 1), "labels": (np.int32, 1), "values": (np.float32, 1), "scale": (np.float32, 1)}

    starts: I64
    labels: npt.NDArray[np.int32]
    values: F32
    scale: F32

    @classmethod
    def average(cls, bags: Bags, gold: Gold, *, scale: F32, size_max: int) -> Prototypes:
        """The mean of each label's bags at length one; only the ``size_max`` heaviest weights.

        Args:
            bags: n bags of length one.
            gold: labels of each bag, and how much it counts.
            scale: of the grams, shape (V,).
            size_max: weights kept.

        Source: Rocchio, Relevance Feedback in Information Retrieval, 1971.
        """
        L, (cell, label, weight) = gold.L, gold.pairs(bags.starts)
        cells, place = np.unique(bags.rows[cell].astype(np.int64) * L + label, return_inverse=True)
        values = np.bincount(place, bags.values[cell] * weight, len(cells))
        label = cells % L
        values /= np.sqrt(np.maximum(np.bincount(label, values**2, L), 1e-24))[label]
        if len(values) > size_max:
            kept = np.sort(np.argsort(-values, kind="stable")[:size_max])
            cells, label, values = cells[kept], label[kept], values[kept]
        starts = np.searchsorted(cells // L, np.arange(len(scale) + 1)).astype(np.int64)
        return cls(starts, label.astype(np.int32), values.astype(np.float32), scale)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What ``format`` lists."""
        return {"starts": self.starts, "labels": self.labels, "values": self.values, "scale": self.scale}

    def fits(self, V: int, L: int) -> bool:
        """Whether the shapes and label numbers are those of V grams and L labels."""
        P = len(self.labels)
        ordered = len(self.starts) == V + 1 and self.starts[0] == 0 and self.starts[-1] == P and bool((np.diff(self.starts) >= 0).all())
        return ordered and self.values.shape == (P,) and self.scale.shape == (V,) and (P == 0 or 0 <= int(self.labels.min()) <= int(self.labels.max()) < L)

    def scores(self, bags: Bags, L: int) -> F32:
        """Shape (n, L): cosine of bag and prototype, where learning has not moved it."""
        units = scaled_units(bags, self.scale)
        sizes = np.diff(self.starts)[bags.rows]
        ends = np.concatenate([[0], np.cumsum(sizes)])[bags.starts]  # weights touched before each bag
        out = np.zeros((len(bags), L), np.float32)
        i = 0
        while i < len(bags):
            end = max(i + 1, int(np.searchsorted(ends, ends[i] + _EXPANDED_MAX, "right")) - 1)
            if end == i + 1:
                self._add_one(out[i], units, sizes, i)
            else:
                cut = slice(int(bags.starts[i]), int(bags.starts[end]))
                owner = np.repeat(np.arange(end - i), np.diff(bags.starts[i : end + 1]))
                out[i:end] = self._expanded(units, sizes, cut, owner, (end - i) * L, L).reshape(-1, L)
            i = end
        return out

    def _add_one(self, out: F32, units: Bags, sizes: I64, i: int) -> None:
        """One bag alone; a bag that touches very many weights comes in pieces that depend on nothing else."""
        start, stop = int(units.starts[i]), int(units.starts[i + 1])
        touched: I64 = np.cumsum(sizes[start:stop])
        cuts = [start, stop]
        if len(touched) and touched[-1] > _EXPANDED_MAX:
            marks: list[int] = np.searchsorted(touched, np.arange(_EXPANDED_MAX, int(touched[-1]), _EXPANDED_MAX)).tolist()
            cuts[1:1] = [start + m for m in marks]
        for a, b in pairwise(cuts):
            out += self._expanded(units, sizes, slice(a, b), np.zeros(b - a, np.int64), len(out), len(out)).astype(np.float32)

    def _expanded(self, units: Bags, sizes: I64, cut: slice, owner: I64, bins: int, L: int) -> npt.NDArray[np.float64]:
        n = sizes[cut]
        total = int(n.sum())
        first = self.starts[units.rows[cut]] - np.concatenate([[0], np.cumsum(n)[:-1]]) if len(n) else np.zeros(0, np.int64)
        at = np.repeat(first, n) + np.arange(total)
        weights: npt.NDArray[np.float64] = (np.repeat(units.values[cut], n) * self.values[at]).astype(np.float64)
        return np.bincount(np.repeat(owner, n) * L + self.labels[at], weights, bins).astype(np.float64)


Head = Dense | Prototypes
