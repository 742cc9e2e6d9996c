"""Long texts as the mean of their windows' vectors. Torch (while training) and onnxruntime (ever after) run behind the same function.

Needs numpy only; knows nothing of who runs the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .latent import normalised
from .neural.batches import Batch, Stacker, buckets, pieces_of
from .neural.tokens import Tokens

__all__ = ["sentence_vectors"]

AT_ONCE = 512
"""Texts whose outputs are held in memory together."""


def sentence_vectors(run: Callable[[Batch], Any], tokens: Tokens, texts: Sequence[str], *, size: int, budget_tokens: int) -> npt.NDArray[np.float32]:
    """Vectors of length one, shape (n, H).

    Args:
        run: a network with outputs (B, H).
        tokens: makes numbers of texts.
        texts: n strings.
        size: tokens that the network reads at once.
        budget_tokens: padded tokens of a batch; 0: every window alone.
    """
    parts = [_means(run, tokens, texts[i : i + AT_ONCE], size, budget_tokens) for i in range(0, len(texts), AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _means(run: Callable[[Batch], Any], tokens: Tokens, texts: Sequence[str], size: int, budget_tokens: int) -> npt.NDArray[np.float32]:
    encoded = tokens.encode(texts)
    pieces = pieces_of(encoded, size)
    stacker = Stacker(encoded, pieces, tokens)
    outputs: list[Any] = [None] * len(pieces)
    for rows in buckets(stacker.lengths, budget_tokens):
        for row, output in zip(rows.tolist(), run(stacker.stack(rows)), strict=True):
            outputs[row] = output
    vectors = normalised(np.stack(outputs))
    total = np.zeros((len(texts), vectors.shape[1]), np.float64)
    for piece, vector in zip(pieces, vectors, strict=True):
        total[piece.text] += max(1, piece.keep_end - piece.keep_start) * vector
    return normalised(total)
