"""The compiled loops by which a linear-chain conditional random field learns: objective, stochastic steps, perceptron steps.

Forward and backward run on probabilities with one scale per position; differences of scores are bounded, so that a legal path never
vanishes. Tags stand in the order of ``layout``, so that the transitions between spans are one dense block and those inside a span
are two to a tag: a place costs a quarter of what L times L moves would. Knows nothing of texts: a sentence is a range of places,
each a row of row numbers of the weight table.
Source: Lafferty et al., Conditional Random Fields, 2001; Sutton & McCallum, An Introduction to Conditional Random Fields, 2012, section 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .jit import jit

__all__ = ["adagrad", "objective", "perceptron"]

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
def _marginals(odds: F64, T: int, steps: F64, backs: F64, edges: I64, before: I64, alpha: F64, beta: F64, pairs: F64) -> float:  # pragma: no cover compiled
    """Tag marginals into ``alpha``, transition expectations (without their factor ``steps``) added to ``pairs``; returns the log partition.

    Shapes and meanings:
        odds: shape (T, L), relative to the best tag of each place.
        steps: exponentials of transitions, 0 where illegal, shape (L, L); ``backs`` is its transpose.
        edges: tags below the first open a span or are outside; from the second to the third they close one or are outside.
        before: for each tag the two that may stand before it inside a span, shape (L, 2).
    """
    L = odds.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    scale = np.empty(T)
    log_z = 0.0
    for t in range(T):
        if t:
            for j in range(opens):
                alpha[t, j] = 0.0
            for i in range(closes, inner):
                a = alpha[t - 1, i]
                for j in range(opens):
                    alpha[t, j] += a * steps[i, j]
            for j in range(opens, L):
                alpha[t, j] = alpha[t - 1, before[j, 0]] * steps[before[j, 0], j] + alpha[t - 1, before[j, 1]] * steps[before[j, 1], j]
        else:
            for j in range(L):
                alpha[0, j] = 1.0 if j < opens else 0.0
        total = 0.0
        for j in range(L):
            alpha[t, j] *= odds[t, j]
            total += alpha[t, j]
        share = 1.0 / total
        for j in range(L):
            alpha[t, j] *= share
        scale[t] = share
        log_z += math.log(total)
    end = 0.0
    for j in range(closes, inner):
        end += alpha[T - 1, j]
    for j in range(L):
        beta[T - 1, j] = 1.0 / end if closes <= j < inner else 0.0
    ahead = np.empty(L)
    for t in range(T - 1, 0, -1):
        for j in range(L):
            ahead[j] = odds[t, j] * beta[t, j] * scale[t]
            beta[t - 1, j] = 0.0
        for j in range(opens):
            a = ahead[j]
            for i in range(closes, inner):
                beta[t - 1, i] += backs[j, i] * a
        for i in range(closes, inner):
            a = alpha[t - 1, i]
            for j in range(opens):
                pairs[i, j] += a * ahead[j]
        for j in range(opens, L):
            for k in range(2):
                i = before[j, k]
                beta[t - 1, i] += steps[i, j] * ahead[j]
                pairs[i, j] += alpha[t - 1, i] * ahead[j]
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
def _longest(starts: I64, order: I64) -> int:  # pragma: no cover compiled
    longest = 1
    for q in range(len(order)):
        s = int(order[q])
        longest = max(longest, int(starts[s + 1] - starts[s]))
    return longest


@jit
def objective(  # pragma: no cover compiled
    rows: I32,
    starts: I64,
    tags: I32,
    order: I64,
    worth: F64,
    weights: Floats,
    transitions: Floats,
    legal: npt.NDArray[np.bool_],
    edges: I64,
    before: I64,
    gradient: Floats,
    transition_gradient: F64,
) -> float:
    """Negative log-likelihood of the sentences in ``order``; its gradient is added to the last two arguments.

    Shapes and meanings:
        rows: shape (N, K), 0 = unknown.
        starts: where each sentence begins, shape (n + 1,).
        tags: shape (N,).
        worth: how much each sentence counts, shape (n,).
        weights: shape (F, L).
    """
    L = weights.shape[1]
    longest = _longest(starts, order)
    scores, odds = np.empty((longest, L), weights.dtype), np.empty((longest, L))
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    steps, backs, pairs = np.empty((L, L)), np.empty((L, L)), np.zeros((L, L))
    slope = np.empty(L, weights.dtype)
    step_top = _steps(transitions, legal, steps, backs)
    loss = 0.0
    for q in range(len(order)):
        s = int(order[q])
        start, T, value = int(starts[s]), int(starts[s + 1] - starts[s]), worth[s]
        if T == 0:
            continue
        pairs[:] = 0.0
        tops = _emit(rows, start, T, weights, scores, odds)
        log_z = tops + step_top * (T - 1) + _marginals(odds, T, steps, backs, edges, before, alpha, beta, pairs)
        gold = 0.0
        for t in range(T):
            tag = tags[start + t]
            gold += scores[t, tag]
            alpha[t, tag] -= 1.0
            for j in range(L):
                slope[j] = value * alpha[t, j]
            if t:
                gold += transitions[tags[start + t - 1], tag]
                transition_gradient[tags[start + t - 1], tag] -= value
            for k in range(rows.shape[1]):
                row = rows[start + t, k]
                if row:
                    for j in range(L):
                        gradient[row, j] += slope[j]
        for i in range(L):
            for j in range(L):
                transition_gradient[i, j] += value * pairs[i, j] * steps[i, j]
        loss += value * (log_z - gold)
    return loss


@jit
def _nudge(weights: Floats, squares: Floats, row: int, slopes: Floats, rate: float, c1: float, c2: float) -> None:  # pragma: no cover compiled
    """One AdaGrad step of one row, then its share of the penalties: L2 in the slope, L1 by soft threshold."""
    pace_, cut_, twice = weights.dtype.type(rate), weights.dtype.type(c1), weights.dtype.type(2.0 * c2)
    zero = weights.dtype.type(0.0)
    for j in range(weights.shape[1]):
        w = weights[row, j]
        slope = slopes[j] + twice * w
        square = squares[row, j] + slope * slope
        squares[row, j] = square
        pace = pace_ / np.sqrt(square)
        w -= pace * slope
        cut = pace * cut_
        weights[row, j] = max(w - cut, zero) + min(w + cut, zero)


@jit
def adagrad(  # pragma: no cover compiled
    rows: I32,
    starts: I64,
    tags: I32,
    order: I64,
    worth: F64,
    weights: Floats,
    transitions: Floats,
    legal: npt.NDArray[np.bool_],
    edges: I64,
    before: I64,
    squares: Floats,
    transition_squares: Floats,
    share: Floats,
    rate: float,
    c1: float,
    c2: float,
    dropout: float,
    seed: int,
) -> float:
    """One visit of the sentences in ``order``, a step after each; returns the sum of their losses before the steps.

    Shapes and meanings:
        share: one over the number of places where each row speaks, shape (F,): a visit pays its part of the penalties.
        dropout: share of the rows of a place that stay silent at a visit.
    """
    L, K = weights.shape[1], rows.shape[1]
    longest = _longest(starts, order)
    scores, odds = np.empty((longest, L), weights.dtype), np.empty((longest, L))
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    steps, backs, pairs = np.empty((L, L)), np.empty((L, L)), np.empty((L, L))
    slopes, heard = np.empty(L, weights.dtype), np.empty((longest, K), np.int32)
    state, bar = np.uint64(seed), np.uint64(dropout * 16777216.0)
    part = 1.0 / max(1, len(starts) - 1)
    loss = 0.0
    for q in range(len(order)):
        s = int(order[q])
        start, T, value = int(starts[s]), int(starts[s + 1] - starts[s]), worth[s]
        if T == 0 or value == 0.0:
            continue
        step_top = _steps(transitions, legal, steps, backs)
        pairs[:] = 0.0
        for t in range(T):
            for k in range(K):  # xorshift
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                heard[t, k] = rows[start + t, k] if (state >> np.uint64(40)) >= bar else 0
        tops = _emit(heard, 0, T, weights, scores, odds)
        nll = tops + step_top * (T - 1) + _marginals(odds, T, steps, backs, edges, before, alpha, beta, pairs)
        for i in range(L):
            for j in range(L):
                pairs[i, j] *= steps[i, j]
        for t in range(T):
            tag = tags[start + t]
            nll -= scores[t, tag]
            alpha[t, tag] -= 1.0
            if t:
                nll -= transitions[tags[start + t - 1], tag]
                pairs[tags[start + t - 1], tag] -= 1.0
            for j in range(L):
                slopes[j] = value * alpha[t, j]
            for k in range(K):
                row = heard[t, k]
                if row:
                    _nudge(weights, squares, row, slopes, rate, c1 * float(share[row]), c2 * float(share[row]))
        for i in range(L):
            for j in range(L):
                slopes[j] = value * pairs[i, j] if legal[i, j] else 0.0
            _nudge(transitions, transition_squares, i, slopes, rate, c1 * part, c2 * part)
        loss += value * nll
    return loss


@jit
def _best(scores: Floats, T: int, transitions: Floats, edges: I64, before: I64, back: I32, path: I32) -> None:  # pragma: no cover compiled
    """The best legal path of one sentence, shape (T,)."""
    L = scores.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    best, new = np.full(L, -1e30, scores.dtype), np.empty(L, scores.dtype)
    for j in range(opens):
        best[j] = scores[0, j]
    for t in range(1, T):
        for j in range(opens):
            new[j], back[t, j] = best[closes] + transitions[closes, j], closes
        for i in range(closes + 1, inner):
            for j in range(opens):
                candidate = best[i] + transitions[i, j]
                if candidate > new[j]:
                    new[j], back[t, j] = candidate, i
        for j in range(opens, L):
            one, two = before[j, 0], before[j, 1]
            a, b = best[one] + transitions[one, j], best[two] + transitions[two, j] if two != j or j >= inner else -1e30
            new[j], back[t, j] = (a, one) if a >= b else (b, two)
        for j in range(L):
            best[j] = new[j] + scores[t, j]
    tag = closes
    for j in range(closes, inner):
        if best[j] > best[tag]:
            tag = j
    for t in range(T - 1, -1, -1):
        path[t] = tag
        tag = back[t, tag]


@jit
def perceptron(  # pragma: no cover compiled
    rows: I32, starts: I64, tags: I32, order: I64, worth: F64, weights: Floats, transitions: Floats, edges: I64, before: I64, totals: Floats, transition_totals: Floats, at: float
) -> float:
    """One visit of the sentences in ``order``; a wrong path gives to the right one. Returns how many were wrong.

    Shapes and meanings:
        totals: sum of each change times the moment it was made, shape (F, L): the average is ``weights - totals / moments``.
        at: moments that have passed.

    Source: Collins, Discriminative Training Methods for Hidden Markov Models, 2002.
    """
    L, K = weights.shape[1], rows.shape[1]
    longest = _longest(starts, order)
    scores, odds = np.empty((longest, L), weights.dtype), np.empty((longest, L))
    back, path = np.zeros((longest, L), np.int32), np.zeros(longest, np.int32)
    wrong = 0.0
    for q in range(len(order)):
        s = int(order[q])
        start, T, value = int(starts[s]), int(starts[s + 1] - starts[s]), worth[s]
        if T == 0 or value == 0.0:
            continue
        _emit(rows, start, T, weights, scores, odds)
        _best(scores, T, transitions, edges, before, back, path)
        moment, missed = at + q, False
        for t in range(T):
            right, found = tags[start + t], path[t]
            if t and (right != found or tags[start + t - 1] != path[t - 1]):
                transitions[tags[start + t - 1], right] += value
                transition_totals[tags[start + t - 1], right] += value * moment
                transitions[path[t - 1], found] -= value
                transition_totals[path[t - 1], found] -= value * moment
            if right == found:
                continue
            missed = True
            for k in range(K):
                row = rows[start + t, k]
                if row:
                    weights[row, right] += value
                    totals[row, right] += value * moment
                    weights[row, found] -= value
                    totals[row, found] -= value * moment
        wrong += missed
    return wrong
