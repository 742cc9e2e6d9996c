"""How a linear chain answers with numpy alone, where numba is not installed. Its answers equal those of ``chain_paths`` to the bit.

Sentences are read side by side, longest first, one place at a time. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["decode", "emit", "likely", "several"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_SIDE_BY_SIDE = 64


def emit(rows: I32, weights: F32, scores: F32) -> None:
    """Sum the weights of the rows of each place into ``scores``, shape (N, L), and lower them by the best of the place."""
    scores[:] = weights[rows[:, 0]]
    for k in range(1, rows.shape[1]):
        scores += weights[rows[:, k]]
    scores -= scores.max(axis=1, keepdims=True, initial=-np.inf)


def decode(scores: F32, odds: F32, starts: I64, moves: F32, steps: F64, backs: F64, edges: I64, before: I64, path: I32, scale: F64, ends: F64, mass: F64) -> None:  # noqa: ARG001 the twin reads before
    """Best legal path of each sentence, the parts of its log partition, and the probability of each span on it.

    Args:
        scores: shape (N, L).
        odds: their exponentials, shape (N, L).
        starts: where each sentence begins, shape (n + 1,).
        moves: transitions, minus infinity where illegal, shape (L, L).
        steps: their exponentials, 0 where illegal, shape (L, L).
        backs: ``steps`` transposed.
        edges: see ``Layout``.
        before: not needed here.
        path: filled with tags, shape (N,).
        scale: filled with the scale of each place, shape (N,).
        ends: filled with the last forward probability of each sentence, shape (n,).
        mass: filled with the probability of the span that begins at a place, shape (N,).
    """
    for group in _groups(starts):
        _best(group, scores, starts, moves, edges, path)
        alpha = _forward(group, odds, starts, steps, edges, scale, ends)
        beta = _backward(group, odds, starts, backs, edges, scale, ends)
        _spans(group, alpha, beta, odds, starts, steps, edges, path, scale, mass)


def likely(odds: F32, starts: I64, steps: F64, backs: F64, edges: I64, before: I64, after: I64, floor: float, scale: F64, ends: F64, rows: I64, mass: F64) -> int:  # noqa: ARG001 the twin reads before
    """Every span at least as probable as ``floor``, whatever the best path says, and the parts of the log partition.

    Args:
        odds: shape (N, L).
        starts: where each sentence begins, shape (n + 1,).
        steps: exponentials of transitions, 0 where illegal, shape (L, L).
        backs: ``steps`` transposed.
        edges: see ``Layout``.
        before: not needed here.
        after: see ``Layout``.
        floor: least probability, above 0.
        scale: filled with the scale of each place, shape (N,).
        ends: filled with the last forward probability of each sentence, shape (n,).
        rows: filled with first place, last place and first tag of each span, in this order.
        mass: filled with the probability of each.

    Returns:
        How many there are.
    """
    opens, closes = int(edges[0]), int(edges[1])
    found: list[tuple[int, int, int, float]] = []
    for group in _groups(starts):
        alpha = _forward(group, odds, starts, steps, edges, scale, ends)
        beta = _backward(group, odds, starts, backs, edges, scale, ends)
        lengths = np.diff(starts)[group]
        sure = alpha[:, :, :opens] * beta[:, :, :opens]
        sure[:, :, closes] = 0.0
        sure[np.arange(len(alpha))[:, None] >= lengths] = 0.0
        for t, who, j in zip(*(a.tolist() for a in np.nonzero(sure >= floor)), strict=True):
            start = int(starts[group[who]])
            if j > closes:
                found.append((start + t, start + t, j, float(sure[t, who, j])))
                continue
            (inside, final), tag, m = after[j].tolist(), j, alpha[t, who, j]
            for u in range(t + 1, int(lengths[who])):
                at = start + u
                p = m * steps[tag, final] * odds[at, final] / scale[at] * beta[u, who, final] if final >= 0 else 0.0
                if p >= floor:
                    found.append((start + t, at, j, float(p)))
                if inside < 0:
                    break
                m, tag = m * steps[tag, inside] * odds[at, inside] / scale[at], inside
                if m * beta[u, who, inside] < floor:
                    break
    found.sort(key=lambda row: (row[0], row[2], row[1]))
    for i, (first, last, tag, p) in enumerate(found):
        rows[i], mass[i] = (first, last, tag), p
    return len(found)


def _groups(starts: I64) -> Iterator[I64]:
    """Sentences to read side by side, longest first, without the empty ones."""
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    for at in range(0, len(order), _SIDE_BY_SIDE):
        yield order[at : at + _SIDE_BY_SIDE]


def _live(lengths: I64, t: int) -> int:
    """How many of the sentences, longest first, are longer than ``t``."""
    return int(np.searchsorted(-lengths, -t, "left"))


def _best(group: I64, scores: F32, starts: I64, moves: F32, edges: I64, path: I32) -> None:
    begin, lengths = starts[group], np.diff(starts)[group]
    T, L = int(lengths[0]), len(moves)
    closes, inner = int(edges[1]), int(edges[2])
    tags: I64 = np.arange(L)
    arrivals = np.ascontiguousarray(moves.T)
    back = np.zeros((T, len(group), L), np.uint16)
    best = np.where(tags < edges[0], np.float32(0), np.float32(-np.inf)) + scores[begin]
    for t in range(T):
        live = _live(lengths, t)
        if t:
            candidates = best[:live, None, :] + arrivals
            chosen = candidates.argmax(axis=2)
            back[t, :live] = chosen
            best[:live] = np.take_along_axis(candidates, chosen[:, :, None], axis=2)[:, :, 0] + scores[begin[:live] + t]
        best[:live] -= best[:live].max(axis=1, keepdims=True)
    tag = np.where((tags >= closes) & (tags < inner), best, -np.inf).argmax(axis=1)
    for t in range(T - 1, -1, -1):
        live = _live(lengths, t)
        here = tag[:live]
        path[begin[:live] + t] = here
        tag[:live] = back[t, np.arange(live), here]


def _forward(group: I64, odds: F32, starts: I64, steps: F64, edges: I64, scale: F64, ends: F64) -> F64:
    begin, lengths = starts[group], np.diff(starts)[group]
    T, L = int(lengths[0]), len(steps)
    alpha = np.zeros((T, len(group), L))
    alpha[0] = (np.arange(L) < edges[0]) * odds[begin].astype(np.float64)
    for t in range(T):
        live = _live(lengths, t)
        at = begin[:live] + t
        if t:
            alpha[t, :live] = np.add.reduce(alpha[t - 1, :live, :, None] * steps, axis=1) * odds[at]
        scale[at] = alpha[t, :live].max(axis=1)
        alpha[t, :live] /= scale[at][:, None]
    final = alpha[lengths - 1, np.arange(len(group))]
    ends[group] = np.add.accumulate(final[:, int(edges[1]) : int(edges[2])], axis=1)[:, -1]
    return alpha


def _backward(group: I64, odds: F32, starts: I64, backs: F64, edges: I64, scale: F64, ends: F64) -> F64:
    begin, lengths = starts[group], np.diff(starts)[group]
    T, L = int(lengths[0]), len(backs)
    tags: I64 = np.arange(L)
    beta = np.zeros((T, len(group), L))
    beta[lengths - 1, np.arange(len(group)), :] = np.where((tags >= edges[1]) & (tags < edges[2]), 1.0 / ends[group][:, None], 0.0)
    for t in range(T - 1, 0, -1):
        live = _live(lengths, t)
        at = begin[:live] + t
        ahead = odds[at] * beta[t, :live] / scale[at][:, None]
        beta[t - 1, :live] = np.add.reduce(ahead[:, :, None] * backs, axis=1)
    return beta


def _spans(group: I64, alpha: F64, beta: F64, odds: F32, starts: I64, steps: F64, edges: I64, path: I32, scale: F64, mass: F64) -> None:
    begin, lengths = starts[group], np.diff(starts)[group]
    opens, closes, inner = int(edges[0]), int(edges[1]), int(edges[2])
    first, running = begin.copy(), np.zeros(len(group))
    for t in range(int(lengths[0])):
        live = _live(lengths, t)
        at, who = begin[:live] + t, np.arange(live)
        tag = path[at]
        begins = tag < opens
        first[:live] = np.where(begins, at, first[:live])
        before = path[np.maximum(at - 1, 0)]
        goes_on = running[:live] * steps[before, tag] * odds[at, tag] / scale[at]
        running[:live] = np.where(begins, alpha[t, who, tag], goes_on)
        done = (tag > closes) & (tag < inner)
        mass[first[:live][done]] = (running[:live] * beta[t, who, tag])[done]


def several(scores: F32, starts: I64, moves: F32, edges: I64, paths: I32, totals: F64) -> None:
    """The k best legal paths of each sentence, best first.

    Args:
        scores: shape (N, L).
        starts: where each sentence begins, shape (n + 1,).
        moves: transitions, minus infinity where illegal, shape (L, L).
        edges: see ``Layout``.
        paths: filled with tags, shape (k, N); outside, where a sentence has fewer paths.
        totals: filled with the score of each path, minus infinity where there is none, shape (n, k).
    """
    k, L = len(paths), scores.shape[1]
    opens, closes, inner = int(edges[0]), int(edges[1]), int(edges[2])
    paths[:] = closes
    totals[:] = -np.inf
    arrivals = np.ascontiguousarray(moves.T).astype(np.float64)
    for s, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        if start == end:
            totals[s, 0] = 0.0
            continue
        best, origin = np.full((L, k), -np.inf), np.zeros((end - start, L, k), np.int32)
        best[:opens, 0] = scores[start, :opens]
        for t in range(1, end - start):
            candidates = (arrivals[:, :, None] + best).reshape(L, L * k)
            origin[t] = np.argsort(-candidates, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(candidates, origin[t], axis=1) + scores[start + t].astype(np.float64)[:, None]
        final = np.full((L, k), -np.inf)
        final[closes:inner] = best[closes:inner]
        at = np.argsort(-final.ravel(), kind="stable")[:k]
        totals[s] = final.ravel()[at]
        for r in np.flatnonzero(totals[s] > -np.inf).tolist():
            here = int(at[r])
            for t in range(end - start - 1, -1, -1):
                paths[r, start + t] = here // k
                here = int(origin[t, here // k, here % k])
