"""A choice near the latency limit is measured again before anything is built on it; who does not hold is left out, and the choice is made again.

Knows nothing of how candidates were found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from wenfang.stats.scores import Counts

from .choose import Candidate, Choice, choose
from .latency import measure_strictly, near
from .search import Search

__all__ = ["choose_confirmed"]


def choose_confirmed(search: Search, candidates: Sequence[Candidate], folds: Mapping[str, Counts] | None = None) -> tuple[list[Candidate], Choice]:
    """The candidates as they were measured at last, and a choice whose latency held each time it was measured.

    Raises:
        Invalid: `select.no-candidate-meets-limits`.
    """
    plan, found = search.plan, list(candidates)
    confirmed = {e["run"]: e["latency"] for e in search.journal.find("confirmed")}
    found = [replace(c, latency=confirmed.get(c.name, c.latency)) for c in found]
    while True:
        choice = choose(found, plan.limits, folds=folds, seed=plan.seed)
        chosen = next(c for c in found if c.name == choice.chosen)
        limit = plan.limits.max_latency_ms
        if limit is None or chosen.name in confirmed or not near(chosen.p99_ms, limit):
            return found, choice
        confirmed[chosen.name] = _measured(search, chosen)
        found = [replace(c, latency=confirmed.get(c.name, c.latency)) for c in found]


def _measured(search: Search, candidate: Candidate) -> dict[str, float]:
    """The worst of what was measured of a candidate, then and now; written down."""
    plan, journal = search.plan, search.journal
    limit_s = max(0.6, 0.04 * plan.budget_s)
    bundle = journal.work / "bundles" / candidate.name
    again = measure_strictly(search.ports.host, bundle, search.valid, max_p99_ms=plan.limits.max_latency_ms, seed=plan.seed, limit_s=limit_s, progress=search.progress)
    latency = max((candidate.latency, asdict(again)), key=lambda found: found["p99_ms"])
    journal.add("confirmed", run=candidate.name, latency=latency)
    return latency
