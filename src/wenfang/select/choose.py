"""The choice: hard limits filter, the best score on valid leads, and whoever is not significantly worse and cheaper wins.

Pure: candidates in, choice out. Knows nothing of files, time or words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from wenfang.core.errors import Invalid
from wenfang.stats.paired import Difference, compare, holm
from wenfang.stats.scores import Counts

from .cost import Price, cost_of_a_million

__all__ = ["ALPHA", "SAME_COST", "SAME_SIZE", "Breach", "Candidate", "Choice", "Cost", "Limits", "Test", "choose", "non_dominated"]

ALPHA = 0.05
SAME_COST = 1.25
"""Latencies within 25 % of the fastest are called equal: two measurements of one model differ by as much on a busy machine."""
SAME_SIZE = 4.0
"""Size decides where it is another order: some megabytes cost nothing that a point of score would not be worth; who must save them sets a limit."""


class Measured(Protocol):
    """What limits look at."""

    @property
    def latency(self) -> dict[str, Any] | None:
        """``p99_ms`` and ``memory_bytes``."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """Of the bundle."""
        ...

    @property
    def charged(self) -> float | None:
        """What somebody else charges for one million requests."""
        ...


@dataclass(frozen=True, slots=True)
class Cost:
    """What limits look at, by itself."""

    latency: dict[str, Any] | None
    size_bytes: int | None
    charged: float | None = None


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that a candidate does not keep."""

    limit: str
    """``max_latency_ms``, ``max_size_bytes``, ``max_memory_bytes`` or ``max_cost_per_million``."""
    value: float
    allowed: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits; None: none."""

    max_latency_ms: float | None = None
    """Of the p99 of single texts."""
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    max_cost_per_million: float | None = None
    """Money for one million requests: what others charge, or the time of the machine at ``price``."""
    price: Price | None = None

    def broken_by(self, candidate: Measured) -> list[Breach]:
        """The limits that a measured candidate does not keep."""
        latency = candidate.latency or {}
        pairs = (
            ("max_latency_ms", latency.get("p99_ms")),
            ("max_size_bytes", candidate.size_bytes),
            ("max_memory_bytes", latency.get("memory_bytes")),
            ("max_cost_per_million", self.money(candidate)),
        )
        return [Breach(name, value, allowed) for name, value in pairs if (allowed := getattr(self, name)) is not None and value is not None and value > allowed]

    def money(self, candidate: Measured) -> float | None:
        """What one million requests cost; None where nothing is known of it."""
        latency = candidate.latency
        if latency is None or self.price is None:
            return candidate.charged
        return (candidate.charged or 0.0) + (cost_of_a_million(latency["p50_ms"], latency["memory_bytes"], self.price).money or 0.0)

    def document(self) -> dict[str, Any]:
        """The limits alone, as plain values."""
        return {k: v for k, v in asdict(self).items() if k != "price"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A measured contender."""

    name: str
    family: str
    score: float
    counts: Counts
    latency: dict[str, Any]
    size_bytes: int
    constant: bool = False
    """Answers every text alike; it may win by its score, never by being cheap."""
    charged: float | None = None
    """What somebody else charges for one million requests."""

    @property
    def p99_ms(self) -> float:
        """Of single texts."""
        return float(self.latency["p99_ms"])

    def slower_than(self, other: Candidate) -> bool:
        """Clearly slower: in p99, and in p50 too, for a busy machine moves p99 alone."""
        return self.p99_ms > SAME_COST * other.p99_ms and self.latency["p50_ms"] > SAME_COST * other.latency["p50_ms"]


@dataclass(frozen=True, slots=True)
class Test:
    """The best candidate against another, on the same examples."""

    best: str
    other: str
    difference: Difference
    p_holm: float

    def worse(self, alpha: float) -> bool:
        """Whether the other is significantly worse."""
        return self.p_holm <= alpha and self.difference.difference > 0


