"""What grams say of labels by their counts alone: how much each tells them apart, and for which label it speaks how loudly.

Nothing is learned step by step, so a label with three examples is heard as well as one with thousands. Needs numpy only.
Sources: Wang & Manning, Baselines and Bigrams, 2012; McCallum & Nigam, A Comparison of Event Models for Naive Bayes, 1998;
MacKay & Peto, A Hierarchical Dirichlet Language Model, 1995 (counts of a label lean on those of all).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bags import Bags
from .gold import Gold

__all__ = ["contrast", "label_counts", "log_ratios"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_LEAN = 0.2
"""Weight of the grams of all labels in the counts of one, against the mean mass of a label."""


def label_counts(bags: Bags, gold: Gold, V: int) -> F64:
    """In how many examples of each label (by weight) each gram stands, shape (V, L)."""
    cell, label, weight = gold.pairs(bags.starts)
    return np.bincount(bags.rows[cell].astype(np.int64) * gold.L + label, weight, V * gold.L).astype(np.float64).reshape(V, gold.L)


def contrast(counts: F64, bags: Bags, gold: Gold) -> F32:
    """How much each gram tells the labels apart: the largest absolute log-count ratio, shape (V,).

    Args:
        counts: of ``label_counts``, shape (V, L).
        bags: n bags.
        gold: their labels; an example may have several or none.
    """
    own = counts + 1.0
    total = np.bincount(bags.rows, np.repeat(gold.weights, np.diff(bags.starts)), len(counts))
    rest = np.maximum(total[:, None] - counts, 0.0) + 1.0
    ratio = np.log(own / own.sum(axis=0)) - np.log(rest / rest.sum(axis=0))
    return np.abs(ratio).max(axis=1, initial=0.0).astype(np.float32)


def log_ratios(counts: F64) -> F32:
    """How much more frequent each gram is under each label than over all, as a logarithm, shape (V, L).

    Args:
        counts: of ``label_counts``, shape (V, L).
    """
    shares = counts.sum(axis=1, keepdims=True) / max(1e-12, float(counts.sum()))
    mass = counts.sum(axis=0)
    lean = _LEAN * max(1e-12, float(mass.mean()))
    return (np.log((counts + lean * shares) / (mass + lean)) - np.log(np.maximum(shares, 1e-300))).astype(np.float32)
