"""Forms that stand in the same company, learned from texts alone: what a tagger knows of one it may guess of the other.

Each form is described by what stands one and two places before and after it (positive pointwise mutual information, its strongest
directions only), then grouped by direction, coarsely and finely. Needs numpy only. Knows nothing of labels.
Source: Levy & Goldberg, Neural Word Embedding as Implicit Matrix Factorization, 2014; Halko, Martinsson & Tropp, Finding Structure
with Randomness, 2011; Dhillon & Modha, Concept Decompositions for Large Sparse Text Data, 2001 (grouping by direction).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .features import MARK, U64
from .places import Places

__all__ = ["Clusters"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_FORMS = 2000
"""Forms that are grouped, the most frequent ones."""
_DIRECTIONS = 64
_OFFSETS = ((-1, 1.0), (1, 1.0), (-2, 0.5), (2, 0.5))
_ROUNDS = 15
_COARSE, _FINE = 64, 256


class Clusters:
    """The groups of some forms.

    Args:
        forms: V of them, sorted.
        groups: coarse and fine group of each, from 1, shape (V, 2).
    """

    def __init__(self, forms: U64, groups: I64) -> None:
        self.forms, self.groups = forms, groups
        self._of_character = np.zeros((0, 2), np.uint64)
        if len(forms) and forms[-1] <= MARK:  # characters: a table is faster than a search
            self._of_character = np.zeros((MARK + 1, 2), np.uint64)
            self._of_character[forms.astype(np.int64)] = groups

    @classmethod
    def learn(cls, places: Places, seed: int) -> Clusters:
        """Group the forms of ``places``.

        Cost: about 1 CPU-s.
        """
        lined = np.full(len(places) + len(places.starts), np.uint64(MARK), np.uint64)
        lined[np.arange(len(places)) + np.repeat(np.arange(len(places.starts) - 1), np.diff(places.starts)) + 1] = places.channel("form")
        known, times = np.unique(lined, return_counts=True)
        kept = np.sort(np.argsort(-times, kind="stable")[:_FORMS])
        forms, weight = known[kept], np.sqrt(times[kept]).astype(np.float32)
        row = np.searchsorted(forms, lined)
        row = np.where(forms[np.minimum(row, len(forms) - 1)] == lined, row, -1)
        rng = np.random.default_rng(seed)
        described = _directions(np.concatenate([_company(row, len(forms), o) * np.float32(w) for o, w in _OFFSETS], axis=1), rng)
        groups = np.stack([_grouped(described, weight, k, rng) + 1 for k in (_COARSE, _FINE)], axis=1)
        return cls(forms, groups)

    def channels(self, places: Places) -> dict[str, U64]:
        """``cluster`` and ``fine``: the coarse and fine group of each place; 0 for forms that are in none."""
        form = places.channel("form")
        if not len(self.forms):
            return {"cluster": np.zeros(len(form), np.uint64), "fine": np.zeros(len(form), np.uint64)}
        if len(self._of_character):
            read = self._of_character[form.astype(np.int64)]
            return {"cluster": read[:, 0], "fine": read[:, 1]}
        row = np.minimum(np.searchsorted(self.forms, form), len(self.forms) - 1)
        known = self.forms[row] == form
        return {name: np.where(known, self.groups[row, k], 0).astype(np.uint64) for k, name in enumerate(("cluster", "fine"))}


def _company(row: I64, size: int, offset: int) -> F32:
    """Positive mutual information of each form and what stands ``offset`` places on, shape (V, V); rare company counts less."""
    here, there = (row[:-offset], row[offset:]) if offset > 0 else (row[-offset:], row[:offset])
    both = (here >= 0) & (there >= 0)
    counts = np.bincount(here[both] * size + there[both], minlength=size * size).reshape(size, size).astype(np.float32)
    share = np.maximum(counts.sum(axis=0), 1e-6) ** np.float32(0.75)
    expected = np.maximum(counts.sum(axis=1, keepdims=True), 1e-6) * (share / share.sum())
    return np.log(np.maximum(counts / expected, 1.0), dtype=np.float32)


def _directions(table: F32, rng: np.random.Generator) -> F32:
    """Rows of ``table`` in its strongest directions, scaled by the root of their strength, each of length one."""
    wanted = min(_DIRECTIONS, *table.shape)
    basis = table @ rng.normal(size=(table.shape[1], wanted + 16)).astype(np.float32)
    for _ in range(3):
        basis = table @ np.linalg.qr(table.T @ np.linalg.qr(basis)[0])[0]
    basis = np.linalg.qr(basis)[0]
    inner, strength, _ = np.linalg.svd(basis.T @ table, full_matrices=False)
    rows = (basis @ inner)[:, :wanted] * np.sqrt(strength[:wanted])
    return (rows / np.maximum(1e-9, np.linalg.norm(rows, axis=1, keepdims=True))).astype(np.float32)


def _grouped(rows: F32, weight: F32, k: int, rng: np.random.Generator) -> I64:
    """The group of each row by k-means on directions."""
    centres = rows[rng.choice(len(rows), min(k, len(rows)), replace=False, p=weight / weight.sum(dtype=np.float64))]
    for _ in range(_ROUNDS):
        group = (rows @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, rows * weight[:, None])
        length = np.linalg.norm(sums, axis=1)
        centres[length > 0] = sums[length > 0] / length[length > 0][:, None]
    return (rows @ centres.T).argmax(axis=1)
