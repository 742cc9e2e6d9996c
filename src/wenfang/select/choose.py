"""The choice: hard limits filter, the best score on valid leads, and whoever is not significantly worse and cheaper wins.

Pure: candidates in, choice out. Knows nothing of files, time or words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from wenfang.core.errors import Invalid
from wenfang.stats.paired import Difference, compare, holm
from wenfang.stats.scores import Counts, score

from .cost import Price, cost_of_a_million

__all__ = ["ALPHA", "FIRST_LOOK", "SAME_COST", "SAME_SIZE", "Breach", "Candidate", "Choice", "Cost", "Limits", "Test", "choose", "finalists", "non_dominated"]

ALPHA = 0.05
FIRST_LOOK = 0.01
"""Where folds are fitted there are two looks: valid decides at this level, and at what is left of ``ALPHA`` whatever was answered by then."""
FINALISTS = 3
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
    """Corrected for all tests of the choice and, where folds were fitted, for both looks."""
    n: int = 0
    """Examples both have answered."""

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


def choose(candidates: Sequence[Candidate], limits: Limits, *, folds: Mapping[str, Counts] | None = None, alpha: float = ALPHA, seed: int = 0) -> Choice:
    """Choose among measured candidates, judged on valid.

    Args:
        candidates: judged on the same examples.
        limits: hard.
        folds: counts of those that valid could not tell apart, over more examples; where two of them keep the limits, the choice is among these.
        alpha: level of the tests, over all of them (Holm).
        seed: of the resamples.

    Raises:
        Invalid: `select.no-candidate-meets-limits`, naming the nearest and by how much.
    """
    excluded = {c.name: broken for c in candidates if (broken := limits.broken_by(c))}
    allowed = _ranked(c for c in candidates if c.name not in excluded)
    if not allowed:
        raise _nobody(candidates, excluded)
    more = folds or {}
    heard = _ranked(replace(c, counts=more[c.name], score=score(more[c.name])) for c in allowed if c.name in more)
    if len(heard) < 2:
        heard = []
    names = {c.name for c in heard}
    order = [*heard, *(c for c in allowed if c.name not in names)]
    tests = _tests(order, {c.name: c for c in allowed}, names, looks=2 if more else 1, alpha=alpha, seed=seed)
    best, others = order[0], order[1:]
    equal = [best, *(o for o, t in zip(others, tests, strict=True) if not t.worse(alpha) and (not o.constant or o.score >= best.score) and (not names or o.name in names))]
    chosen = _cheapest(equal)
    rest = [c for c in order if c is not chosen]
    runner_up = best if best is not chosen else next(iter(rest), None)
    judged = next(c for c in candidates if c.name == chosen.name)
    higher = [c for c in candidates if c.name in excluded and c.score > judged.score]
    gains = [compare(c.counts, judged.counts, seed=seed) for c in higher]
    loosening = [Test(c.name, chosen.name, d, p, len(c.counts)) for c, d, p in zip(higher, gains, holm([d.p for d in gains]), strict=True)]
    return Choice(chosen.name, best.name, runner_up.name if runner_up else None, tests, excluded, non_dominated(candidates), loosening)


def finalists(candidates: Sequence[Candidate], limits: Limits, *, seed: int = 0) -> list[str]:
    """Who should answer more examples, three at most: the leader, the cheapest that valid cannot tell from it, and the best such of another family.

    The leader alone: valid has decided.

    Args:
        candidates: judged on the same examples.
        limits: hard.
        seed: of the resamples.

    Raises:
        Invalid: `select.no-candidate-meets-limits`.
    """
    choice, by_name = choose(candidates, limits, seed=seed), {c.name: c for c in candidates}
    leader = by_name[choice.best]
    rivals = _ranked(by_name[t.other] for t in choice.tests if not t.worse(FIRST_LOOK) and not by_name[t.other].constant)
    if leader.constant or not rivals:
        return [leader.name]
    cheapest = _cheapest([leader, *rivals])
    wanted = [leader] if cheapest is leader else [leader, cheapest]
    for rival in rivals:
        if len(wanted) < FINALISTS and rival.family not in {c.family for c in wanted}:
            wanted.append(rival)
    return [c.name for c in (wanted if len(wanted) > 1 else [leader, rivals[0]])]


def _ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda c: (-c.score, c.p99_ms, c.size_bytes, c.name))


def _tests(order: Sequence[Candidate], on_valid: Mapping[str, Candidate], heard: AbstractSet[str], *, looks: int, alpha: float, seed: int) -> list[Test]:
    """The first of ``order`` against each other one: on all answers of both where both were heard, else on valid.

    With two looks each p is weighted by its look's part of ``alpha`` (Bonferroni over looks, whatever the two have in common), then Holm.
    """
    first, second = (alpha / FIRST_LOOK, alpha / (alpha - FIRST_LOOK)) if looks > 1 else (1.0, 1.0)
    best, tested, weighted = order[0], list[tuple[Candidate, Difference, int]](), list[float]()
    for other in order[1:]:
        a, b = (best, other) if other.name in heard else (on_valid[best.name], on_valid[other.name])
        tested.append((other, compare(a.counts, b.counts, seed=seed), len(a.counts)))
        weighted.append(min(1.0, tested[-1][1].p * (second if other.name in heard else first)))
    return [Test(best.name, other.name, d, p, n) for (other, d, n), p in zip(tested, holm(weighted), strict=True)]


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
