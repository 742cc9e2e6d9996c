"""Decoding of a linear chain with numpy alone: what serves where numba is not installed. Its answers equal ``chain.decode`` to the bit.

Sentences are read side by side, longest first, one place at a time. Knows nothing of texts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["decode"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_SIDE_BY_SIDE = 64


def decode(scores: F32, odds: F64, starts: I64, transitions: F32, steps: F64, first: F64, last: F64, path: I32, scales: F64, ends: F64) -> None:
    """Best legal path of each sentence, and the parts of its log partition.

    Args:
        scores: shape (N, L).
        odds: exponentials of the scores relative to the best of each place, shape (N, L).
        starts: where each sentence begins, shape (n + 1,).
        transitions: minus infinity where illegal, shape (L, L).
        steps: exponentials of the transitions, shape (L, L).
        first: 1 where a tag may stand first, shape (L,); ``last`` likewise.
        last: see ``first``.
        path: filled with tags, shape (N,).
        scales: filled with the scale of each place, shape (N,).
        ends: filled with the last forward vector where a path may end, shape (n, L).
    """
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    for at in range(0, len(order), _SIDE_BY_SIDE):
        _decode_group(order[at : at + _SIDE_BY_SIDE], scores, odds, starts, transitions, steps, first, last, path, scales, ends)


def _decode_group(rows: I64, scores: F32, odds: F64, starts: I64, transitions: F32, steps: F64, first: F64, last: F64, path: I32, scales: F64, ends: F64) -> None:
    begin, lengths = starts[rows], np.diff(starts)[rows]
    T, L = int(lengths[0]), scores.shape[1]
    arrivals = np.ascontiguousarray(transitions.T)
    back = np.zeros((T, len(rows), L), np.uint16)
    best = np.where(first > 0, np.float32(0), np.float32(-np.inf)) + scores[begin]
    alpha = first * odds[begin]
    for t in range(T):
        live = int(np.searchsorted(-lengths, -t, "left"))  # sentences longer than t
        at = begin[:live] + t
        if t:
            candidates = best[:live, None, :] + arrivals
            chosen = candidates.argmax(axis=2)
            back[t, :live] = chosen
            best[:live] = np.take_along_axis(candidates, chosen[:, :, None], axis=2)[:, :, 0] + scores[at]
            alpha[:live] = np.add.reduce(alpha[:live, :, None] * steps, axis=1) * odds[at]
        scale = alpha[:live].max(axis=1)
        scales[at] = scale
        alpha[:live] /= scale[:, None]
        best[:live] -= best[:live].max(axis=1, keepdims=True)
    ends[rows] = alpha * last
    tag = np.where(last > 0, best, -np.inf).argmax(axis=1)
    for t in range(T - 1, -1, -1):
        live = int(np.searchsorted(-lengths, -t, "left"))
        here = tag[:live]
        path[begin[:live] + t] = here
        tag[:live] = back[t, np.arange(live), here]
