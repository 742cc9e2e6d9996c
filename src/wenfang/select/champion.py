"""A new model against the present champion, on the same test examples: better, equal or worse. Knows nothing of records or pointers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wenfang.core.errors import WenfangError
from wenfang.core.examples import Examples
from wenfang.core.ports import Progress, ReplicaHost
from wenfang.stats.paired import compare
from wenfang.stats.scores import Counts

from .choose import ALPHA
from .evaluate import predict_all
from .verdict import Sentence, p_text
from .wanted import judge

__all__ = ["LEAST_CLEAN", "Duel", "duel"]

LEAST_CLEAN = 50
"""With fewer examples that the champion has not learned from, all are compared, and the reader is told."""


@dataclass(frozen=True, slots=True)
class Duel:
    """How the new model stands to the champion."""

    champion: str
    verdict: Literal["better", "equal", "worse", "incomparable"]
    score: float | None = None
    """Of the champion."""
    difference: float = 0.0
    """Score of the new one less that of the champion."""
    low: float = 0.0
    high: float = 0.0
    p: float = 1.0
    n: int = 0
    learned_n: int = 0
    """Test examples that the champion has learned from."""
    learned_out: bool = False
    """They were left out of the comparison."""
    reason: str = ""
    """Why they cannot be compared: the code of an error."""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def at_worst(self) -> float:
        """How much worse the new model may be, in units of the score: the interval's lower end, and not less than what n examples without a difference leave open.

        Source: Hanley & Lippman-Hand 1983 (If nothing goes wrong, is everything all right?): three in n.
        """
        return max(0.0, -self.low, 3.0 / max(1, self.n))

    def short_of(self, margin: float) -> Sentence | None:
        """Why the new model should not replace the champion: it is worse, or nothing shows that it is not worse by more than ``margin``; None: it should."""
        if self.verdict == "better":
            return None
        if self.verdict == "equal":
            lacking = {"champion": self.champion, "points": 100 * self.at_worst(), "margin": 100 * margin, "n": self.n}
            return None if self.at_worst() <= margin else ("verdict.champion-unproven", lacking)
        return ("verdict.champion-unproven-at-all" if self.verdict == "incomparable" else "verdict.champion-kept", {"champion": self.champion})

    def sentences(self) -> list[Sentence]:
        """In words."""
        if self.verdict == "incomparable":
            return [("verdict.champion-incomparable", {"champion": self.champion, "reason": self.reason})]
        fields = {"champion": self.champion, "points": 100 * self.difference, "low": 100 * self.low, "high": 100 * self.high, "p": p_text(self.p), "n": self.n}
        said: list[Sentence] = [(f"verdict.champion-{self.verdict}", fields)]
        if self.learned_n:
            said.append(("verdict.champion-learned-out" if self.learned_out else "verdict.champion-learned", {"champion": self.champion, "learned_n": self.learned_n}))
        return said


def duel(
    host: ReplicaHost, champion: Path, test: Examples, counts: Counts, *, name: str, learned_rows: Sequence[int] = (), seed: int = 0, progress: Progress | None = None
) -> Duel:
    """Ask the champion's bundle the test questions and compare.

    Args:
        host: starts replicas.
        champion: its unpacked bundle.
        test: n examples.
        counts: of the new model on them, by the metric it was chosen by.
        name: of the champion, as people read it.
        learned_rows: rows of test that the champion has learned from; left out when enough others remain.
        seed: of the resamples.
        progress: told the answers.
    """
    try:
        replica = host.start(champion)
        try:
            outputs = predict_all(replica, test, progress=progress)
        finally:
            replica.close()
        other = judge(outputs, test, metric=counts.metric, resamples=10, seed=seed)
    except WenfangError as e:  # a bundle of another time or place: the new one is then judged by itself
        return Duel(name, "incomparable", reason=e.code)
    if other.counts.metric != counts.metric:
        return Duel(name, "incomparable", reason="select.unknown-metric")
    keep = np.ones(len(test), np.bool_)
    keep[list(learned_rows)] = False
    left_out = len(learned_rows) > 0 and int(keep.sum()) >= LEAST_CLEAN
    if not left_out:
        keep[:] = True
    ours, theirs = counts.take(keep), other.counts.take(keep)
    found = compare(ours, theirs, seed=seed)
    verdict = "equal" if found.p > ALPHA else "better" if found.difference > 0 else "worse"
    return Duel(name, verdict, other.score, found.difference, found.low, found.high, found.p, int(keep.sum()), len(learned_rows), left_out)
