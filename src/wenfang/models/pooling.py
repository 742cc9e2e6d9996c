"""Several opinions become one: weights of probabilities and of spans, chosen on examples none of the members learned from.

Knows nothing of models: arrays and spans in, arrays and spans out. Choosing needs scipy, pooling numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Output, Span

from .spans import disjoint, span_f1

__all__ = ["Pool", "choose_pool", "choose_shares", "choose_votes", "pooled", "voted"]

Floats = npt.NDArray[np.floating]
_FLOOR = 1e-6
"""No member may be so sure that the others cannot be heard."""
_WEIGHT_PRIOR, _BIAS_PRIOR = 2.0, 5.0
"""Nats that a weight one away from equal shares, a bias one away from none, must bring over all examples together: few are not enough, many are."""
_SHARES_PRIOR = 2.0
"""Examples that equal shares of a mean are worth."""


@dataclass(frozen=True, slots=True)
class Pool:
    """How M members are heard.

    ``geometric``: softmax of the weighted sum of log-probabilities and a bias for each label (weights sum to a temperature of their own);
    otherwise the weighted mean.
    """

    weights: tuple[float, ...]
    geometric: bool = False
    bias: tuple[float, ...] = field(default=())


def pooled(opinions: Floats, pool: Pool) -> Floats:
    """One distribution for each example.

    Args:
        opinions: (M, B, L) probabilities.
        pool: how.

    Returns:
        (B, L) float32, rows sum to 1 (or to the mean of what the members' rows sum to).
    """
    weights = np.asarray(pool.weights, np.float64)
    if not pool.geometric:
        return np.tensordot(weights / weights.sum(), opinions, axes=1).astype(np.float32)
    score = np.tensordot(weights, np.log(np.maximum(opinions, _FLOOR)), axes=1) + (np.asarray(pool.bias) if pool.bias else 0.0)
    exp = np.exp(score - score.max(axis=1, keepdims=True))
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)


def choose_pool(opinions: Floats, truth: npt.NDArray[np.int64], *, stacking: bool) -> Pool:
    """The pool that makes the right labels most likely, held near equal shares by a prior that many examples outweigh.

    Args:
        opinions: (M, n, L) probabilities of examples that no member learned from.
        truth: (n,) right labels.
        stacking: a geometric pool with a bias for each label; otherwise weights of a mean.

    Source: Wolpert 1992 (stacking); Hinton 2002, section 1 (products of experts).
    """
    from scipy.optimize import minimize  # pyright: ignore[reportUnknownVariableType] scipy has no type stubs

    M, n, L = opinions.shape
    equal = Pool((1.0 / M,) * M)
    if n < 20 or M == 1:
        return equal
    if not stacking:
        return Pool(_mixture(opinions[:, np.arange(n), truth]))
    logs = np.log(np.maximum(opinions, _FLOOR)).astype(np.float64)
    hot = np.zeros((n, L))
    hot[np.arange(n), truth] = 1.0

    def loss(x: Floats) -> tuple[float, Floats]:
        weights, bias = x[:M], x[M:]
        score = np.tensordot(weights, logs, axes=1) + bias
        score -= score.max(axis=1, keepdims=True)
        exp = np.exp(score)
        p = exp / exp.sum(axis=1, keepdims=True)
        off = p - hot
        held = _WEIGHT_PRIOR * float(((weights - 1.0 / M) ** 2).sum()) + _BIAS_PRIOR * float((bias**2).sum())
        value = -float(np.log(np.maximum(p[np.arange(n), truth], 1e-300)).mean()) + held / n
        pull = 2.0 / n * np.concatenate([_WEIGHT_PRIOR * (weights - 1.0 / M), _BIAS_PRIOR * bias])
        return value, np.concatenate([np.einsum("mnl,nl->m", logs, off) / n, off.sum(axis=0) / n]) + pull

    start = np.concatenate([np.full(M, 1.0 / M), np.zeros(L)])
    optimise = cast("Any", minimize)
    found: npt.NDArray[np.float64] = optimise(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 10.0)] * M + [(-5.0, 5.0)] * L).x
    weights, bias = found[:M], found[M:]
    if not weights.any():
        return equal
    return Pool(tuple(round(float(w), 4) for w in weights), geometric=True, bias=tuple(round(float(b), 4) for b in bias))


def choose_shares(opinions: Floats, gold: npt.NDArray[np.bool_]) -> Pool:
    """The weights of a mean under which each label's presence or absence is most likely.

    Args:
        opinions: (M, n, L) probabilities of each label on its own, of examples that no member learned from.
        gold: (n, L) which labels hold.
    """
    M, n, _ = opinions.shape
    if n < 20 or M == 1:
        return Pool((1.0 / M,) * M)
    return Pool(_mixture(np.where(gold, opinions, 1.0 - opinions).reshape(M, -1)))


def _mixture(likelihoods: Floats) -> tuple[float, ...]:
    """Weights of a mixture of fixed parts by expectation-maximisation; (M, n) probabilities of what happened."""
    M, n = likelihoods.shape
    weights = np.full(M, 1.0 / M)
    parts = np.maximum(likelihoods, _FLOOR).astype(np.float64)
    for _ in range(200):
        shares = weights[:, None] * parts
        new = ((shares / shares.sum(axis=0)).sum(axis=1) + _SHARES_PRIOR / M) / (n + _SHARES_PRIOR)
        if np.abs(new - weights).max() < 1e-5:
            break
        weights = new
    return tuple(round(float(w), 4) for w in weights)


def voted(answers: Sequence[Sequence[Output]], weights: Sequence[float], threshold: float) -> list[Output]:
    """The spans that most members stand for, each answer by itself.

    A span's support is the weighted mean of the probabilities its members give it. Among spans that overlap, those are taken whose
    support above ``threshold`` is largest in sum.

    Args:
        answers: M members' answers to the same B texts.
        weights: M.
        threshold: support that a span needs.
    """
    total = sum(weights)
    merged: list[Output] = []
    for row in zip(*answers, strict=True):
        support: dict[Span, float] = {}
        for output, weight in zip(row, weights, strict=True):
            spans = output.spans or ()
            sure = output.span_scores or (1.0,) * len(spans)
            for span, p in zip(spans, sure, strict=True):
                support[span] = support.get(span, 0.0) + weight * p / total
        taken = _apart({span: p for span, p in support.items() if p > threshold}, threshold)
        scores = tuple(min(1.0, support[span]) for span in taken)
        merged.append(Output(spans=tuple(taken), score=float(np.prod(scores)) if scores else 1.0, span_scores=scores))
    return merged


def _apart(support: dict[Span, float], threshold: float) -> list[Span]:
    """The spans that do not overlap and gain most."""
    ordered = sorted(support, key=lambda s: (s.start, s.end))
    return [ordered[i] for i in disjoint([(s.start, s.end) for s in ordered], [support[s] - threshold for s in ordered])]


def choose_votes(answers: Sequence[Sequence[Output]], truth: Sequence[Sequence[Span]]) -> tuple[tuple[float, ...], float]:
    """Weights and threshold with the best span F1, found by changing one at a time.

    Args:
        answers: M members' answers to n texts none of them learned from.
        truth: n right answers.
    """

    def score(weights: Sequence[float], threshold: float) -> float:
        return span_f1([o.spans or () for o in voted(answers, weights, threshold)], truth)

    weights, threshold = [1.0] * len(answers), 0.5
    best = score(weights, threshold)
    for _ in range(2):
        for t in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55):
            if (found := score(weights, t)) > best:
                best, threshold = found, t
        for i in range(len(weights)):
            for w in (0.25, 0.5, 1.0, 1.5, 2.0):
                tried = [*weights[:i], w, *weights[i + 1 :]]
                if (found := score(tried, threshold)) > best:
                    best, weights = found, tried
    total = sum(weights)
    return tuple(round(w / total, 4) for w in weights), threshold
