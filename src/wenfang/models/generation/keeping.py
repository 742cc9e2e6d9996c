"""How likely each unit of a source stands in its target, and where such pieces begin and end: logistic regression over hashed features.

Knows nothing of how pieces are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wenfang.models.base import Curve

from .units import ROWS, Frequencies, Units, features_of

__all__ = ["HEADS", "Keeper", "kept_units"]

Floats = npt.NDArray[np.float32]
HEADS = 3
"""Kept, begins a piece, ends a piece."""
RATE = 0.15
DECAY = 1e-6
BATCH = 16
"""Texts of a step."""


def kept_units(source: Units, target: Units) -> npt.NDArray[np.float32]:
    """What there is to learn from one pair, shape (T, HEADS): units of pieces that stand in the target, two units long at least, or one word of another script."""
    wanted = set(zip(target.words, target.words[1:], strict=False))
    alone = {w for w in target.words if len(w) > 1}
    T = len(source)
    kept = np.zeros(T + 2, np.bool_)
    joined = np.zeros(T + 2, np.bool_)
    for i, word in enumerate(source.words):
        if source.mark[i]:
            continue
        if i + 1 < T and not source.mark[i + 1] and (word, source.words[i + 1]) in wanted:
            kept[i + 1] = kept[i + 2] = joined[i + 1] = True
        if word in alone:
            kept[i + 1] = True
    y = np.zeros((T, HEADS), np.float32)
    y[:, 0] = kept[1:-1]
    y[:, 1] = kept[1:-1] & ~joined[:-2]
    y[:, 2] = kept[1:-1] & ~joined[1:-1]
    return y


@dataclass(slots=True)
class Keeper:
    """What was learned.

    Args:
        weights: of each feature row, shape (ROWS, HEADS).
        bias: shape (HEADS,).
        frequencies: of pairs in the sources of training.
    """

    weights: Floats
    bias: Floats
    frequencies: Frequencies

    def scores(self, units: Units) -> npt.NDArray[np.float64]:
        """Log odds of each unit and head, shape (T, HEADS)."""
        if not len(units):
            return np.zeros((0, HEADS))
        return (self.weights[features_of(units, self.frequencies)].sum(axis=1) + self.bias).astype(np.float64)

    @classmethod
    def learn(cls, sources: Sequence[Units], targets: Sequence[Units], *, epochs: int, seed: int, curve: Curve, weights: Sequence[float] = ()) -> Keeper:
        """Fit by AdaGrad (Duchi et al. 2011)."""
        frequencies = Frequencies.of(sources)
        rows = [features_of(s, frequencies) for s in sources]
        ys = [kept_units(s, t) for s, t in zip(sources, targets, strict=True)]
        own = np.ones(len(rows)) if not weights else np.array(weights)
        share = np.clip(np.concatenate(ys).mean(axis=0) if ys else np.full(HEADS, 0.1), 1e-3, 1 - 1e-3)
        keeper = cls(np.zeros((ROWS, HEADS), np.float32), np.log(share / (1 - share)).astype(np.float32), frequencies)
        seen = np.full((ROWS, HEADS), 1e-3, np.float32)
        rng = np.random.default_rng(seed)
        for epoch in range(epochs):
            order: list[int] = rng.permutation(len(rows)).tolist()
            loss, count = 0.0, 0
            for at in range(0, len(order), BATCH):
                part = [i for i in order[at : at + BATCH] if len(rows[i])]
                if part:
                    loss += keeper._step(seen, np.concatenate([rows[i] for i in part]), np.concatenate([ys[i] for i in part]), np.repeat(own[part], [len(rows[i]) for i in part]))
                    count += sum(len(rows[i]) for i in part)
                if curve.late():
                    return keeper.rounded()
            curve.point(epoch + 1, loss=loss / max(1, count))
        return keeper.rounded()

    def rounded(self) -> Keeper:
        """With weights as they are stored, in half precision."""
        return Keeper(self.weights.astype(np.float16).astype(np.float32), self.bias, self.frequencies)

    def _step(self, seen: Floats, rows: npt.NDArray[np.int32], y: Floats, own: npt.NDArray[np.float64]) -> float:
        z = self.weights[rows].sum(axis=1) + self.bias
        p = 1 / (1 + np.exp(-z))
        right: Floats = np.abs(1 - y - p)  # the chance that was given to what is
        loss = -float((np.log(np.maximum(1e-9, right)).sum(axis=1) * own).sum())
        slope = (p - y) * own[:, None] / max(1, len(rows)) ** 0.5
        touched, inverse = np.unique(rows, return_inverse=True)
        flat: npt.NDArray[np.intp] = inverse.reshape(-1)
        for head in range(HEADS):
            total: Floats = np.bincount(flat, np.repeat(slope[:, head], rows.shape[1]), minlength=len(touched)).astype(np.float32) + DECAY * self.weights[touched, head]
            seen[touched, head] += total * total
            self.weights[touched, head] -= RATE * total / seen[touched, head] ** 0.5
        return loss