@dataclass(frozen=True, slots=True)
class Choice:
    """Who was chosen, and all that led to it."""

    chosen: str
    best: str
    """Highest score inside the limits."""
    runner_up: str | None
    """The best other one inside the limits: the one a reader would ask about."""
    tests: list[Test]
    excluded: dict[str, list[Breach]]
    front: list[str]
    """Non-dominated in score, p99 and size, limits aside."""
    loosening: list[Test] = field(default_factory=list[Test])
    """Excluded candidates with a higher score than the chosen one: what giving up the limit would buy (``best`` is the excluded one)."""


def non_dominated(candidates: Sequence[Candidate]) -> list[str]:
    """Names of the candidates that no other beats in score, p99 and size at once."""

    def beats(a: Candidate, b: Candidate) -> bool:
        x, y = ((-c.score, c.p99_ms, c.size_bytes) for c in (a, b))
        return x != y and all(i <= j for i, j in zip(x, y, strict=True))

    return [c.name for c in candidates if not any(beats(o, c) for o in candidates)]


def choose(candidates: Sequence[Candidate], limits: Limits, *, alpha: float = ALPHA, seed: int = 0) -> Choice:
    """Choose among measured candidates, judged on valid.

    Args:
        candidates: judged on the same examples.
        limits: hard.
        alpha: level of the tests, over all of them (Holm).
        seed: of the resamples.

    Raises:
        Invalid: `select.no-candidate-meets-limits`, naming the nearest and by how much.
    """
    excluded = {c.name: broken for c in candidates if (broken := limits.broken_by(c))}
    allowed = sorted((c for c in candidates if c.name not in excluded), key=lambda c: (-c.score, c.p99_ms, c.size_bytes, c.name))
    if not allowed:
        raise _nobody(candidates, excluded)
    best, others = allowed[0], allowed[1:]
    differences = [compare(best.counts, o.counts, seed=seed) for o in others]
    tests = [Test(best.name, o.name, d, p) for o, d, p in zip(others, differences, holm([d.p for d in differences]), strict=True)]
    equal = [best, *(o for o, t in zip(others, tests, strict=True) if not t.worse(alpha) and (not o.constant or o.score >= best.score))]
    chosen = _cheapest(equal)
    rest = [c for c in allowed if c is not chosen]
    runner_up = best if best is not chosen else next(iter(rest), None)
    higher = [c for c in candidates if c.name in excluded and c.score > chosen.score]
    gains = [compare(c.counts, chosen.counts, seed=seed) for c in higher]
    loosening = [Test(c.name, chosen.name, d, p) for c, d, p in zip(higher, gains, holm([d.p for d in gains]), strict=True)]
    return Choice(chosen.name, best.name, runner_up.name if runner_up else None, tests, excluded, non_dominated(candidates), loosening)


def _cheapest(equal: Sequence[Candidate]) -> Candidate:
    """Lowest p99, then size; what is near counts as equal, and among equals the better score wins."""
    fastest = min(equal, key=lambda c: (c.p99_ms, c.size_bytes, c.name))
    fast = [c for c in equal if not c.slower_than(fastest)]
    smallest = min(c.size_bytes for c in fast)
    small = [c for c in fast if c.size_bytes <= smallest * SAME_SIZE]
    return max(small, key=lambda c: (c.score, -c.p99_ms, -c.size_bytes, c.name))


def _nobody(candidates: Sequence[Candidate], excluded: dict[str, list[Breach]]) -> Invalid:
    def excess(c: Candidate) -> float:
        return max(b.value / b.allowed if b.allowed > 0 else float("inf") for b in excluded[c.name])

    nearest = min(candidates, key=excess)
    worst = max(excluded[nearest.name], key=lambda b: b.value / b.allowed if b.allowed > 0 else float("inf"))
    return Invalid(
        "select.no-candidate-meets-limits", nearest=nearest.name, score=round(nearest.score, 4), limit=worst.limit, value=_told(worst.value), allowed=_told(worst.allowed),
        times=round(excess(nearest), 2), candidates_n=len(candidates),
    )  # fmt: skip


def _told(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(value, 3)
