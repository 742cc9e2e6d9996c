"""The verdict in words: sentences of the catalogue as (key, fields), so that every door can say them in the reader's language.

Knows nothing of how the choice was made; it only tells it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .choose import Breach, Candidate, Choice, Test

__all__ = ["LIMIT_NAMES", "LIMIT_UNITS", "Sentence", "choice_sentences", "limit_key", "loosening_sentences", "megabytes", "p_text", "test_sentences"]

Sentence = tuple[str, dict[str, Any]]
EXCLUDED_SAID = 3
"""Excluded candidates named one by one; the table has them all."""
LIMIT_NAMES = {"max_latency_ms": "latency", "max_size_bytes": "size", "max_memory_bytes": "memory", "max_cost_per_million": "cost"}
LIMIT_UNITS = {"max_latency_ms": 1.0, "max_size_bytes": 1e6, "max_memory_bytes": 1e6, "max_cost_per_million": 1.0}
"""Milliseconds, megabytes, money: how people read the figures."""


def limit_key(prefix: str, breach: Breach) -> Sentence:
    """A sentence about a limit, its figures in milliseconds or megabytes."""
    unit = LIMIT_UNITS[breach.limit]
    return f"verdict.{prefix}-{LIMIT_NAMES[breach.limit]}", {"value": breach.value / unit, "allowed": breach.allowed / unit}


def choice_sentences(choice: Choice, candidates: Sequence[Candidate], valid: Mapping[str, Mapping[str, float]], folds: Sentence | None = None) -> list[Sentence]:
    """What was chosen on valid and why, against whom, and what was left out.

    Args:
        choice: of ``choose``.
        candidates: all of them.
        valid: score, low, high by name.
        folds: what there is to say of them.
    """
    by_name = {c.name: c for c in candidates}
    chosen, best = by_name[choice.chosen], by_name[choice.best]
    said: list[Sentence] = [
        ("verdict.chosen", {"family": chosen.family, "run": chosen.name, **_score(valid[chosen.name]), "p99_ms": chosen.p99_ms, "size_mb": megabytes(chosen.size_bytes)})
    ]
    if folds is not None:
        said.append(folds)
    tests = {t.other: t for t in choice.tests}
    if choice.chosen != choice.best:
        test = tests[chosen.name]
        fields = {"best": best.name, "chosen": chosen.name, "points": 100 * test.difference.difference, "p": p_text(test.p_holm)}
        if best.slower_than(chosen):
            said.append(("verdict.cheaper-wins", {**fields, "best_p99_ms": best.p99_ms, "p99_ms": chosen.p99_ms}))
        else:
            said.append(("verdict.smaller-wins", {**fields, "best_size_mb": megabytes(best.size_bytes), "size_mb": megabytes(chosen.size_bytes)}))
    elif choice.runner_up is None:
        said.append(("verdict.alone", {"run": chosen.name}))
    else:
        test = tests[choice.runner_up]
        key = "verdict.clearly-best" if test.worse(0.05) else "verdict.best-and-cheapest"
        said.append((key, {"chosen": chosen.name, "runner_up": choice.runner_up, **_difference(test)}))
    excluded = sorted(choice.excluded, key=lambda name: -by_name[name].score)
    for name in excluded[:EXCLUDED_SAID]:
        for breach in choice.excluded[name]:
            key, fields = limit_key("excluded", breach)
            said.append((key, {"run": name, **fields}))
    if len(excluded) > EXCLUDED_SAID:
        said.append(("verdict.excluded-more", {"runs_n": len(excluded) - EXCLUDED_SAID}))
    return said + loosening_sentences(choice)


def loosening_sentences(choice: Choice) -> list[Sentence]:
    """What loosening a limit would buy."""
    said: list[Sentence] = []
    for test in sorted(choice.loosening, key=lambda t: -t.difference.difference)[:3]:
        key = "verdict.loosening-buys" if test.p_holm <= 0.05 else "verdict.loosening-buys-nothing-sure"
        said.append((key, {"run": test.best, "chosen": test.other, **_difference(test)}))
    return said


def test_sentences(test: Mapping[str, float], paired: Mapping[str, Any] | None, leaks: Mapping[str, Any] | None) -> list[Sentence]:
    """The final figures, measured once.

    Args:
        test: score, low, high, n.
        paired: against the runner-up: name, difference, low, high, p.
        leaks: n of leaked rows and the score without them.
    """
    said: list[Sentence] = [("verdict.test", {**_score(test), "n": int(test["n"])})]
    if paired:
        key = "verdict.test-differs" if paired["p"] <= 0.05 else "verdict.test-same"
        said.append(
            (key, {"runner_up": paired["runner_up"], "points": 100 * paired["difference"], "low": 100 * paired["low"], "high": 100 * paired["high"], "p": p_text(paired["p"])})
        )
    if leaks and leaks["n"]:
        key = "verdict.leaks" if leaks.get("without") else "verdict.all-leak"
        said.append((key, {"leaks_n": leaks["n"], **(_score(leaks["without"]) if leaks.get("without") else {})}))
    return said


def megabytes(size_bytes: float) -> float:
    """A size as it is read: three digits.

    >>> megabytes(23_656), megabytes(12_345_678)
    (0.0237, 12.3)
    """
    return float(f"{size_bytes / 1e6:.3g}")


def p_text(p: float) -> str:
    """A p value as it is read.

    >>> p_text(0.0312), p_text(0.00001)
    ('= 0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _score(figures: Mapping[str, float]) -> dict[str, float]:
    return {k: figures[k] for k in ("score", "low", "high")}


def _difference(test: Test) -> dict[str, Any]:
    d = test.difference
    return {"points": 100 * d.difference, "low": 100 * d.low, "high": 100 * d.high, "p": p_text(test.p_holm)}
