"""A learned chain that answers: texts in, spans with probabilities out. Needs numpy; numba makes it faster with equal answers.

Knows nothing of how the weights were learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from wenfang.core.examples import Alternative, Output, Span

from .contexts import Contexts
from .hints import Hints
from .jit import available
from .places import Places, Unit
from .spans import disjoint
from .tags import Layout

__all__ = ["Tagger"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Loop = Callable[..., None]

_ODDS_LEAST = np.float32(-80.0)
"""Below it a score's exponential would not be a float32 any more."""
_ALTERNATIVES_MAX = 10
"""Ways to read a text that are kept at most: each costs four bytes for each tag and place of the longest text."""


def _loops() -> tuple[Loop, Loop, Callable[..., int], Loop]:
    """The compiled loops, or their twins."""
    if available():
        from .chain_paths import decode, emit, likely, several
    else:
        from .chain_plain import decode, emit, likely, several
    return emit, decode, likely, several


@dataclass(frozen=True, slots=True)
class _Read:
    """Spans among all places of a batch, ordered by where they begin, and the parts of the log partition of each text."""

    rows: I64
    """First place, last place and first tag of each, shape (n, 3)."""
    mass: F64
    """Probability of each, shape (n,)."""
    scale: F64
    ends: F64


class Tagger:
    """What tags texts.

    Args:
        contexts: what is seen.
        hints: channels that were learned.
        layout: of L tags.
        unit: what is tagged.
        labels: names of the labels.
        weights: shape (F, L).
        transitions: shape (L, L).
    """

    def __init__(self, contexts: Contexts, hints: Hints, layout: Layout, *, unit: Unit, labels: Sequence[str], weights: npt.NDArray[np.float16], transitions: F32) -> None:
        self.contexts, self.hints, self.layout = contexts, hints, layout
        self.unit: Unit = unit
        self.weights, self.transitions = weights, transitions
        self._wide = weights.astype(np.float32)
        legal = layout.legal
        lowered = transitions - transitions[legal].max(initial=-np.inf)
        self._moves = np.where(legal, lowered, np.float32(-np.inf)).astype(np.float32)
        self._steps = np.where(legal, np.exp(np.maximum(lowered.astype(np.float64), -100.0)), 0.0)
        self._backs = np.ascontiguousarray(self._steps.T)
        self._label: list[str] = [labels[(int(tag) - 1) // 4] for tag in layout.tags]

    def tag(self, texts: Sequence[str], *, top_k: int = 1, floor: float = 0.0) -> list[Output]:
        """One answer for each text, with ``top_k`` alternatives (at most 10) if more than one.

        Args:
            texts: B strings.
            top_k: how many ways to read each text are told.
            floor: above 0: the spans that are at least so probable, those that gain most over it where some overlap; 0: those of the best path.
        """
        places, starts, scores = self._scored(texts)
        read = self._likely(scores, starts, floor) if floor else self._best(scores, starts)
        kept = _apart(read.rows, read.mass, floor)
        rows, mass = read.rows[kept], read.mass[kept]
        path, N = self._path(rows, len(places)), len(places)
        logs = np.take_along_axis(scores, path[:, None], axis=1)[:, 0].astype(np.float64) - np.log(read.scale)
        if N > 1:
            inner = np.ones(N, np.bool_)
            inner[starts[starts < N]] = False  # no hop leads into the first place of a text
            logs[1:] += np.where(inner[1:], self._moves[path[:-1], path[1:]].astype(np.float64), 0.0)
        sure = np.minimum(1.0, np.exp(_added(logs, starts) - np.log(read.ends))).tolist()
        answers = [Output(score=p, spans=spans, span_scores=scored) for p, (spans, scored) in zip(sure, self._told(places, rows, mass), strict=True)]
        if top_k < 2:
            return answers
        return self._alternatives(places, scores, _added(np.log(read.scale), starts) + np.log(read.ends), answers, min(top_k, _ALTERNATIVES_MAX))

    def suspect(self, texts: Sequence[str], floor: float) -> list[Output]:
        """Every span of each text at least as probable as ``floor``, above 0, those that overlap among them."""
        places, starts, scores = self._scored(texts)
        read = self._likely(scores, starts, floor)
        return [Output(spans=spans, span_scores=scored) for spans, scored in self._told(places, read.rows, read.mass)]

    def _scored(self, texts: Sequence[str]) -> tuple[Places, I64, F32]:
        places = Places(texts, self.unit)
        windows = self.contexts.windows(places, self.hints.channels(places))
        scores = np.zeros((len(places), len(self.layout.tags)), np.float32)
        _loops()[0](windows.rows, self._wide, scores)
        return places, windows.starts, scores

    def _best(self, scores: F32, starts: I64) -> _Read:
        N, lay, odds = len(scores), self.layout, np.exp(np.maximum(scores, _ODDS_LEAST))
        path, scale, ends, mass = np.zeros(N, np.int32), np.ones(N), np.ones(len(starts) - 1), np.zeros(N)
        _loops()[1](scores, odds, starts, self._moves, self._steps, self._backs, lay.edges, lay.before, path, scale, ends, mass)
        rows = self._spans(path)
        return _Read(rows, mass[rows[:, 0]], scale, ends)

    def _likely(self, scores: F32, starts: I64, floor: float) -> _Read:
        N, lay, odds = len(scores), self.layout, np.exp(np.maximum(scores, _ODDS_LEAST))
        room = int(N * (1.0 / floor + 1.0))
        rows, mass, scale, ends = np.zeros((room, 3), np.int64), np.zeros(room), np.ones(N), np.ones(len(starts) - 1)
        found = _loops()[2](odds, starts, self._steps, self._backs, lay.edges, lay.before, lay.after, floor, scale, ends, rows, mass)
        return _Read(rows[:found], mass[:found], scale, ends)

    def _spans(self, path: npt.NDArray[np.int32]) -> I64:
        """First place, last place and first tag of the spans on a path."""
        opens, closes, inner = map(int, self.layout.edges)
        begins = np.flatnonzero((path < opens) & (path != closes))
        return np.stack([begins, np.flatnonzero((path > closes) & (path < inner)), path[begins]], axis=1).astype(np.int64)

    def _path(self, rows: I64, N: int) -> npt.NDArray[np.int32]:
        """The tags of N places that have just these spans."""
        closes = int(self.layout.edges[1])
        path = np.full(N, closes, np.int32)
        long = rows[rows[:, 2] < closes]
        for k in range(1, int((long[:, 1] - long[:, 0]).max(initial=0))):
            on = long[long[:, 0] + k < long[:, 1]]
            path[on[:, 0] + k] = self.layout.after[on[:, 2], 0]
        path[long[:, 1]] = self.layout.after[long[:, 2], 1]
        path[rows[:, 0]] = rows[:, 2]
        return path

    def _told(self, places: Places, rows: I64, mass: F64) -> list[tuple[tuple[Span, ...], tuple[float, ...]]]:
        """The spans of each text and the probability of each."""
        left, right = places.bounds()
        ends: Iterable[tuple[int, int, int]] = zip(left[rows[:, 0]].tolist(), right[rows[:, 1]].tolist(), rows[:, 2].tolist(), strict=True)
        found = [Span(a, b, self._label[tag]) for a, b, tag in ends]
        sure = np.minimum(1.0, mass).tolist()
        return [(tuple(found[a:b]), tuple(sure[a:b])) for a, b in pairwise(np.searchsorted(rows[:, 0], places.starts).tolist())]

    def _alternatives(self, places: Places, scores: F32, log_z: F64, answers: list[Output], k: int) -> list[Output]:
        """The answers with k ways to read each text: the answer itself, then the likeliest others."""
        paths, totals = np.zeros((k, len(places)), np.int32), np.zeros((len(answers), k))
        _loops()[3](scores, places.starts, self._moves, self.layout.edges, paths, totals)
        read = [self._told(places, rows, np.zeros(len(rows))) for rows in map(self._spans, paths)]
        odds = np.minimum(1.0, np.exp(totals - log_z[:, None])).tolist()
        told: list[Output] = []
        for i, answer in enumerate(answers):
            others = [Alternative(read[r][i][0], odds[i][r]) for r in range(k) if totals[i, r] > -np.inf and read[r][i][0] != answer.spans]
            told.append(replace(answer, alternatives=(Alternative(answer.spans or (), answer.score or 0.0), *others)[:k]))
        return told


def _added(values: F64, starts: I64) -> F64:
    """The sum of the values of each text, alike alone and among others."""
    return np.array([float(np.add.reduce(values[a:b])) for a, b in pairwise(starts.tolist())])


def _apart(rows: I64, mass: F64, floor: float) -> I64:
    """Which of the spans to keep so that none overlap and what they gain over ``floor`` is most."""
    kept = np.ones(len(rows), np.bool_)
    heads = np.flatnonzero(np.append(True, rows[1:, 0] > np.maximum.accumulate(rows[:, 1])[:-1])[: len(rows)])  # where spans begin that touch none before
    sizes = np.diff(np.append(heads, len(rows)))
    for a, n in zip(heads[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        chosen = disjoint([(first, last + 1) for first, last, _ in rows[a : a + n].tolist()], (mass[a : a + n] - floor).tolist())
        kept[a : a + n] = False
        kept[[a + i for i in chosen]] = True
    return np.flatnonzero(kept)
