"""Tokens as padded arrays: long texts cut into windows, windows of like length put together. Knows nothing of networks.

Padding is what dynamic batching wastes: sorting by length inside a wide window of shuffled rows leaves 1-2 % of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .tokens import Encoded, Ids, Tokens

__all__ = ["Batch", "Piece", "Stacker", "buckets", "pieces_of", "windows"]

ROUND = 100
"""Batches that are sorted together: wide enough for little padding, narrow enough to stay shuffled."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``[start, end)`` of text ``text``; those in ``[keep_start, keep_end)`` are answered by this piece."""

    text: int
    start: int
    end: int
    keep_start: int
    keep_end: int


@dataclass(frozen=True, slots=True)
class Batch:
    """B pieces padded to T tokens, special tokens included."""

    rows: npt.NDArray[np.intp]
    """Which pieces, shape (B,)."""
    ids: Ids
    """Shape (B, T)."""
    mask: npt.NDArray[np.bool_]
    """True where a token stands, shape (B, T)."""
    grams: Ids | None
    """Shape (B, T, G)."""
    lengths: npt.NDArray[np.int32]
    """Tokens of each piece without the special ones, shape (B,)."""
    targets: Ids | None = None
    """What the network should say at each token, shape (B, T), -1 where it is not asked; None: the objective knows."""

    def parts(self, count: int) -> list[Batch]:
        """The batch in up to ``count`` pieces of consecutive rows, each only as wide as its own longest row."""
        B = len(self.rows)
        if count <= 1 or B <= 1:
            return [self]
        borders = np.linspace(0, B, min(count, B) + 1).astype(int).tolist()
        return [self._rows(a, b) for a, b in pairwise(borders)]

    def _rows(self, start: int, end: int) -> Batch:
        T = int(self.mask[start:end].sum(axis=1).max())

        def cut(array: Ids | None) -> Ids | None:
            return None if array is None else array[start:end, :T]

        return Batch(self.rows[start:end], self.ids[start:end, :T], self.mask[start:end, :T], cut(self.grams), self.lengths[start:end], cut(self.targets))


def windows(length: int, size: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """``(start, end, keep_start, keep_end)`` of pieces of at most ``size`` that cover ``length`` tokens; the kept parts tile it exactly.

    >>> windows(10, 6, 2)
    [(0, 6, 0, 5), (4, 10, 5, 10)]
    >>> windows(0, 6, 2)
    [(0, 0, 0, 0)]
    """
    if length <= size:
        return [(0, length, 0, length)]
    step = size - overlap
    count = 1 + -(-(length - size) // step)
    starts = [min(i * step, length - size) for i in range(count)]
    borders = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), length]
    return [(s, s + size, borders[i], borders[i + 1]) for i, s in enumerate(starts)]


def pieces_of(encoded: Sequence[Encoded], size: int, *, overlap: int = 0, at_most: int | None = None) -> list[Piece]:
    """Every text cut into pieces, in order; with ``at_most``, that many of a text, evenly spread over it."""
    pieces: list[Piece] = []
    for i, text in enumerate(encoded):
        cut = windows(len(text.ids), size, overlap)
        if at_most is not None and len(cut) > at_most:
            cut = [cut[round(k * (len(cut) - 1) / max(1, at_most - 1))] for k in range(at_most)]
        pieces += [Piece(i, *w) for w in cut]
    return pieces


def buckets(lengths: npt.NDArray[np.int32], budget_tokens: int, rng: np.random.Generator | None = None) -> Iterator[npt.NDArray[np.intp]]:
    """Rows in batches of at most ``budget_tokens`` padded tokens (a longer row stands alone).

    Args:
        lengths: tokens of each row, shape (n,).
        budget_tokens: rows × longest row of a batch.
        rng: shuffles rows and batches; None: all rows by length, longest last.
    """
    if rng is None:
        yield from _cut(np.argsort(lengths, kind="stable"), lengths, budget_tokens)
        return
    order = rng.permutation(len(lengths))
    per_round = max(1, int(ROUND * budget_tokens / max(1.0, float(lengths.mean()))))
    for start in range(0, len(order), per_round):
        part = order[start : start + per_round]
        batches = list(_cut(part[np.argsort(lengths[part], kind="stable")], lengths, budget_tokens))
        for i in rng.permutation(len(batches)):
            yield batches[i]


def _cut(order: npt.NDArray[np.intp], lengths: npt.NDArray[np.int32], budget_tokens: int) -> Iterator[npt.NDArray[np.intp]]:
    start = 0
    sorted_lengths = lengths[order].tolist()
    for i, length in enumerate(sorted_lengths):
        if i > start and (i - start + 1) * length > budget_tokens:
            yield order[start:i]
            start = i
    if start < len(order):
        yield order[start:]


class Stacker:
    """Pads chosen pieces into a ``Batch``.

    Args:
        encoded: n texts.
        pieces: their pieces.
        tokens: gives the special tokens.
    """

    def __init__(self, encoded: Sequence[Encoded], pieces: Sequence[Piece], tokens: Tokens) -> None:
        self.encoded = encoded
        self.pieces = pieces
        self.tokens = tokens
        self.special = len(tokens.prefix) + len(tokens.suffix)
        self.lengths = np.array([p.end - p.start + self.special for p in pieces], np.int32)
        """Tokens of each piece, special ones included."""

    def stack(self, rows: npt.NDArray[np.intp]) -> Batch:
        """The pieces ``rows`` as arrays."""
        tokens = self.tokens
        lengths = self.lengths[rows]
        shape = (len(rows), int(lengths.max()))
        ids = np.full(shape, tokens.pad, np.int32)
        grams = np.zeros((*shape, tokens.gram_count), np.int32) if tokens.gram_count else None
        head = len(tokens.prefix)
        row_list: list[int] = rows.tolist()
        for b, row in enumerate(row_list):
            piece = self.pieces[row]
            text = self.encoded[piece.text]
            end = head + piece.end - piece.start
            ids[b, :head] = tokens.prefix
            ids[b, head:end] = text.ids[piece.start : piece.end]
            ids[b, end : end + len(tokens.suffix)] = tokens.suffix
            if grams is not None and text.grams is not None:
                grams[b, head:end] = text.grams[piece.start : piece.end]
        mask = np.arange(shape[1]) < lengths[:, None]
        return Batch(rows, ids, mask, grams, lengths - np.int32(self.special))
