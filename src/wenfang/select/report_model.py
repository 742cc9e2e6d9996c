"""Sections of the report about the final model's answers on test: figures, classes, confusion, calibration, pictures, examples.

Knows nothing of how the figures came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .page import Document, Words, percent, section, table
from .plots import Bar, bars, heat_map, reliability
from .plots_checks import histogram, scatter
from .svg import esc

__all__ = ["SECTIONS"]

BARS_MAX = 30
HIDDEN = frozenset({"classes", "labels_mean"})
ONE_LABEL_HIDDEN = frozenset({"micro_f1", "precision", "recall"})
"""Equal to accuracy where every text has one label."""


def _figures(d: Document, w: Words) -> str:
    """The headline and every other metric, with intervals where there are some."""
    evaluation: Mapping[str, Any] = d["final"]["evaluation"]
    known = {
        "metric",
        "n",
        "score",
        "low",
        "high",
        "ece",
        "bins",
        "per_class",
        "confusion",
        "errors",
        "errors_n",
        "picture",
        *HIDDEN,
        *(ONE_LABEL_HIDDEN if d["metric"] == "accuracy" else ()),
    }
    names = [k for k in evaluation if k not in known and not k.endswith(("_low", "_high"))]
    rows = [("chosen", [esc(w(f"metric-{d['metric']}")), percent(evaluation["score"]), _interval(evaluation, "low", "high")])]
    rows += [("", [esc(w(f"metric-{n}")), percent(evaluation[n]), _interval(evaluation, f"{n}_low", f"{n}_high")]) for n in names]
    head = [(w("col-metric"), ""), (w("col-value"), "n"), (w("col-interval"), "n")]
    return section(w("figures"), w("figures-lead", n=f"{evaluation['n']:,}"), table(head, rows))


def _interval(figures: Mapping[str, Any], low: str, high: str) -> str:
    return f"{percent(figures[low])} – {percent(figures[high])}" if low in figures else ""


def _classes(d: Document, w: Words) -> str:
    evaluation = d["final"]["evaluation"]
    rows = [Bar(c["label"], c["f1"], c["support"]) for c in evaluation["per_class"]]
    half = BARS_MAX // 2
    if len(rows) > BARS_MAX:
        rows = [*rows[:half], Bar(w("classes-between", n=len(rows) - 2 * half), None, 0), *rows[-half:]]
    body = f'<div class="card">{bars(rows, title=w("classes"), value_title=w("axis-f1"), count_title=w("col-support"))}</div>' if rows else ""
    found = section(w("classes"), w("classes-lead"), body)
    matrix = evaluation["confusion"]
    if matrix and len(matrix["labels"]) > 1:
        picture = heat_map(matrix["labels"], matrix["cells"], title=w("confusion"), row_title=w("axis-gold"), column_title=w("axis-predicted"))
        found += section(w("confusion"), w("confusion-lead", n=len(matrix["labels"])), f'<div class="card">{picture}</div>')
    return found


def _calibration(d: Document, w: Words) -> str:
    evaluation, temperature = d["final"]["evaluation"], d["final"].get("temperature")
    if evaluation["ece"] is None:
        return ""
    rows = [(b["confidence"], b["accuracy"], b["n"]) for b in evaluation["bins"]]
    picture = reliability(rows, title=w("calibration"), x_title=w("axis-confidence"), y_title=w("axis-right"))
    head = [(w("axis-confidence"), "n"), (w("axis-right"), "n"), (w("col-support"), "n")]
    told = table(head, [("", [f"{100 * c:.1f}", f"{100 * a:.1f}", f"{n:,}"]) for c, a, n in rows])
    note = ""
    if temperature:
        key = "temperature-sure" if temperature["temperature"] > 1.1 else "temperature-modest" if temperature["temperature"] < 1 / 1.1 else "temperature-honest"
        fields = {"temperature": temperature["temperature"], "before": 100 * temperature["ece"], "after": 100 * temperature["ece_after"], "n": temperature["fitted_on"]}
        note = f"<p>{esc(w(key, **fields))}</p>"
    return section(w("calibration"), w("calibration-lead", ece=100 * evaluation["ece"]), f'<div class="card row">{picture}{told}</div>{note}')


def _picture(d: Document, w: Words) -> str:
    """What the task's own picture shows: grades against scores, or how scores and agreements are spread."""
    told: Mapping[str, Any] = d["final"]["evaluation"].get("picture") or {}
    kind = told.get("kind")
    if kind == "scatter" and told["points"]:
        drawn = scatter([(x, y) for x, y in told["points"]], title=w("grades"), x_title=w("axis-grade"), y_title=w("axis-similarity"))
        return section(w("grades"), w("grades-lead"), f'<div class="card">{drawn}</div>')
    if kind == "histogram":
        drawn = histogram(told["counts"], title=w("pairs"), x_title=w("axis-positive", label=told["positive"]), y_title=w("axis-share"))
        return section(w("pairs"), w("pairs-lead"), f'<div class="card">{drawn}</div>')
    if kind == "agreement":
        drawn = histogram({"": told["counts"]}, title=w("agreement"), x_title=w("axis-agreement"), y_title=w("axis-share"))
        return section(w("agreement"), w("agreement-lead", far=d["final"]["evaluation"]["errors_n"], n=d["final"]["evaluation"]["n"]), f'<div class="card">{drawn}</div>')
    return ""


def _examples(d: Document, w: Words) -> str:
    """Texts with what was wanted and what was answered; only where the selection was asked to show them."""
    written = d["task"] in {"generation", "chat"}
    rows = [("", [*(_prose(e[k]) for k in ("text", "gold", "predicted")), percent(e["score"])]) for e in d["final"].get("examples") or ()]
    titles = ("col-gold", "col-answer", "col-agreement") if written else ("axis-gold", "axis-predicted", "axis-confidence")
    head = [(w(key), cls) for key, cls in zip(("col-text", *titles), ("prose", "prose", "prose", "n"), strict=True)]
    return section(w("examples"), w("examples-lead" if written else "errors-lead"), table(head, rows) if rows else "")


def _prose(text: str) -> str:
    return "<br>".join(esc(line) for line in text.split("\n"))


SECTIONS = (_figures, _picture, _examples, _classes, _calibration)
"""In the order of the page."""
