"""The compiled loops by which a linear chain answers: scores of the tags, the best path, and how probable each of its spans is.

The twin of ``chain_plain``, equal to the bit: every sum runs in the same order. Knows nothing of texts.
Source: Rabiner, A Tutorial on Hidden Markov Models, 1989, section III; Culotta & McCallum, Confidence Estimation for Information
Extraction, 2004; Seshadri & Sundberg, List Viterbi Decoding Algorithms, 1994 (several best paths).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .jit import jit

__all__ = ["decode", "emit", "likely", "several"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@jit
def emit(rows: I32, weights: F32, scores: F32) -> None:  # pragma: no cover compiled
    """Sum the weights of the rows of each place into ``scores``, shape (N, L), and lower them by the best of the place."""
    K, L = rows.shape[1], weights.shape[1]
    for t in range(len(rows)):
        own = scores[t]
        own[:] = weights[rows[t, 0]]
        k = 1
        while k + 4 <= K:  # four rows at a time: the sums, in the same order, leave their registers a quarter as often
            one, two, three, four = weights[rows[t, k]], weights[rows[t, k + 1]], weights[rows[t, k + 2]], weights[rows[t, k + 3]]
            for j in range(L):
                own[j] = (((own[j] + one[j]) + two[j]) + three[j]) + four[j]
            k += 4
        while k < K:
            one = weights[rows[t, k]]
            for j in range(L):
                own[j] += one[j]
            k += 1
        top = own[0]
        for j in range(1, L):
            top = max(top, own[j])
        for j in range(L):
            own[j] -= top


@jit
def _gather(values: F64, table: F64, size: int, sums: F64) -> None:  # pragma: no cover compiled
    """``values`` times the first ``size`` columns of ``table``, added up row after row into ``sums``."""
    for j in range(size):
        sums[j] = 0.0
    i = 0
    while i + 4 <= len(values):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        one, two, three, four = table[i], table[i + 1], table[i + 2], table[i + 3]
        for j in range(size):
            sums[j] = (((sums[j] + a * one[j]) + b * two[j]) + c * three[j]) + d * four[j]
        i += 4
    while i < len(values):
        a, one = values[i], table[i]
        for j in range(size):
            sums[j] += a * one[j]
        i += 1


@jit
def _arrive(best: F32, moves: F32, least: F32, most: F32, edges: I64, new: F32, back: I32) -> None:  # pragma: no cover compiled
    """The best way to each tag that opens a span or is outside; a tag before it that is beaten at every one of them is passed over.

    Shapes and meanings:
        best: score of each tag at the place before, shape (L,).
        least: smallest and ``most``: largest move from each tag to one that opens, shape (L,).
        new: filled with scores, ``back`` with tags, shape (L,).
    """
    opens, closes, inner = edges[0], edges[1], edges[2]
    bar = np.float32(-np.inf)
    for i in range(closes, inner):
        bar = max(bar, best[i] + least[i])
    for j in range(opens):
        new[j], back[j] = np.float32(-np.inf), closes
    for i in range(closes, inner):
        b, row = best[i], moves[i]
        if b + most[i] < bar:
            continue
        for j in range(opens):
            candidate = b + row[j]
            if candidate > new[j]:
                new[j], back[j] = candidate, i


@jit
def _best(scores: F32, start: int, T: int, moves: F32, least: F32, most: F32, edges: I64, before: I64, back: I32, best: F32) -> None:  # pragma: no cover compiled
    """The best score of each tag at the last place of one sentence, and where it came from at each."""
    L = scores.shape[1]
    opens = edges[0]
    new = np.empty(L, np.float32)
    for t in range(T):
        if t:
            _arrive(best, moves, least, most, edges, new, back[t])
            for j in range(opens, L):
                one, two = before[j, 0], before[j, 1]
                a, b = best[one] + moves[one, j], best[two] + moves[two, j]
                new[j], back[t, j] = (b, two) if b > a else (a, one)
        else:
            for j in range(L):
                new[j] = np.float32(0.0) if j < opens else np.float32(-np.inf)
        top = np.float32(-np.inf)
        for j in range(L):
            new[j] += scores[start + t, j]
            top = max(top, new[j])
        for j in range(L):
            best[j] = new[j] - top


@jit
def _forward(odds: F32, start: int, T: int, steps: F64, edges: I64, before: I64, alpha: F64, scale: F64) -> float:  # pragma: no cover compiled
    """The scaled forward probability of each tag at each place of one sentence; returns their sum over the tags that may stand last."""
    L = odds.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    for t in range(T):
        if t:
            _gather(alpha[t - 1, closes:inner], steps[closes:inner], opens, alpha[t])
            for j in range(opens, L):
                one, two = before[j, 0], before[j, 1]
                alpha[t, j] = alpha[t - 1, one] * steps[one, j] + alpha[t - 1, two] * steps[two, j]
        else:
            for j in range(L):
                alpha[0, j] = 1.0 if j < opens else 0.0
        high = 0.0
        for j in range(L):
            alpha[t, j] *= odds[start + t, j]
            high = max(high, alpha[t, j])
        for j in range(L):
            alpha[t, j] /= high
        scale[start + t] = high
    end = 0.0
    for j in range(closes, inner):
        end += alpha[T - 1, j]
    return end


@jit
def _backward(odds: F32, start: int, first: int, T: int, steps: F64, backs: F64, edges: I64, before: I64, scale: F64, beta: F64, end: float) -> None:  # pragma: no cover compiled
    """Scaled backward probabilities from place ``first`` on, such that forward times backward is the probability of a tag."""
    L = odds.shape[1]
    opens, closes, inner = edges[0], edges[1], edges[2]
    ahead = np.empty(L)
    for j in range(L):
        beta[T - 1, j] = 1.0 / end if closes <= j < inner else 0.0
    for t in range(T - 1, first, -1):
        for j in range(L):
            ahead[j] = odds[start + t, j] * beta[t, j] / scale[start + t]
            beta[t - 1, j] = 0.0
        _gather(ahead[:opens], backs[:opens, closes:inner], inner - closes, beta[t - 1, closes:inner])
        for j in range(opens, L):
            beta[t - 1, before[j, 0]] += ahead[j] * steps[before[j, 0], j]
            beta[t - 1, before[j, 1]] += ahead[j] * steps[before[j, 1], j]


@jit
def _longest(starts: I64) -> int:  # pragma: no cover compiled
    longest = 1
    for s in range(len(starts) - 1):
        longest = max(longest, int(starts[s + 1] - starts[s]))
    return longest


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
    L, longest = scores.shape[1], _longest(starts)
    opens, closes, inner = edges[0], edges[1], edges[2]
    back, best = np.zeros((longest, L), np.int32), np.empty(L, np.float32)
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    least, most = np.zeros(L, np.float32), np.zeros(L, np.float32)
    for i in range(closes, inner):
        least[i], most[i] = moves[i, :opens].min(), moves[i, :opens].max()
    for s in range(len(starts) - 1):
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        if T == 0:
            continue
        _best(scores, start, T, moves, least, most, edges, before, back, best)
        ends[s] = _forward(odds, start, T, steps, edges, before, alpha, scale)
        tag, first_end = closes, T
        for j in range(closes, inner):
            if best[j] > best[tag]:
                tag = j
        for t in range(T - 1, -1, -1):
            path[start + t] = tag
            if closes < tag < inner:
                first_end = t
            tag = back[t, tag]
        if first_end == T:
            continue
        _backward(odds, start, first_end, T, steps, backs, edges, before, scale, beta, ends[s])
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
def likely(
    odds: F32, starts: I64, steps: F64, backs: F64, edges: I64, before: I64, after: I64, floor: float, scale: F64, ends: F64, rows: I64, mass: F64
) -> int:  # pragma: no cover compiled
    """Every span at least as probable as ``floor``, whatever the best path says, and the parts of the log partition.

    Shapes and meanings:
        odds: shape (N, L).
        steps: exponentials of transitions, 0 where illegal, shape (L, L); ``backs`` is its transpose.
        edges: see ``Layout``; ``before`` and ``after`` likewise.
        scale: filled with the scale of each place, shape (N,).
        ends: filled with the last forward probability of each sentence, shape (n,).
        rows: filled with first place, last place and first tag of each span, in this order; spans that begin at a place share one, so N / floor rows suffice.
        mass: filled with the probability of each.

    Returns:
        How many there are.
    """
    L, longest, found = odds.shape[1], _longest(starts), 0
    opens, closes = edges[0], edges[1]
    alpha, beta = np.empty((longest, L)), np.empty((longest, L))
    for s in range(len(starts) - 1):
        start, T = int(starts[s]), int(starts[s + 1] - starts[s])
        if T == 0:
            continue
        ends[s] = _forward(odds, start, T, steps, edges, before, alpha, scale)
        _backward(odds, start, 0, T, steps, backs, edges, before, scale, beta, ends[s])
        for t in range(T):
            for j in range(opens):
                if alpha[t, j] * beta[t, j] < floor or j == closes:
                    continue
                if j > closes:
                    rows[found, 0], rows[found, 1], rows[found, 2], mass[found] = start + t, start + t, j, alpha[t, j] * beta[t, j]
                    found += 1
                    continue
                inside, final, tag, m = after[j, 0], after[j, 1], j, alpha[t, j]
                for u in range(t + 1, T):
                    at = start + u
                    p = m * steps[tag, final] * odds[at, final] / scale[at] * beta[u, final] if final >= 0 else 0.0
                    if p >= floor:
                        rows[found, 0], rows[found, 1], rows[found, 2], mass[found] = start + t, at, j, p
                        found += 1
                    if inside < 0:
                        break
                    m = m * steps[tag, inside] * odds[at, inside] / scale[at]
                    tag = inside
                    if m * beta[u, inside] < floor:
                        break
    return found


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
    k, L, n, longest = len(paths), scores.shape[1], len(starts) - 1, _longest(starts)
    opens, closes, inner = edges[0], edges[1], edges[2]
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
