"""A learned chain that answers: texts in, spans with probabilities out. Needs numpy; numba makes it faster with equal answers.

Knows nothing of how the weights were learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Output, Span

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


def _loops() -> tuple[Loop, Loop]:
    """The compiled loops, or their twins."""
    if available():
        from .chain_paths import decode, emit
    else:
        from .chain_plain import decode, emit
    return emit, decode


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

    def tag(self, texts: Sequence[str]) -> list[Output]:
        """One answer for each text."""
        emit, decode = _loops()
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
        return self._answers(places, path, logs, np.log(ends), mass)

    def _answers(self, places: Places, path: npt.NDArray[np.int32], logs: F64, log_ends: F64, mass: F64) -> list[Output]:
        opens, closes, inner = map(int, self.layout.edges)
        begins = np.flatnonzero((path < opens) & (path != closes))
        finals = np.flatnonzero((path > closes) & (path < inner))
        left, right = places.bounds()
        rows: Iterable[tuple[int, int, int]] = zip(left[begins].tolist(), right[finals].tolist(), path[begins].tolist(), strict=True)
        found = [Span(a, b, self._label[tag]) for a, b, tag in rows]
        sure = np.minimum(1.0, mass[begins]).tolist()
        cuts = np.searchsorted(begins, places.starts).tolist()
        answers: list[Output] = []
        starts, finish = places.starts.tolist(), log_ends.tolist()
        for i in range(len(starts) - 1):
            log_p = float(np.add.reduce(logs[starts[i] : starts[i + 1]])) - finish[i]
            a, b = cuts[i], cuts[i + 1]
            answers.append(Output(score=min(1.0, float(np.exp(log_p))), spans=tuple(found[a:b]), span_scores=tuple(sure[a:b])))
        return answers
