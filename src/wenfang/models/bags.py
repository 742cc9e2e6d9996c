"""Texts as bags of n-grams: a vocabulary counted over the training texts, and sparse rows (grams of each text with their weight).

Knows nothing of labels. Rows of a text do not depend on the batch it comes in: grams are in the order of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .features import U64, GramIndex, Grams, ngrams, text_blocks
from .words import word_grams

__all__ = ["Bags", "Recipe", "bag_texts", "count_vocabulary", "sum_rows"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_BLOCK_CHARS = 1 << 21
_SEEN_MAX = 40_000_000
"""Distinct grams kept while counting; above it those seen once so far are forgotten."""
_CELLS_MAX = 1 << 22
_LOG_TF = (1.0 + np.log(np.arange(1, 4097))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which grams a text has."""

    shortest: int
    """Characters of the shortest character n-gram."""
    longest: int
    words: int = 0
    """Words of the longest word n-gram; 0: none. Only scripts that write blanks between words have words."""

    def grams(self, texts: Sequence[str]) -> Grams:
        """All grams of the texts; equal keys of one text come in text order."""
        characters = ngrams(texts, shortest=self.shortest, longest=self.longest)
        if not self.words:
            return characters
        words = word_grams(texts, self.words)
        return Grams(np.concatenate([characters.keys, words.keys]), np.concatenate([characters.text_of, words.text_of])) if len(words.keys) else characters


@dataclass(frozen=True, slots=True)
class Bags:
    """n bags in one compressed sparse matrix of shape (n, V)."""

    starts: I64
    """Where each bag begins, shape (n + 1,)."""
    rows: npt.NDArray[np.int32]
    """Gram of each cell, ascending inside a bag."""
    values: F32
    """1 + log(count) of each cell."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def owners(self) -> I64:
        """The bag of each cell."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


def _distinct(texts: Sequence[str], recipe: Recipe) -> tuple[U64, I64]:
    """Distinct grams and in how many of the texts each occurs."""
    grams = recipe.grams(texts)
    order = np.argsort(grams.keys, kind="stable")
    keys, owners = grams.keys[order], grams.text_of[order]
    new = np.ones(len(keys), np.bool_)
    new[1:] = (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1])  # a gram has one length, and grams of one length come in text order
    return np.unique(keys[new], return_counts=True)


def count_vocabulary(texts: Sequence[str], recipe: Recipe, *, min_count: int, size_max: int) -> tuple[GramIndex, I64]:
    """The grams that stand in at least ``min_count`` texts, the ``size_max`` most frequent of them, and their text counts.

    Cost: about 200 ns per gram; memory is bounded by the distinct grams kept.
    """
    keys, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for start, end in text_blocks(texts, _BLOCK_CHARS):
        more, more_counts = _distinct(texts[start:end], recipe)
        if not len(keys):
            keys, counts = more, more_counts
            continue
        keys, place = np.unique(np.concatenate([keys, more]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, more_counts]), len(keys)).astype(np.int64)
        if len(keys) > _SEEN_MAX:
            keys, counts = keys[counts > 1], counts[counts > 1]
    kept = counts >= min_count
    keys, counts = keys[kept], counts[kept]
    if len(keys) > size_max:
        best = np.sort(np.argsort(-counts, kind="stable")[:size_max])
        keys, counts = keys[best], counts[best]
    return GramIndex(keys), counts


def bag_texts(texts: Sequence[str], index: GramIndex, recipe: Recipe) -> Bags:
    """The bags of ``texts``; grams that ``index`` does not know are left out."""
    V = max(1, len(index))
    parts: list[tuple[npt.NDArray[np.int32], F32, I64]] = []
    for start, end in text_blocks(texts, _BLOCK_CHARS):
        grams = recipe.grams(texts[start:end])
        rows = index.rows(grams.keys)
        known = rows >= 0
        cells = np.sort(grams.text_of[known].astype(np.int64) * V + rows[known])
        first = np.ones(len(cells), np.bool_)
        first[1:] = cells[1:] != cells[:-1]
        at = np.flatnonzero(first)
        times = np.diff(np.append(at, len(cells)))
        owner, row = np.divmod(cells[at], V)
        parts.append((row.astype(np.int32), _LOG_TF[np.minimum(times, len(_LOG_TF)) - 1], np.bincount(owner, minlength=end - start)))
    starts = np.zeros(len(texts) + 1, np.int64)
    if not parts:
        return Bags(starts, np.zeros(0, np.int32), np.zeros(0, np.float32))
    np.cumsum(np.concatenate([p[2] for p in parts]), out=starts[1:])
    return Bags(starts, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def sum_rows(table: npt.NDArray[np.floating], bags: Bags) -> F32:
    """``bags @ table``, shape (n, W), added up in an order that depends on each bag alone.

    Args:
        table: shape (V, W), float16 or float32.
        bags: n bags over V grams.
    """
    n, W = len(bags), table.shape[1]
    out = np.zeros((n, W), np.float32)
    piece = max(1, _CELLS_MAX // W)
    sizes = np.diff(bags.starts)
    i = 0
    while i < n:
        end = max(i + 1, int(np.searchsorted(bags.starts, bags.starts[i] + piece, "right")) - 1)
        if sizes[i] > piece:  # one very long text: in pieces
            for at in range(int(bags.starts[i]), int(bags.starts[i + 1]), piece):
                cut = slice(at, min(at + piece, int(bags.starts[i + 1])))
                out[i] += np.add.reduce(table[bags.rows[cut]].astype(np.float32) * bags.values[cut, None], axis=0)
            i += 1
            continue
        filled = i + np.flatnonzero(sizes[i:end])
        if len(filled):
            cut = slice(int(bags.starts[i]), int(bags.starts[end]))
            cells = table[bags.rows[cut]].astype(np.float32) * bags.values[cut, None]
            out[filled] = np.add.reduceat(cells, bags.starts[filled] - cut.start, axis=0)
        i = end
    return out
