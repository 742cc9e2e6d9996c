"""The compiled loops of a linear-chain conditional random field: objective, stochastic steps, and decoding.

Forward and backward run on probabilities with one scale per position; differences of scores are bounded, so that a legal path never
vanishes. Knows nothing of texts: a sentence is a range of places, each a row of row numbers of the weight table.
Source: Lafferty et al., Conditional Random Fields, 2001; Sutton & McCallum, An Introduction to Conditional Random Fields, 2012, section 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .jit import jit

__all__ = ["adagrad", "decode", "objective"]

Floats = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@jit
def _emit(rows: I32, start: int, T: int, weights: Floats, scores: Floats, odds: F64) -> float:  # pragma: no cover compiled
    """Scores of each tag at T places, and their exponentials relative to the best; returns the sum of the best scores."""
    K, L = rows.shape[1], weights.shape[1]
    tops = 0.0
    for t in range(T):
        for j in range(L):
            scores[t, j] = 0.0
        for k in range(K):
            row = rows[start + t, k]
            if row:
                for j in range(L):
                    scores[t, j] += weights[row, j]
        top = scores[t, 0]
        for j in range(1, L):
            top = max(top, scores[t, j])
        tops += top
        for j in range(L):
            odds[t, j] = math.exp(max(scores[t, j] - top, -300.0))
    return tops


@jit
def _marginals(odds: F64, T: int, steps: F64, backs: F64, first: F64, last: F64, alpha: F64, beta: F64, pairs: F64) -> float:  # pragma: no cover compiled
    """Tag marginals into ``alpha``, transition expectations (without their factor ``steps``) added to ``pairs``; returns the log partition.

    Shapes and meanings:
        odds: shape (T, L), relative to the best tag of each place.
        steps: exponentials of transitions, 0 where illegal, shape (L, L); ``backs`` is its transpose.
        first: 1 where a tag may stand first, shape (L,); ``last`` likewise.
    """
    L = odds.shape[1]
    scale = np.empty(T)
    log_z = 0.0
    for t in range(T):
        if t:
            for j in range(L):
                alpha[t, j] = 0.0
            for i in range(L):
                a = alpha[t - 1, i]
                for j in range(L):
                    alpha[t, j] += a * steps[i, j]
        else:
            for j in range(L):
                alpha[0, j] = first[j]
        total = 0.0
        for j in range(L):
            alpha[t, j] *= odds[t, j]
            total += alpha[t, j]
        for j in range(L):
            alpha[t, j] /= total
        scale[t] = total
        log_z += math.log(total)
    end = 0.0
    for j in range(L):
        end += alpha[T - 1, j] * last[j]
    for j in range(L):
        beta[T - 1, j] = last[j] / end
    ahead = np.empty(L)
    for t in range(T - 1, 0, -1):
        for j in range(L):
            ahead[j] = odds[t, j] * beta[t, j] / scale[t]
            beta[t - 1, j] = 0.0
        for j in range(L):
            for i in range(L):
                beta[t - 1, i] += backs[j, i] * ahead[j]
        for i in range(L):
            a = alpha[t - 1, i]
            for j in range(L):
                pairs[i, j] += a * ahead[j]
    for t in range(T):
        for j in range(L):
            alpha[t, j] *= beta[t, j]
    return log_z + math.log(end)


@jit
def _steps(transitions: Floats, legal: npt.NDArray[np.bool_], steps: F64, backs: F64) -> float:  # pragma: no cover compiled
    """Exponentials of the transitions relative to the largest, which is returned."""
    L = len(transitions)
    top = -1e300
    for i in range(L):
        for j in range(L):
            if legal[i, j]:
                top = max(top, float(transitions[i, j]))
    for i in range(L):
        for j in range(L):
            steps[i, j] = math.exp(max(transitions[i, j] - top, -100.0)) if legal[i, j] else 0.0
            backs[j, i] = steps[i, j]
    return top


@jit
def objective(  # pragma: no cover compiled
    rows: I32, starts: I64, tags: I32, weights: Floats, transitions: Floats, legal: npt.NDArray[np.bool_], first: F64, last: F64, gradient: Floats, transition_gradient: F64
) -> float:
    """Negative log-likelihood of all sentences; its gradient is added to the last two arguments.

    Shapes and meanings:
        rows: shape (N, K), 0 = unknown.
        starts: where each sentence begins, shape (n + 1,).
        tags: shape (N,).
        weights: shape (F, L).
    """
    L = weights.shape[1]
    longest = 1
    for s in range(len(starts) - 1):
        longest = max(longest, starts[s + 1] - starts[s])
    scores, odds = np.empty((longest, L), weights.dtype), np.empty((longest, L))
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    steps, backs, pairs = np.empty((L, L)), np.empty((L, L)), np.zeros((L, L))
    step_top = _steps(transitions, legal, steps, backs)
    loss = 0.0
    for s in range(len(starts) - 1):
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        if T == 0:
            continue
        tops = _emit(rows, start, T, weights, scores, odds)
        log_z = tops + step_top * (T - 1) + _marginals(odds, T, steps, backs, first, last, alpha, beta, pairs)
        gold = 0.0
        for t in range(T):
            tag = tags[start + t]
            gold += scores[t, tag]
            alpha[t, tag] -= 1.0
            if t:
                before = tags[start + t - 1]
                gold += transitions[before, tag]
                transition_gradient[before, tag] -= 1.0
            for k in range(rows.shape[1]):
                row = rows[start + t, k]
                if row:
                    for j in range(L):
                        gradient[row, j] += alpha[t, j]
        loss += log_z - gold
    for i in range(L):
        for j in range(L):
            transition_gradient[i, j] += pairs[i, j] * steps[i, j]
    return loss


@jit
def _nudge(weights: Floats, squares: Floats, row: int, j: int, slope: float, rate: float, c1: float, c2: float) -> None:  # pragma: no cover compiled
    """One AdaGrad step of one weight, then its share of the penalties: L2 in the slope, L1 by soft threshold."""
    w = weights[row, j]
    slope += 2.0 * c2 * w
    squares[row, j] += slope * slope
    pace = rate / math.sqrt(squares[row, j])
    w -= pace * slope
    cut = pace * c1
    if w > cut:
        w -= cut
    elif w < -cut:
        w += cut
    else:
        w = 0.0
    weights[row, j] = w


@jit
def adagrad(  # pragma: no cover compiled
    rows: I32,
    starts: I64,
    tags: I32,
    order: I64,
    weights: Floats,
    transitions: Floats,
    legal: npt.NDArray[np.bool_],
    first: F64,
    last: F64,
    squares: Floats,
    transition_squares: Floats,
    share: Floats,
    rate: float,
    c1: float,
    c2: float,
) -> float:
    """One visit of the sentences in ``order``, a step after each; returns the sum of their losses before the steps.

    Shapes and meanings:
        share: one over the number of places where each row speaks, shape (F,): a visit pays its part of the penalties.
    """
    L, K = weights.shape[1], rows.shape[1]
    longest = 1
    for q in range(len(order)):
        s = int(order[q])
        longest = max(longest, starts[s + 1] - starts[s])
    scores, odds = np.empty((longest, L), weights.dtype), np.empty((longest, L))
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    steps, backs, pairs = np.empty((L, L)), np.empty((L, L)), np.empty((L, L))
    loss = 0.0
    for q in range(len(order)):
        s = int(order[q])
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        if T == 0:
            continue
        step_top = _steps(transitions, legal, steps, backs)
        pairs[:] = 0.0
        tops = _emit(rows, start, T, weights, scores, odds)
        loss += tops + step_top * (T - 1) + _marginals(odds, T, steps, backs, first, last, alpha, beta, pairs)
        for i in range(L):
            for j in range(L):
                pairs[i, j] *= steps[i, j]
        for t in range(T):
            tag = tags[start + t]
            loss -= scores[t, tag]
            alpha[t, tag] -= 1.0
            if t:
                loss -= transitions[tags[start + t - 1], tag]
                pairs[tags[start + t - 1], tag] -= 1.0
            for k in range(K):
                row = rows[start + t, k]
                if row:
                    part = float(share[row])
                    for j in range(L):
                        _nudge(weights, squares, row, j, alpha[t, j], rate, c1 * part, c2 * part)
        part = 1.0 / max(1, len(starts) - 1)
        for i in range(L):
            for j in range(L):
                if legal[i, j]:
                    _nudge(transitions, transition_squares, i, j, pairs[i, j], rate, c1 * part, c2 * part)
    return loss


@jit
def decode(
    scores: npt.NDArray[np.float32], odds: F64, starts: I64, transitions: npt.NDArray[np.float32], steps: F64, first: F64, last: F64, path: I32, scales: F64, ends: F64
) -> None:  # pragma: no cover compiled
    """Best legal path of each sentence, and the parts of its log partition; the twin of ``chain_plain.decode``, equal to the bit.

    Shapes and meanings:
        scores: shape (N, L).
        odds: exponentials of the scores relative to the best of each place, shape (N, L).
        transitions: minus infinity where illegal, shape (L, L).
        path: filled with tags, shape (N,).
        scales: filled with the scale of each place, shape (N,).
        ends: filled with the last forward vector where a path may end, shape (n, L).
    """
    L = scores.shape[1]
    longest = 1
    for s in range(len(starts) - 1):
        longest = max(longest, starts[s + 1] - starts[s])
    back = np.zeros((longest, L), np.int32)
    best, new = np.empty(L, np.float32), np.empty(L, np.float32)
    alpha, moved = np.empty(L), np.empty(L)
    for s in range(len(starts) - 1):
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        for t in range(T):
            at = start + t
            if t:
                for j in range(L):
                    new[j] = best[0] + transitions[0, j]
                    back[t, j] = 0
                    moved[j] = alpha[0] * steps[0, j]
                for i in range(1, L):
                    for j in range(L):
                        candidate = best[i] + transitions[i, j]
                        if candidate > new[j]:
                            new[j] = candidate
                            back[t, j] = i
                        moved[j] += alpha[i] * steps[i, j]
            else:
                for j in range(L):
                    new[j] = np.float32(0.0) if first[j] > 0 else np.float32(-np.inf)
                    moved[j] = first[j]
            scale = 0.0
            top = np.float32(-np.inf)
            for j in range(L):
                moved[j] *= odds[at, j]
                scale = max(scale, moved[j])
                new[j] += scores[at, j]
                top = max(top, new[j])
            for j in range(L):
                alpha[j] = moved[j] / scale
                best[j] = new[j] - top
            scales[at] = scale
        if T == 0:
            continue
        tag, top = -1, np.float32(-np.inf)
        for j in range(L):
            ends[s, j] = alpha[j] * last[j]
            if last[j] > 0 and best[j] > top:
                tag, top = j, best[j]
        for t in range(T - 1, -1, -1):
            path[start + t] = tag
            tag = back[t, tag]
