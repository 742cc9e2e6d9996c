"""Successive halving: proposals are first fitted on a small share of train, and only the promising go on to more of it.

Each proposal is compared with an anchor, the family's best guess, fitted on the same share: what counts is the gain over it.
Pure: runs in, decisions out; what was decided follows from what was done, so a killed selection decides the same again. Knows nothing of
time, or of where proposals come from.
Source: Jamieson and Talwalkar 2016 (successive halving); Li et al. 2020 (asynchronous promotion).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wenfang.core.examples import Examples

from .trial import Run

__all__ = ["FACTOR", "gain", "portion", "promotion", "shares_for"]

FACTOR = 3
LEAST_ROWS = 1000
"""The smallest share holds at least so many examples."""


def shares_for(rows: int) -> tuple[float, ...]:
    """The shares of train that a proposal passes through, the whole at last.

    >>> [len(shares_for(n)) for n in (500, 2999, 3000, 9000, 10**6)]
    [1, 1, 2, 3, 3]
    """
    return tuple(1 / FACTOR**k for k in (2, 1, 0) if k == 0 or rows >= LEAST_ROWS * FACTOR**k)


def portion(examples: Examples, share: float, *, seed: int) -> Examples:
    """A share of the examples: smaller ones lie inside larger ones, and every label keeps its part (one example at least).

    Args:
        examples: n of them.
        share: 0..1.
        seed: of the draw.
    """
    n = len(examples)
    if share >= 1:
        return examples
    order = np.random.default_rng(seed).permutation(n)
    if len(examples.labels) != n:
        return examples.take(sorted(order[: math.ceil(share * n)].tolist()))
    _, codes = np.unique(np.asarray(examples.labels, object), return_inverse=True)
    by_label = order[np.argsort(codes[order], kind="stable")]  # label by label, in random order within
    counts = np.bincount(codes)
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    keep = rank < np.ceil(share * counts)[codes[by_label]]
    return examples.take(sorted(by_label[keep].tolist()))


def gain(run: Run, anchors: Sequence[Run]) -> float:
    """Score above the anchor of the same share; -inf for a failed run."""
    anchor = next((a for a in anchors if a.share == run.share), None)
    return run.score - anchor.score if anchor is not None and math.isfinite(anchor.score) else -math.inf


def promotion(runs: Sequence[Run], anchors: Sequence[Run], shares: Sequence[float], *, last: bool) -> tuple[Run, float] | None:
    """The run that should go on, and the share it goes to; None: propose something new.

    Among the runs of one share the best third goes on, if it is no worse than the anchor.

    Args:
        runs: of proposals, all shares.
        anchors: of the family's best guess on the shares below the whole.
        shares: ascending, the last is the whole.
        last: no time for more than one fit of the whole: the best one there is goes there at once.
    """
    if last:
        waiting = [r for r in runs if r.share < 1 and gain(r, anchors) > 0 and not any(o.proposal == r.proposal and o.share > r.share for o in runs)]
        best = max(waiting, key=lambda r: (r.share, gain(r, anchors)), default=None)
        return None if best is None else (best, 1.0)
    for level in range(len(shares) - 2, -1, -1):
        done = sorted((r for r in runs if r.share == shares[level]), key=lambda r: (-r.score, r.candidate))
        gone = {r.proposal for r in runs if r.share > shares[level]}
        for run in done[: len(done) // FACTOR]:
            if run.proposal not in gone and gain(run, anchors) >= 0:
                return run, shares[level + 1]
    return None
