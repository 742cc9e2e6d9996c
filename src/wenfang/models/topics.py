"""What a text is about, as far as its labels tell: the label that its words make most likely to stand in it, and the next.

A ridge regression from a bag of forms and pairs to the presence of each label. What a training text reads is what a fit without it
would say (the leave-one-out identity of least squares). Needs numpy only. Knows nothing of tags.
Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2009, section 7.10 (leave-one-out by the hat matrix).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .features import U64, GramIndex, mix
from .jit import available
from .places import Places

__all__ = ["Topics"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FORMS = 1200
"""Forms and pairs that are read, the most frequent ones."""
_RIDGE = 1.0
_BLOCK = 4096
_GRAIN = float(1 << 24)
"""Parts of one to which weights are rounded: their sums are then exact, whatever the order."""


def _grams(places: Places) -> tuple[U64, I64]:
    """Each form and pair once for each text, and its text, ordered by text."""
    form = places.channel("form")
    text_of = np.repeat(np.arange(len(places.starts) - 1), np.diff(places.starts))
    inside = text_of[:-1] == text_of[1:]
    keys = np.concatenate([mix(form), mix(mix(form[:-1]) + _STEP * form[1:])[inside]])
    owner = np.concatenate([text_of, text_of[:-1][inside]])
    order = np.lexsort((keys, owner))
    keys, owner = keys[order], owner[order]
    new = np.ones(len(keys), np.bool_)
    new[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
    return keys[new], owner[new]


class Topics:
    """How forms and pairs speak for labels.

    Args:
        keys: hashes of V forms and pairs, sorted.
        table: shape (V + 1, L); the last row is the constant.
    """

    def __init__(self, keys: U64, table: F32) -> None:
        self.keys, self.table = keys, table
        self._index = GramIndex(keys)
        self._wide = np.round(table.astype(np.float64) * _GRAIN) / _GRAIN

    @classmethod
    def learn(cls, places: Places, present: npt.NDArray[np.bool_]) -> tuple[Topics, dict[str, U64]]:
        """Fit; also the channels of ``places``, each text read without itself.

        Args:
            places: of B texts.
            present: which of L labels stand in each text, shape (B, L).

        Cost: ``B * V`` times V multiplications: about 1 CPU-s for 10,000 texts.
        """
        keys, _ = _grams(places)
        known, times = np.unique(keys, return_counts=True)
        kept = np.sort(known[np.argsort(-times, kind="stable")[:_FORMS]])
        empty = cls(kept, np.zeros((len(kept) + 1, present.shape[1]), np.float32))
        bags, right = empty._bags(places), present.astype(np.float32)
        gram = bags.T @ bags
        gram[np.diag_indices_from(gram)] += _RIDGE
        inverse = np.linalg.inv(gram.astype(np.float64)).astype(np.float32)
        table = np.asarray(inverse @ (bags.T @ right), np.float32)
        said = np.asarray(bags @ table, np.float32)
        for at in range(0, len(bags), _BLOCK):
            block = bags[at : at + _BLOCK]
            lever = np.minimum(((block @ inverse) * block).sum(axis=1, keepdims=True), 0.99)
            said[at : at + _BLOCK] = (said[at : at + _BLOCK] - lever * right[at : at + _BLOCK]) / (1 - lever)
        return cls(kept, table), _channels(said, places)

    def _bags(self, places: Places) -> F32:
        keys, owner = _grams(places)
        row = self._index.rows(keys)
        bags = np.zeros((len(places.starts) - 1, len(self.keys) + 1), np.float32)
        bags[owner[row >= 0], row[row >= 0]] = 1.0
        bags /= np.sqrt(np.maximum(1.0, bags.sum(axis=1, keepdims=True)))
        bags[:, -1] = 1.0
        return bags

    def channels(self, places: Places) -> dict[str, U64]:
        """``topic``: the likeliest label of the text at each of its places; ``topics``: the likeliest two.

        Cost: about 0.03 microseconds per place with numba.
        """
        B = len(places.starts) - 1
        said, sizes = np.zeros((B, self.table.shape[1])), np.zeros(B, np.int64)
        if available():
            from .lookup import speak

            index = self._index
            if len(index):
                speak(places.channel("form"), places.starts, index.keys, index.first, index.shift, self._wide, said, sizes)
        else:
            keys, owner = _grams(places)
            row = self._index.rows(keys)
            owner, row = owner[row >= 0], row[row >= 0]
            sizes = np.bincount(owner, minlength=B)
            for label in range(said.shape[1]):
                said[:, label] = np.bincount(owner, self._wide[row, label], B)
        return _channels((said / np.sqrt(np.maximum(1, sizes))[:, None] + self._wide[-1]).astype(np.float32), places)


def _channels(said: F32, places: Places) -> dict[str, U64]:
    order = np.argsort(-said, axis=1, kind="stable")
    first, second = order[:, 0], order[:, min(1, said.shape[1] - 1)]
    lengths = np.diff(places.starts)
    return {"topic": np.repeat(first, lengths).astype(np.uint64), "topics": np.repeat(first * said.shape[1] + second, lengths).astype(np.uint64)}
