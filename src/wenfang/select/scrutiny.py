"""A closer look at the final model on test: slices, fairness, temperature, robustness, cost. The score does not change by it.

Knows nothing of how the model was chosen or of other models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wenfang.core.examples import Examples, Output
from wenfang.core.ports import Progress, ReplicaHost

from .calibration import Temperature, calibration, fit_temperature, softened
from .checks import Checks
from .cost import Cost, cost_of_a_million
from .evaluation import Evaluation
from .fairness import Fairness, fairness
from .latency import Latency
from .robustness.checking import Checked, brittle, check_robustness
from .slices import Mask, Slice, judge_slices, worst_slice
from .verdict import Sentence, p_text

__all__ = ["Scrutiny", "check_bundle", "look_closer"]


@dataclass(slots=True)
class Scrutiny:
    """What the closer look found."""

    slices: list[Slice] = field(default_factory=list[Slice])
    members: list[list[int]] = field(default_factory=list[list[int]])
    """For each row of errors, the numbers of the slices it belongs to."""
    fairness: list[Fairness] = field(default_factory=list[Fairness])
    temperature: Temperature | None = None
    cost: Cost | None = None
    robustness: list[Checked] = field(default_factory=list[Checked])
    examples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Texts with gold and answer; none unless the checks ask for them."""

    written: list[str] = field(default_factory=list[str])
    """Generated texts of the rows of errors; not in the document."""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "slices": [s.document() for s in self.slices], "error_slices": self.members, "fairness": [f.document() for f in self.fairness],
            "temperature": self.temperature.document() if self.temperature else None, "cost": self.cost.document() if self.cost else None,
            "robustness": [c.document() for c in self.robustness], "examples": self.examples,
        }  # fmt: skip

    def sentences(self) -> list[Sentence]:
        """What a reader must know: the worst slice, and what breaks the model."""
        said: list[Sentence] = []
        if worst := worst_slice(self.slices):
            assert worst.p_holm is not None, "only tested slices are called worse"
            told = {"slice": worst.name, "n": worst.n, "score": worst.score, "rest": worst.rest, "p": p_text(worst.p_holm), "slices_n": sum(s.p is not None for s in self.slices)}
            said.append(("verdict.worst-slice", told))
        return said + brittle(self.robustness)


def look_closer(
    evaluation: Evaluation, answers: Sequence[Output], test: Examples, *, train: Examples, valid: Evaluation, latency: Latency, checks: Checks, seed: int = 0
) -> Scrutiny:
    """Everything that needs no further answers of the model.

    Args:
        evaluation: of the final model on test.
        answers: n answers it was judged by.
        test: n examples.
        train: what it learned from.
        valid: evaluation of the chosen run on valid; the temperature is fitted there.
        latency: measured.
        checks: of the user.
        seed: of resamples.

    Cost: a bootstrap and a permutation test for each slice, well under a second for labels and spans.
    """
    columns = {"group": test.groups} if test.groups else {}
    slices, masks = judge_slices(evaluation.counts, test, train=train, columns=columns, rules=checks.slices, matched=checks.matched, seed=seed)
    gaps = fairness(evaluation.counts, columns, gold=test.labels, said=[o.label for o in answers] if test.labels else (), seed=seed)
    cost = cost_of_a_million(latency.p50_ms, latency.memory_bytes, checks.price)
    return Scrutiny(
        slices,
        _members(evaluation, masks),
        gaps,
        _temperature(valid, evaluation),
        cost,
        examples=_examples(evaluation, answers, test, checks.report.examples),
        written=_written(evaluation, answers),
    )


def _members(evaluation: Evaluation, masks: Sequence[Mask]) -> list[list[int]]:
    return [[i for i, mask in enumerate(masks) if mask[error.row]] for error in evaluation.errors]


def _examples(evaluation: Evaluation, answers: Sequence[Output], test: Examples, n: int) -> list[dict[str, Any]]:
    """Written texts from the worst to the best, or the surest errors; with their words."""
    if evaluation.agreement is not None:
        order = np.argsort(evaluation.agreement, kind="stable")
        rows = [int(order[i]) for i in np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).astype(np.int64))] if n else []
        return [{"text": _question(test, r), "gold": test.targets[r], "predicted": answers[r].text or "", "score": float(evaluation.agreement[r])} for r in rows]
    return [{"text": _question(test, e.row), "gold": e.gold, "predicted": e.predicted, "score": e.score} for e in evaluation.errors[:n]]


def _written(evaluation: Evaluation, answers: Sequence[Output]) -> list[str]:
    return [answers[e.row].text or "" for e in evaluation.errors] if evaluation.agreement is not None else []


def _question(test: Examples, row: int) -> str:
    return "\n".join(column[row] for column in (test.texts, test.texts_b) if column)


def _temperature(valid: Evaluation, test: Evaluation) -> Temperature | None:
    if valid.confidence is None or valid.right is None or test.confidence is None or test.right is None:
        return None
    found = fit_temperature(valid.confidence, valid.right)
    if found is None:
        return None
    before, after = (calibration(confidence, test.right)[0] for confidence in (test.confidence, softened(test.confidence, found)))
    return Temperature(found, len(valid.confidence), before, after)


def check_bundle(
    host: ReplicaHost, bundle: Path, test: Examples, answers: Sequence[Output], *, train: Examples, checks: Checks, limit_s: float, seed: int = 0, progress: Progress | None = None
) -> list[Checked]:
    """The robustness tests, asked of a real replica of ``bundle``; see ``check_robustness``."""
    replica = host.start(bundle)
    try:
        return check_robustness(replica, test, answers, checks.robustness, train=train, limit_s=limit_s, seed=seed, progress=progress)
    finally:
        replica.close()
