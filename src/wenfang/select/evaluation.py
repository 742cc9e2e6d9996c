"""What an evaluation is: score with interval, tables, and the counts that paired tests need. Knows nothing of how answers are judged.

Texts never enter an evaluation: rows of errors name the example, not its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts, Metric

from .calibration import Bin, calibration
from .metrics import ClassRow, Confusion

__all__ = ["ERRORS_KEPT", "FIGURE_RESAMPLES", "ErrorRow", "Evaluation", "confidences", "error_rows", "figure_of", "reliability_of"]

ERRORS_KEPT = 1000
FIGURE_RESAMPLES = 2000
"""Figures beside the headline are shown only, and some of them cost more."""
Shares = npt.NDArray[np.float64]
Rights = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A wrong answer: which example, what stands there, what was said."""

    row: int
    id: str
    gold: str
    predicted: str
    score: float | None
    """The model's confidence; for graded pairs its grade, for written texts their agreement with the wanted one."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one model did on n examples."""

    task: Task
    metric: Metric
    n: int
    score: float
    low: float
    high: float
    counts: Counts
    """Of the headline metric, one row per example: what paired tests work on."""
    figures: dict[str, Any]
    """Other metrics by name, with ``…_low`` and ``…_high`` where they have an interval."""
    classes: list[ClassRow] = field(default_factory=list[ClassRow])
    confusion: Confusion | None = None
    ece: float | None = None
    bins: list[Bin] = field(default_factory=list[Bin])
    errors: list[ErrorRow] = field(default_factory=list[ErrorRow])
    """The most confident (graded pairs and written texts: the furthest off) first, at most 1000."""
    errors_n: int = 0
    constant: bool = False
    """Every answer was the same: nothing was learned from the texts."""
    right: Rights | None = None
    """(n,) whether each answer was right, where answers are right or wrong."""
    confidence: Shares | None = None
    """(n,) probability the model gave each answer."""
    agreement: Shares | None = None
    """(n,) ROUGE-L of each written text with the wanted one."""
    picture: dict[str, Any] = field(default_factory=dict[str, Any])
    """Points or histograms that a report draws."""

    def headline(self) -> dict[str, float]:
        """Score and interval."""
        return {"score": self.score, "low": self.low, "high": self.high}

    def document(self, *, classes_max: int = 10_000) -> dict[str, Any]:
        """Everything but what has a row for each example, as plain values."""
        return {
            "metric": self.metric, "n": self.n, **self.headline(), **self.figures, "ece": self.ece, "bins": [asdict(b) for b in self.bins],
            "per_class": [asdict(c) for c in self.classes[:classes_max]], "confusion": asdict(self.confusion) if self.confusion else None,
            "errors": [asdict(e) for e in self.errors], "errors_n": self.errors_n, "picture": self.picture,
        }  # fmt: skip


def figure_of(counts: Counts, *, resamples: int, seed: int, name: str = "") -> dict[str, float]:
    """A figure beside the headline with its interval, under the metric's name or another."""
    found = interval(counts, resamples=min(resamples, FIGURE_RESAMPLES), seed=seed)
    key = name or counts.metric
    return {key: found.score, f"{key}_low": found.low, f"{key}_high": found.high}


def confidences(answers: Sequence[Output]) -> Shares | None:
    """(n,) scores as probabilities; None where an answer has none or there are no answers."""
    if not answers or any(o.score is None for o in answers):
        return None
    return np.clip(np.array([o.score for o in answers], np.float64), 0, 1)


def reliability_of(confidence: Shares | None, right: Rights) -> tuple[float | None, list[Bin]]:
    """Calibration error and bins; nothing without confidences."""
    return (None, []) if confidence is None else calibration(confidence, right)


def error_rows(order: Sequence[int], examples: Examples, *, gold: Sequence[str], said: Sequence[str], score: Sequence[float | None]) -> list[ErrorRow]:
    """The first rows of ``order``."""
    return [ErrorRow(i, examples.ids[i] if examples.ids else "", gold[i], said[i], score[i]) for i in order[:ERRORS_KEPT]]
