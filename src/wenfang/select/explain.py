"""Why this model: the whole story of a selection in sentences of the catalogue, from its document alone.

Who was chosen and why; what each limit kept out and what loosening it would buy; what was tried, how, and what was given up;
what more time would be spent on. Knows nothing of how any of it was done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wenfang.core.words import say

from .verdict import LIMIT_NAMES, LIMIT_UNITS, Sentence, p_text

__all__ = ["explain", "explain_text"]

Document = Mapping[str, Any]
_SECTIONS = ("why", "limits", "tried", "given-up", "more-time")
_ALL_DONE = {"select.family-no-gain", "select.family-behind", "select.family-fails"}


def explain(document: Document) -> dict[str, list[Sentence]]:
    """Sentences by section: ``why``, ``limits``, ``tried``, ``given-up``, ``more-time``.

    Args:
        document: of ``select``.
    """
    why: list[Sentence] = [(key, dict(fields)) for key, fields in document["verdict"] if not key.startswith(("verdict.excluded", "verdict.loosening"))]
    return {"why": why, "limits": _limits(document), "tried": _tried(document), "given-up": _given_up(document), "more-time": _more_time(document)}


def explain_text(document: Document, lang: str | None = None) -> str:
    """The same as text, a heading above each section that says something."""
    told = explain(document)
    parts: list[str] = []
    for section in _SECTIONS:
        if told[section]:
            lines = "\n".join(f"  {say(key, lang, **fields)}" for key, fields in told[section])
            parts.append(f"{say(f'explain.{section}', lang)}\n{lines}")
    return "\n".join(parts)


def _limits(d: Document) -> list[Sentence]:
    """Each limit: how many it kept out, and what the best of those that it alone keeps out would bring."""
    allowed = {name: value for name, value in d["limits"].items() if name in LIMIT_NAMES and value is not None}
    if not allowed:
        return [("explain.no-limits", {})]
    tests = {t["best"]: t for t in d["choice"]["loosening"]}
    said: list[Sentence] = []
    for name, value in allowed.items():
        unit = LIMIT_UNITS[name]
        out = [c for c in d["candidates"] if any(b["limit"] == name for b in c["breaches"])]
        fields = {"allowed": value / unit, "runs_n": len(out)}
        said.append((f"explain.limit-{LIMIT_NAMES[name]}", fields) if out else (f"explain.limit-{LIMIT_NAMES[name]}-kept", fields))
        alone = [c for c in out if len(c["breaches"]) == 1 and c["name"] in tests]
        if alone:
            best = max(alone, key=lambda c: c["valid"]["score"])
            test = tests[best["name"]]
            difference = test["difference"]
            key = "explain.loosen-buys" if test["p_holm"] <= 0.05 else "explain.loosen-buys-nothing-sure"
            need = f"{best['breaches'][0]['value'] / unit:.4g}"
            said.append((key, {"run": best["name"], "need": need, "points": 100 * difference["difference"], "low": 100 * difference["low"], "high": 100 * difference["high"], "p": p_text(test["p_holm"])}))  # fmt: skip
        elif out:
            said.append(("explain.loosen-nothing", {}))
    return said


def _tried(d: Document) -> list[Sentence]:
    """Each family: how many runs from where, the best of them, the time they took."""
    said: list[Sentence] = [("explain.time", {"spent_s": d["spent_s"], "budget_s": d["budget_s"], "runs_n": len(d["runs"])})]
    for family in dict.fromkeys(r["family"] for r in d["runs"]):
        runs = [r for r in d["runs"] if r["family"] == family]
        whole = [r for r in runs if r.get("share", 1.0) == 1 and r["metrics"].get("score") is not None]
        best = max(whole, key=lambda r: r["metrics"]["score"], default=None)
        fields = {"family": family, "runs_n": len(runs), "fit_s": sum(r["fit_s"] for r in runs), **_origins(runs)}
        if best is not None:
            said.append(
                (
                    "explain.family",
                    {**fields, "best": best["name"], "score": best["metrics"]["score"], "origin": {"key": f"explain.origin-{best.get('origin', 'guess')}", "fields": {}}},
                )
            )
        else:
            said.append(("explain.family-nothing", fields))
        if partial := sum(r.get("share", 1.0) < 1 for r in runs):
            said.append(("explain.halving", {"family": family, "partial_n": partial, "whole_n": len(runs) - partial}))
        said += [("explain.failed", {"run": r["name"], "reason": {"key": r["reason"][0], "fields": r["reason"][1]}}) for r in runs if r["state"] == "failed"][:3]
    return said


def _origins(runs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    count = dict.fromkeys(("guess", "earlier", "proposal"), 0)
    for run in runs:
        count[run.get("origin", "guess")] = count.get(run.get("origin", "guess"), 0) + 1
    return {"guesses_n": count["guess"], "earlier_n": count["earlier"], "proposals_n": count["proposal"]}


def _given_up(d: Document) -> list[Sentence]:
    return [(g["key"], {k: v for k, v in g.items() if k != "key"}) for g in d["given_up"]]


def _more_time(d: Document) -> list[Sentence]:
    """What the next seconds would go into, and how many make a difference."""
    said: list[Sentence] = []
    need = 0.0
    for g in d["given_up"]:
        if g["key"] == "select.family-not-begun":
            need = max(need, 0.5 * d["budget_s"], g.get("least_s", 0.0) - d["budget_s"])  # little is known of it: about twice the time is a fair try
            said.append(("explain.would-begin", {"family": g["family"]}))
        if g["key"] == "select.family-no-time":
            short = max(0.0, g["need_s"] - g["left_s"])
            need = max(need, short)
            said.append(("explain.would-fit", {"family": g["family"], "need_s": g["need_s"]}))
    said += [("explain.would-finish", {"run": r["name"], "limit_s": r["deadline_s"]}) for r in d["runs"] if r["state"] == "stopped"]
    refit = d["final"]["refit"]
    if refit["key"] == "verdict.refit-no-time":
        need = max(need, refit["fields"]["need_s"] - refit["fields"]["left_s"])
        said.append(("explain.would-refit", {"need_s": refit["fields"]["need_s"]}))
    folds = d.get("folds")
    if folds and folds["key"] == "verdict.folds-no-time":
        need = max(need, folds["fields"]["need_s"] - folds["fields"]["left_s"])
        said.append(("explain.would-fold", {"need_s": folds["fields"]["need_s"]}))
    if not said:
        return [("explain.nothing-left", {})] if all(g["key"] in _ALL_DONE for g in d["given_up"]) else []
    # what a family lacks is its share of the budget after the others' and the refit's: about half of what is added reaches it
    return [*said, ("explain.budget", {"budget_s": d["budget_s"] + 2.2 * need + 0.1 * d["budget_s"]})]
