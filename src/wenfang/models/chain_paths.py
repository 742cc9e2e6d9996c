"""The compiled loops by which a linear chain answers: scores of the tags, the best path, and how probable each of its spans is.

The twin of ``chain_plain``, equal to the bit: every sum runs in the same order. Knows nothing of texts.
Source: Rabiner, A Tutorial on Hidden Markov Models, 1989, section III; Culotta & McCallum, Confidence Estimation for Information
Extraction, 2004; Seshadri & Sundberg, List Viterbi Decoding Algorithms, 1994 (several best paths).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .jit import jit

__all__ = ["decode", "emit", "several"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@jit
def emit(rows: I32, weights: F32, scores: F32) -> None:  # pragma: no cover compiled
    """Sum the weights of the rows of each place into ``scores``, shape (N, L), and lower them by the best of the place."""
    K, L = rows.shape[1], weights.shape[1]
    for t in range(len(rows)):
        for j in range(L):
            scores[t, j] = weights[rows[t, 0], j]
        for k in range(1, K):
            row = rows[t, k]
            if row:
                for j in range(L):
                    scores[t, j] += weights[row, j]
        top = scores[t, 0]
        for j in range(1, L):
            top = max(top, scores[t, j])
        for j in range(L):
            scores[t, j] -= top


@jit
def _forward(
    scores: F32, odds: F32, start: int, T: int, moves: F32, steps: F64, edges: I64, before: I64, alpha: F64, scale: F64, back: I32, best: F32
) -> None:  # pragma: no cover compiled
    """The best score and the scaled forward probability of each tag at each place of one sentence."""
    L = scores.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    new = np.empty(L, np.float32)
    for t in range(T):
        at = start + t
        if t:
            for j in range(opens):
                new[j] = best[closes] + moves[closes, j]
                back[t, j] = closes
                alpha[t, j] = alpha[t - 1, closes] * steps[closes, j]
            for i in range(closes + 1, inner):
                a, b = alpha[t - 1, i], best[i]
                for j in range(opens):
                    candidate = b + moves[i, j]
                    if candidate > new[j]:
                        new[j] = candidate
                        back[t, j] = i
                    alpha[t, j] += a * steps[i, j]
            for j in range(opens, L):
                one, two = before[j, 0], before[j, 1]
                a, b = best[one] + moves[one, j], best[two] + moves[two, j]
                if b > a:
                    new[j] = b
                    back[t, j] = two
                else:
                    new[j] = a
                    back[t, j] = one
                alpha[t, j] = alpha[t - 1, one] * steps[one, j] + alpha[t - 1, two] * steps[two, j]
        else:
            for j in range(L):
                new[j] = np.float32(0.0) if j < opens else np.float32(-np.inf)
                alpha[0, j] = 1.0 if j < opens else 0.0
        high, top = 0.0, np.float32(-np.inf)
        for j in range(L):
            alpha[t, j] *= odds[at, j]
            high = max(high, alpha[t, j])
            new[j] += scores[at, j]
            top = max(top, new[j])
        for j in range(L):
            alpha[t, j] /= high
            best[j] = new[j] - top
        scale[at] = high


@jit
def _backward(odds: F32, start: int, T: int, steps: F64, backs: F64, edges: I64, before: I64, scale: F64, beta: F64, end: float) -> None:  # pragma: no cover compiled
    """Scaled backward probabilities, such that forward times backward is the probability of a tag."""
    L = odds.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    ahead = np.empty(L)
    for j in range(L):
        beta[T - 1, j] = 1.0 / end if closes <= j < inner else 0.0
    for t in range(T - 1, 0, -1):
        for j in range(L):
            ahead[j] = odds[start + t, j] * beta[t, j] / scale[start + t]
            beta[t - 1, j] = 0.0
        for j in range(opens):
            a = ahead[j]
            for i in range(closes, inner):
                beta[t - 1, i] += a * backs[j, i]
        for j in range(opens, L):
            beta[t - 1, before[j, 0]] += ahead[j] * steps[before[j, 0], j]
            beta[t - 1, before[j, 1]] += ahead[j] * steps[before[j, 1], j]


@jit
def decode(
    scores: F32, odds: F32, starts: I64, moves: F32, steps: F64, backs: F64, edges: I64, before: I64, path: I32, scale: F64, ends: F64, mass: F64
) -> None:  # pragma: no cover compiled
    """Best legal path of each sentence, the parts of its log partition, and the probability of each span on it.

    Shapes and meanings:
        scores: shape (N, L); ``odds`` are their exponentials.
        moves: transitions, minus infinity where illegal, shape (L, L); ``steps`` are their exponentials, ``backs`` those transposed.
        edges: see ``Layout``; ``before`` likewise.
        path: filled with tags, shape (N,).
        scale: filled with the scale of each place, shape (N,).
        ends: filled with the last forward probability of each sentence, shape (n,).
        mass: filled with the probability of the span that begins at a place, shape (N,).
    """
    L = scores.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    longest = 1
    for s in range(len(starts) - 1):
        longest = max(longest, starts[s + 1] - starts[s])
    back, best = np.zeros((longest, L), np.int32), np.empty(L, np.float32)
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    for s in range(len(starts) - 1):
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        if T == 0:
            continue
        _forward(scores, odds, start, T, moves, steps, edges, before, alpha, scale, back, best)
        tag, end = closes, 0.0
        for j in range(closes, inner):
            end += alpha[T - 1, j]
            if best[j] > best[tag]:
                tag = j
        ends[s] = end
        found = False
        for t in range(T - 1, -1, -1):
            path[start + t] = tag
            found = found or tag != closes
            tag = back[t, tag]
        if not found:
            continue
        _backward(odds, start, T, steps, backs, edges, before, scale, beta, end)
        first, m = 0, 0.0
        for t in range(T):
            at, tag = start + t, path[start + t]
            if tag < opens:
                first, m = at, alpha[t, tag]
            else:
                m = m * steps[path[at - 1], tag] * odds[at, tag] / scale[at]
            if closes <= tag < inner and tag != closes:
                mass[first] = m * beta[t, tag]


@jit
def _enter(totals: F64, origins: I32, total: float, origin: int) -> None:  # pragma: no cover compiled
    """Put a path into a list kept best first; among equals the one that came first stays first."""
    at = len(totals) - 1
    while at > 0 and total > totals[at - 1]:
        totals[at], origins[at] = totals[at - 1], origins[at - 1]
        at -= 1
    totals[at], origins[at] = total, origin


@jit
def several(scores: F32, starts: I64, moves: F32, edges: I64, paths: I32, totals: F64) -> None:  # pragma: no cover compiled
    """The k best legal paths of each sentence, best first.

    Shapes and meanings:
        scores: shape (N, L).
        moves: transitions, minus infinity where illegal, shape (L, L).
        edges: see ``Layout``.
        paths: filled with tags, shape (k, N); outside, where a sentence has fewer paths.
        totals: filled with the score of each path, minus infinity where there is none, shape (n, k).
    """
    k, L, n = len(paths), scores.shape[1], len(starts) - 1
    opens, closes, inner = edges[0], edges[1], edges[2]
    longest = 1
    for s in range(n):
        longest = max(longest, starts[s + 1] - starts[s])
    origin, best, new = np.zeros((longest, L, k), np.int32), np.empty((L, k)), np.empty((L, k))
    last = np.zeros(k, np.int32)
    paths[:] = closes
    totals[:] = -np.inf
    for s in range(n):
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        if T == 0:
            totals[s, 0] = 0.0
            continue
        best[:] = -np.inf
        for j in range(opens):
            best[j, 0] = scores[start, j]
        for t in range(1, T):
            new[:] = -np.inf
            for i in range(L):
                for j in range(L):
                    if moves[i, j] == -np.inf:
                        continue
                    for r in range(k):
                        total = best[i, r] + moves[i, j]
                        if not total > new[j, k - 1]:
                            break  # the rest of the list is no better
                        _enter(new[j], origin[t, j], total, i * k + r)
            for j in range(L):
                for r in range(k):
                    best[j, r] = new[j, r] + scores[start + t, j]
        for j in range(closes, inner):
            for r in range(k):
                if not best[j, r] > totals[s, k - 1]:
                    break
                _enter(totals[s], last, best[j, r], j * k + r)
        for r in range(k):
            at = last[r]
            if totals[s, r] == -np.inf:
                break
            for t in range(T - 1, -1, -1):
                paths[r, start + t] = at // k
                at = origin[t, at // k, at % k]
