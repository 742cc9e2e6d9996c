"""Which candidate agrees most with what is wanted: figures of each candidate, and a regression on the overlap. Knows nothing of how candidates are made.

The regression is learned inside each source, so that it says which of its candidates is best, not which source is easy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.text import common_subsequence

from .candidates import Candidate, Phrases
from .ngrams import NGrams
from .units import Units

__all__ = ["FIGURES", "Judge", "figures_of", "overlap"]

Doubles = npt.NDArray[np.float64]
RIDGE = 0.06
"""Weight of the penalty for each unit of a source's weight."""
FAR = 4.0
"""Deviations beyond which figures are cut."""
FIGURES = 39


def overlap(said: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of the longest common subsequence (ROUGE-L, Lin 2004).

    >>> overlap("abc", "abd")
    0.6666666666666666
    """
    return 2 * common_subsequence(wanted, said) / (len(said) + len(wanted)) if said or wanted else 1.0


def figures_of(units: Units, odds: Doubles, candidates: Sequence[Candidate], phrases: Phrases, language: NGrams, *, length: tuple[float, float]) -> Doubles:
    """Shape (candidates, FIGURES): how likely the kept units are, how long it is, how it is cut, how it reads, what it repeats of the source.

    Args:
        units: of the source.
        odds: of being kept, beginning, ending, shape (T, 3).
        candidates: of that source.
        phrases: what may be added.
        language: of targets.
        length: mean and deviation of targets, in units.
    """
    chance = 1 / (1 + np.exp(-odds[:, 0]))
    total = float(chance[~units.mark].sum())
    pairs = Counter(zip(units.words, units.words[1:], strict=False))
    clause = np.concatenate([[0], np.cumsum(units.mark)[:-1]])
    shares = dict(phrases.endings)
    rows = [
        [*_sizes(c, chance, length, total), *_cuts(c, units, odds, clause), *_reading(c, language.log_chances(c.words), shares, length[0]), *_repeats(c, units, pairs)]
        for c in candidates
    ]
    return np.array(rows, np.float64).reshape(-1, FIGURES)


def _sizes(c: Candidate, chance: Doubles, length: tuple[float, float], total: float) -> list[Any]:
    p = chance[c.choice.units()]
    mean, deviation = length
    n, worth, far = len(c.words), float(p.sum()), (len(c.words) - mean) / deviation
    expected = 2 * worth / (n + mean)
    least = np.sort(p)[: max(1, len(p) // 4)].mean()
    return [expected, 2 * worth / (len(p) + mean), worth / len(p), p.min(), worth / total, far, far * far, abs(far), max(0.0, far), (p > 0.5).mean(), (p < 0.2).mean(), least]


def _cuts(c: Candidate, units: Units, odds: Doubles, clause: npt.NDArray[np.int64]) -> list[Any]:
    pieces = c.choice.pieces
    starts, ends = [a for a, _ in pieces], [b - 1 for _, b in pieces]
    begin, end = odds[starts, 1], odds[ends, 2]
    whole_start = np.mean([a == 0 or units.mark[a - 1] for a in starts])
    whole_end = np.mean([b + 1 >= len(units) or units.mark[b + 1] for b in ends])
    place = [starts[0] / len(units), ends[-1] / len(units), float(clause[starts[0]] == 0), len({int(clause[a]) for a in starts})]
    return [
        len(pieces),
        float(len(pieces) == 1),
        begin.mean(),
        begin.min(),
        end.mean(),
        end.min(),
        begin[0],
        end[-1],
        whole_start,
        whole_end,
        min(b - a for a, b in pieces),
        *place,
    ]


def _reading(c: Candidate, log: Doubles, shares: dict[tuple[str, ...], float], mean: float) -> list[Any]:
    ending = shares.get(c.words[-2:], 0.0) if c.added else 0.0
    return [log.mean(), log.min(), log[0], log[-1], log[-2:].mean(), log.sum() / mean, c.added, float(c.added > 0), ending]


def _repeats(c: Candidate, units: Units, pairs: Counter[tuple[str, str]]) -> list[Any]:
    times = np.array([pairs[units.words[i], units.words[i + 1]] for a, b in c.choice.pieces for i in range(a, b - 1)] or [0])
    return [(times > 1).mean(), times.mean(), np.log1p(times).mean()]


@dataclass(frozen=True, slots=True)
class Judge:
    """Worth of candidates of one source against each other.

    Args:
        centre: mean of each figure, shape (FIGURES,).
        spread: deviation of each, shape (FIGURES,).
        weights: of the figures and of their products, shape (FIGURES + FIGURES (FIGURES + 1) / 2,); all 0: the expected overlap alone decides.
    """

    centre: Doubles
    spread: Doubles
    weights: Doubles

    @classmethod
    def learn(cls, sources: Iterable[tuple[Doubles, Doubles]]) -> Judge:
        """From figures (C, FIGURES) and overlaps (C,) of the candidates of each source.

        Cost: a product of (C, 819) matrices for each source, and one solution of 819 equations.
        """
        held = [(figures, overlaps) for figures, overlaps in sources if len(overlaps) > 1]
        size = FIGURES + FIGURES * (FIGURES + 1) // 2
        if not held:
            return cls(np.zeros(FIGURES), np.ones(FIGURES), np.zeros(size))
        every = np.concatenate([figures for figures, _ in held])
        blank = cls(every.mean(axis=0), every.std(axis=0) + 1e-9, np.zeros(size))
        square, along, weight = np.zeros((size, size)), np.zeros(size), 0.0
        for figures, overlaps in held:
            wide, own = blank._wide(figures), len(overlaps) ** -0.5
            wide -= wide.mean(axis=0)
            square += own * (wide.T @ wide)
            along += own * (wide.T @ (overlaps - overlaps.mean()))
            weight += own * len(overlaps)
        square[np.diag_indices(size)] += RIDGE * weight
        return cls(blank.centre, blank.spread, np.linalg.solve(square, along).astype(np.float64))

    def worth(self, figures: Doubles) -> Doubles:
        """More is better, shape (C,)."""
        return self._wide(figures) @ self.weights if self.weights.any() else figures[:, 0]

    def _wide(self, figures: Doubles) -> Doubles:
        z = np.clip((figures - self.centre) / self.spread, -FAR, FAR)
        i, j = np.triu_indices(FIGURES)
        return np.concatenate([z, z[:, i] * z[:, j]], axis=1)
