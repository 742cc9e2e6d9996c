"""The best tag path and its probability, in numpy: what a tagger does after the network. Knows nothing of networks or labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FORBIDDEN", "Transitions", "best_paths"]

Floats = npt.NDArray[np.float32]
FORBIDDEN = np.float32(-1e4)
"""Score of a step that is not allowed: far below any learned score, far above the end of the float range."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """Scores of a linear chain over L tags."""

    start: Floats
    """Shape (L,)."""
    end: Floats
    """Shape (L,)."""
    step: Floats
    """From row to column, shape (L, L)."""

    def constrained(self, legal_start: npt.NDArray[np.bool_], legal_end: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]) -> Transitions:
        """The same chain with illegal steps forbidden."""

        def hold(scores: Floats, allowed: npt.NDArray[np.bool_]) -> Floats:
            return np.where(allowed, scores, FORBIDDEN).astype(np.float32)

        return Transitions(hold(self.start, legal_start), hold(self.end, legal_end), hold(self.step, legal))


def best_paths(emissions: Floats, lengths: npt.NDArray[np.int32], chain: Transitions) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.float64]]:
    """Viterbi paths and their probabilities.

    Args:
        emissions: tag scores, shape (B, T, L); what stands behind a row's length is not read.
        lengths: tokens of each row, shape (B,); 0 gives an empty path of probability 1.
        chain: transition scores.

    Returns:
        B paths of the rows' lengths, and ``exp(score - log partition)`` of each.

    Cost: O(B T L²), one numpy pass for each position.
    """
    B, T, L = (int(n) for n in emissions.shape)
    if T == 0 or L == 0:
        return [np.zeros(0, np.int32) for _ in range(B)], np.ones(B)
    best = chain.start + emissions[:, 0]
    total = best.astype(np.float64)  # log sum of all paths so far; double, for long texts add many terms
    weights = np.exp(chain.step.astype(np.float64))
    came = np.zeros((B, T, L), np.intp)
    last_best, last_total = best.copy(), total.copy()
    into = np.ascontiguousarray(chain.step.T)  # from the last axis: what is searched lies together
    shortest = int(lengths.min())
    with np.errstate(divide="ignore"):  # log 0 = -inf is right: no path ends here
        for t in range(1, T):
            scores = best[:, None, :] + into
            np.argmax(scores, axis=2, out=came[:, t])
            best = np.maximum.reduce(scores, axis=2) + emissions[:, t]
            top = np.maximum.reduce(total, axis=1, keepdims=True)
            total = np.log(np.exp(total - top) @ weights) + top + emissions[:, t]
            best -= np.maximum.reduce(best, axis=1, keepdims=True)  # keeps float32 sharp on long texts; equal for all tags of a row
            if t < shortest:
                last_best, last_total = best, total
            else:
                alive = lengths > t
                last_best, last_total = np.where(alive[:, None], best, last_best), np.where(alive[:, None], total, last_total)
    paths = _follow(came, (last_best + chain.end).argmax(axis=1), lengths)
    final = last_total + chain.end
    top = final.max(axis=1)
    partition = top + np.log(np.exp(final - top[:, None]).sum(axis=1))
    score = np.array([_score(emissions[b], path, chain) for b, path in enumerate(paths)])
    probability: Any = np.exp(np.minimum(0.0, score - partition))
    probability[lengths == 0] = 1.0
    return paths, probability


def _follow(came: npt.NDArray[np.intp], last: npt.NDArray[np.intp], lengths: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
    B, T, _ = (int(n) for n in came.shape)
    if B == 1:  # one text: plain numbers are faster than arrays of one
        return [_one_path(came[0], int(last[0]), int(lengths[0]))]
    rows: Any = np.arange(B)
    path = np.zeros((B, T), np.int32)
    tag = last.astype(np.int32)
    for t in range(T - 1, -1, -1):
        inside = lengths > t
        path[inside, t] = tag[inside]
        tag = np.where(inside, came[rows, t, tag], tag).astype(np.int32)
    return [path[b, : lengths[b]] for b in range(B)]


def _one_path(came: npt.NDArray[np.intp], last: int, length: int) -> npt.NDArray[np.int32]:
    tags = [last]
    for t in range(length - 1, 0, -1):
        tags.append(int(came[t, tags[-1]]))
    return np.array(tags[::-1][:length], np.int32)


def _score(emissions: Floats, path: npt.NDArray[np.int32], chain: Transitions) -> float:
    if not len(path):
        return 0.0
    own = emissions[np.arange(len(path)), path].sum(dtype=np.float64)
    steps = chain.step[path[:-1], path[1:]].sum(dtype=np.float64)
    return float(own + steps + chain.start[path[0]] + chain.end[path[-1]])
