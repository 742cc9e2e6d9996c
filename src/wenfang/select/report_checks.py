"""Sections of the report about the closer look: slices, fairness, robustness, cost. Knows nothing of how the figures came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .page import Document, Words, milliseconds, pairs, percent, section, size, table
from .plots_checks import Range, ranges
from .svg import esc
from .verdict import p_text

__all__ = ["SECTIONS"]

DRAWN = 20
"""Tests with fewer texts stand in the table only: their intervals say next to nothing and would press the others together."""


def _slices(d: Document, w: Words) -> str:
    slices: list[Mapping[str, Any]] = d["final"].get("slices") or []
    if not slices:
        return ""
    rows = [Range(w.sentence(s["name"]["key"], s["name"]["fields"]), s["n"], s["score"], s["low"], s["high"], s["worse"]) for s in slices]
    metric = w(f"metric-{d['metric']}")
    drawn = ranges(
        rows, title=w("slices"), value_title=f"{metric} %", count_title=w("col-support"), line=d["final"]["test"]["score"], line_label=w("slices-whole"),
    )  # fmt: skip
    cells = [("", [esc(r.label), f"{r.n:,}", percent(r.value), percent(s["rest"]), f"{100 * s['difference']:+.2f}", _p(s["p_holm"])]) for r, s in zip(rows, slices, strict=True)]
    head = [(w("col-slice"), ""), (w("col-support"), "n"), (f"{metric} %", "n"), (w("col-rest"), "n"), (w("col-difference"), "n"), ("p", "n")]
    return section(w("slices"), w("slices-lead"), f'<div class="card">{drawn}</div><details><summary>{esc(w("as-table"))}</summary>{table(head, cells)}</details>')


def _p(p: float | None) -> str:
    return "–" if p is None else esc(p_text(p).removeprefix("= "))


def _fairness(d: Document, w: Words) -> str:
    found = ""
    score = f"{w('metric-' + d['metric'])} %"
    for column in d["final"].get("fairness") or ():
        rates = column["positive"] is not None
        head = [(column["column"], ""), (w("col-support"), "n"), (score, "n"), *([(w(f"col-{k}"), "n") for k in ("hit", "alarm", "positive")] if rates else [])]
        rows = [
            (
                "",
                [
                    esc(g["value"]),
                    f"{g['n']:,}",
                    f'{percent(g["score"])} <span class="pm">{percent(g["low"])} – {percent(g["high"])}</span>',
                    *([percent(g[f"{k}_rate"]) for k in ("hit", "alarm", "positive")] if rates else []),
                ],
            )
            for g in column["groups"]
        ]
        told = w("fairness-gap", gap=100 * column["score_gap"])
        if column["odds_gap"] is not None:
            told += " " + w("fairness-odds", label=column["positive"], gap=100 * column["odds_gap"], share=100 * (column["positive_gap"] or 0.0))
        found += f"{table(head, rows)}<p>{esc(told)}</p>"
    return section(w("fairness"), w("fairness-lead"), found)


def _robustness(d: Document, w: Words) -> str:
    tests: list[Mapping[str, Any]] = d["final"].get("robustness") or []
    ran = sorted((t for t in tests if t["n"]), key=lambda t: (-t["rate"], t["name"]))
    if not ran:
        return ""
    rows = [Range(_test(t, w), t["n"], t["rate"], t["low"], t["high"], t["bad"], t["tolerated"]) for t in ran if t["n"] >= DRAWN]
    drawn = ranges(rows, title=w("robustness"), value_title=w("axis-failures"), count_title=w("col-texts"), from_zero=True) if rows else ""
    head = [(w("col-test"), ""), (w("col-kind"), ""), (w("col-texts"), "n"), (w("col-failures"), "n"), (w("col-tolerated"), "n"), (w("col-harmed"), "n"), (w("col-mended"), "n")]
    cells = [
        ("", [esc(_test(t, w)), esc(w.sentence(f"robustness.kind-{t['kind']}", {})), f"{t['n']:,}", f'{percent(t["rate"])} <span class="pm">{percent(t["low"])} – {percent(t["high"])}</span>',
              f"{100 * t['tolerated']:.0f}", f"{t['harmed']:,}", f"{t['mended']:,}"])
        for t in ran
    ]  # fmt: skip
    left = ["".join(f"<li>{esc(_test(t, w))}: {esc(w.sentence('robustness.skipped-' + t['skipped'], {}))}</li>" for t in tests if not t["n"])]
    more = f"<details><summary>{esc(w('as-table'))}</summary>{table(head, cells)}<ul>{''.join(left)}</ul></details>"
    return section(w("robustness"), w("robustness-lead", least=DRAWN), (f'<div class="card">{drawn}</div>' if rows else "") + more)


def _test(test: Mapping[str, Any], w: Words) -> str:
    key = f"robustness.test-{test['name']}"
    said = w.sentence(key, {})
    return test["name"] if said == key else said


def _cost(d: Document, w: Words) -> str:
    cost: Mapping[str, Any] | None = d["final"].get("cost")
    if not cost:
        return ""
    rows: list[tuple[str, object]] = [
        (w("cost-hours"), f"{cost['core_hours']:,.2f}"), (w("cost-rate"), f"{cost['requests_per_core_s']:,.0f}"), (w("cost-memory"), size(1e9 * cost["memory_gigabytes"])),
        (w("cost-latency"), milliseconds(d["final"]["latency"]["p50_ms"])),
    ]  # fmt: skip
    if cost["money"] is not None:
        rows.insert(0, (w("cost-money"), f"{cost['money']:,.2f} {cost['currency']}".strip()))
    return section(w("cost"), w("cost-lead"), pairs(rows))


SECTIONS = (_slices, _robustness, _fairness, _cost)
"""In the order of the page."""
