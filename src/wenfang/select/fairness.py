"""Fairness across the values of a column: score of each group, and for two classes the rates that equalised odds compares.

Knows nothing of models or of what the groups mean; whether a gap is acceptable is the reader's judgement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wenfang.stats.bootstrap import interval
from wenfang.stats.scores import Counts

__all__ = ["GROUPS_MAX", "Fairness", "Group", "fairness"]

GROUPS_MAX = 20
"""A column with more values names things (customers, documents), not groups."""
LEAST = 20
"""Groups with fewer examples are shown and left out of the gaps."""


@dataclass(frozen=True, slots=True)
class Group:
    """One value of the column."""

    value: str
    n: int
    score: float
    low: float
    high: float
    hit_rate: float | None = None
    """Two classes: share of the positive examples that were answered positive; None without any."""
    alarm_rate: float | None = None
    """Share of the negative ones that were."""
    positive_rate: float | None = None
    """Share of all that were."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """One column."""

    column: str
    positive: str | None
    """The class whose rates are compared: the rarer one; None when there are not two."""
    groups: list[Group]
    score_gap: float
    """Between the best and the worst group."""
    hit_gap: float | None
    alarm_gap: float | None
    positive_gap: float | None

    @property
    def odds_gap(self) -> float | None:
        """The larger of the two gaps that equalised odds wants to be 0."""
        return None if self.hit_gap is None or self.alarm_gap is None else max(self.hit_gap, self.alarm_gap)

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "odds_gap": self.odds_gap}


def fairness(counts: Counts, columns: Mapping[str, Sequence[str]], *, gold: Sequence[str] = (), said: Sequence[str | None] = (), seed: int = 0) -> list[Fairness]:
    """Compare the groups of each column that has between 2 and 20 values.

    Args:
        counts: of the headline metric, n rows.
        columns: n values each, by name.
        gold: n labels; rates are given when they are of two classes.
        said: n answers.
        seed: of the intervals.

    Source: Hardt, Price and Srebro 2016 (Equality of opportunity in supervised learning).
    """
    classes = Counter(gold)
    positive = min(classes, key=lambda c: (classes[c], c)) if len(classes) == 2 else None
    found: list[Fairness] = []
    for column, values in columns.items():
        sizes = Counter(values)
        if not 2 <= len(sizes) <= GROUPS_MAX:
            continue
        groups: list[Group] = []
        for value, n in sizes.most_common():
            inside = np.array([v == value for v in values])
            own = interval(counts.take(inside), resamples=2000, seed=seed)
            rates = _rates([(g == positive, s == positive) for g, s, there in zip(gold, said, inside, strict=True) if there]) if positive is not None else {}
            groups.append(Group(value, n, own.score, own.low, own.high, **rates))
        large = [g for g in groups if g.n >= LEAST]
        if len(large) >= 2:
            gaps = [_gap([r for g in large if (r := getattr(g, name)) is not None]) for name in ("hit_rate", "alarm_rate", "positive_rate")]
            found.append(Fairness(column, positive, groups, _gap([g.score for g in large]) or 0.0, *gaps))
    return found


def _rates(pairs: Sequence[tuple[bool, bool]]) -> dict[str, float | None]:
    def share(of: Sequence[bool]) -> float | None:
        return sum(of) / len(of) if of else None

    return {"hit_rate": share([s for g, s in pairs if g]), "alarm_rate": share([s for g, s in pairs if not g]), "positive_rate": share([s for _, s in pairs])}


def _gap(values: Sequence[float]) -> float | None:
    return max(values) - min(values) if len(values) >= 2 else None
