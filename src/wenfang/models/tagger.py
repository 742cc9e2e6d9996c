"""A learned chain that answers: texts in, spans with probabilities out. Needs numpy; numba makes it faster with equal answers.

Knows nothing of how the weights were learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from wenfang.core.examples import Alternative, Output, Span

from .contexts import Contexts
from .hints import Hints
from .jit import available
from .places import Places, Unit
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


def _loops() -> tuple[Loop, Loop, Loop]:
    """The compiled loops, or their twins."""
    if available():
        from .chain_paths import decode, emit, several
    else:
        from .chain_plain import decode, emit, several
    return emit, decode, several


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

    def tag(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each text, with ``top_k`` alternatives (at most 10) if more than one."""
        emit, decode, _ = _loops()
        places = Places(texts, self.unit)
        windows = self.contexts.windows(places, self.hints.channels(places))
        starts, N, L, lay = windows.starts, len(places), len(self.layout.tags), self.layout
        scores, path, scale, ends, mass = np.zeros((N, L), np.float32), np.zeros(N, np.int32), np.ones(N), np.ones(len(texts)), np.zeros(N)
        emit(windows.rows, self._wide, scores)
        odds = np.exp(np.maximum(scores, _ODDS_LEAST))
        decode(scores, odds, starts, self._moves, self._steps, self._backs, lay.edges, lay.before, path, scale, ends, mass)
        logs = np.take_along_axis(scores, path[:, None], axis=1)[:, 0].astype(np.float64) - np.log(scale)
        if N > 1:
            inner = np.ones(N, np.bool_)
            inner[starts[starts < N]] = False  # no hop leads into the first place of a text
            logs[1:] += np.where(inner[1:], self._moves[path[:-1], path[1:]].astype(np.float64), 0.0)
        found = self._found(places, path, mass)
        sure = np.minimum(1.0, np.exp(_added(logs, starts) - np.log(ends))).tolist()
        answers = [Output(score=p, spans=spans, span_scores=scored) for p, (spans, scored) in zip(sure, found, strict=True)]
        if top_k < 2:
            return answers
        return self._alternatives(places, scores, _added(np.log(scale), starts) + np.log(ends), answers, min(top_k, _ALTERNATIVES_MAX))

    def _found(self, places: Places, path: npt.NDArray[np.int32], mass: F64) -> list[tuple[tuple[Span, ...], tuple[float, ...]]]:
        """The spans of each text on a path, and what ``mass`` says where they begin."""
        opens, closes, inner = map(int, self.layout.edges)
        begins = np.flatnonzero((path < opens) & (path != closes))
        finals = np.flatnonzero((path > closes) & (path < inner))
        left, right = places.bounds()
        rows: Iterable[tuple[int, int, int]] = zip(left[begins].tolist(), right[finals].tolist(), path[begins].tolist(), strict=True)
        found = [Span(a, b, self._label[tag]) for a, b, tag in rows]
        sure = np.minimum(1.0, mass[begins]).tolist()
        return [(tuple(found[a:b]), tuple(sure[a:b])) for a, b in pairwise(np.searchsorted(begins, places.starts).tolist())]

    def _alternatives(self, places: Places, scores: F32, log_z: F64, answers: list[Output], k: int) -> list[Output]:
        """The answers with the k likeliest ways to read each text, the answer itself first."""
        paths, totals = np.zeros((k, len(places)), np.int32), np.zeros((len(answers), k))
        _loops()[2](scores, places.starts, self._moves, self.layout.edges, paths, totals)
        read = [self._found(places, path, np.zeros(len(path))) for path in paths]
        odds = np.minimum(1.0, np.exp(totals - log_z[:, None])).tolist()
        told: list[Output] = []
        for i, answer in enumerate(answers):
            others = [Alternative(read[r][i][0], odds[i][r]) for r in range(k) if totals[i, r] > -np.inf and read[r][i][0] != answer.spans]
            told.append(replace(answer, alternatives=(Alternative(answer.spans or (), answer.score or 0.0), *others)[:k]))
        return told


def _added(values: F64, starts: I64) -> F64:
    """The sum of the values of each text, alike alone and among others."""
    return np.array([float(np.add.reduce(values[a:b])) for a, b in pairwise(starts.tolist())])
