"""The report of a selection as one self-contained HTML page, in Chinese or English: for a manager to read, for an engineer to check.

Works from the document (``selection.json``) alone; every value is escaped. Knows nothing of how the figures came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from wenfang.core.words import language

from . import report_checks, report_model
from .page import Document, Words, between, milliseconds, pairs, percent, seconds, section, size, table
from .plots import Point, Series, lines, scatter_log
from .style import CSS
from .svg import esc

__all__ = ["report"]

CURVES_MAX = 12


def report(document: Document, *, lang: str | None = None) -> str:
    """The page.

    Args:
        document: of ``select``.
        lang: ``zh`` or ``en``; None: the environment's.
    """
    words = Words(language(lang))
    parts = (_head, _tiles, _verdict, _candidates, _pareto, _curves, *report_model.SECTIONS, *report_checks.SECTIONS, _data, _search, _again)
    body = "".join(part(document, words) for part in parts)
    title = esc(words("title"))
    return (
        f'<!doctype html><html lang="{words.lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{title}</title><style>{CSS}</style></head>"
        f"<body><main>{body}<footer>{esc(words('footer'))}</footer></main></body></html>"
    )


def _chosen(document: Document) -> Mapping[str, Any]:
    return next(c for c in document["candidates"] if c["role"] == "chosen")


def _head(d: Document, w: Words) -> str:
    name = d.get("name") or d["card"].get("name") or ""
    rows = " · ".join(f"{w(f'split-{k}')} {n:,}" for k, n in d["rows"].items())
    when = str(d.get("created_at", ""))[:16].replace("T", " ")
    sub = " · ".join(x for x in (w(f"task-{d['task']}"), w("labels", n=d["labels_n"]), rows, f"{when} UTC" if when else "") if x)
    return f'<header><div class="brand">{esc(w("brand"))}</div><h1>{esc(w("title"))}{esc(w("title-of", name=name) if name else "")}</h1><div class="sub">{esc(sub)}</div></header>'


def _tiles(d: Document, w: Words) -> str:
    final, chosen = d["final"], _chosen(d)
    metric = w(f"metric-{d['metric']}")
    test, latency = final["test"], final["latency"]
    tiles = [
        ("first", w("tile-chosen"), chosen["family"], chosen["name"]),
        ("", w("tile-test", metric=metric), f"{percent(test['score'])} %", w("interval", between=between(test), n=f"{test['n']:,}")),
        ("", w("tile-latency"), milliseconds(latency["p99_ms"]), f"p50 {milliseconds(latency['p50_ms'])}"),
        ("", w("tile-size"), size(final["size_bytes"]), w("memory", size=size(latency["memory_bytes"]))),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile {c}"><div class="k">{esc(k)}</div><div class="v">{esc(v)}</div><div class="d">{esc(x)}</div></div>' for c, k, v, x in tiles)
        + "</div>"
    )


def _verdict(d: Document, w: Words) -> str:
    leak = d["final"]["leaks"]
    items = "".join(f"<li>{esc(w.sentence(key, fields))}</li>" for key, fields in d["verdict"] if key not in {"verdict.leaks", "verdict.all-leak"})
    notes = "".join(f'<p class="note">{esc(w.sentence(key, fields))}</p>' for key, fields in d["verdict"] if key in {"verdict.leaks", "verdict.all-leak"}) if leak else ""
    return f'<ul class="verdict">{items}</ul>{notes}'


def _candidates(d: Document, w: Words) -> str:
    with_macro = any(c["macro_f1"] is not None for c in d["candidates"]) and d["task"] != "tagging"
    head = [(w("col-run"), ""), (w("col-score", metric=w(f"metric-{d['metric']}")), "n"), *([(w("metric-macro_f1"), "n")] if with_macro else [])]
    head += [("p50", "n"), ("p99", "n"), (w("col-size"), "n"), (w("col-memory"), "n"), (w("col-fit"), "n"), ("", "")]
    rows: list[tuple[str, list[str]]] = []
    for c in d["candidates"]:
        half = 50 * (c["valid"]["high"] - c["valid"]["low"])
        score = f'{percent(c["valid"]["score"])} <span class="pm">± {half:.2f}</span>'
        macro = [percent(c["macro_f1"])] if with_macro else []
        tag = w(f"role-{c['role']}") if c["role"] != "other" else w("on-front") if c["on_front"] else ""
        cost = [milliseconds(c["latency_ms"]["p50"]), milliseconds(c["latency_ms"]["p99"]), size(c["size_bytes"]), size(c["memory_bytes"]), seconds(c["fit_s"])]
        rows.append((c["role"], [esc(c["name"]), score, *macro, *map(esc, cost), f'<span class="tag">{esc(tag)}</span>' if tag else ""]))
    return section(w("candidates"), w("candidates-lead"), table(head, rows))


def _pareto(d: Document, w: Words) -> str:
    points = [Point(c["name"], max(c["latency_ms"]["p99"], 1e-4), c["valid"]["score"], c["valid"]["low"], c["valid"]["high"], c["role"]) for c in d["candidates"]]
    limit = d["limits"]["max_latency_ms"]
    picture = scatter_log(
        points,
        title=w("pareto"),
        x_title=w("axis-p99"),
        y_title=w("axis-valid", metric=w(f"metric-{d['metric']}")),
        limit=limit,
        limit_label=w("limit-at", value=f"{limit:g}") if limit else "",
    )
    return section(w("pareto"), w("pareto-lead"), f'<div class="card">{picture}</div>')


def _curves(d: Document, w: Words) -> str:
    told: list[tuple[str, list[tuple[float, float]], bool]] = []
    for run in d["runs"]:
        scored = [(p["step"], p["valid_score"]) for p in run["curve"] if p["valid_score"] is not None]
        losses = [(p["step"], p["loss"]) for p in run["curve"] if p["loss"] is not None]
        points = scored if len(scored) > 1 else losses
        if len(points) > 1:
            told.append((run["name"], points, points is scored))
    told = told[:CURVES_MAX]
    values = [y for _, points, percent in told if percent for _, y in points]
    shared = (min(values), max(values)) if values else None
    pictures = [
        lines(Series(name, points), y_range=shared if percent else None, percent=percent, x_title=w("axis-steps"), y_title=w("axis-curve-score" if percent else "axis-curve-loss"))
        for name, points, percent in told
    ]
    return section(w("curves"), w("curves-lead"), f'<div class="card row">{"".join(pictures)}</div>' if pictures else "")


def _data(d: Document, w: Words) -> str:
    card, leak = d["card"], d["final"]["leaks"]
    splits: Mapping[str, Any] = card.get("splits") or {}
    rows: list[tuple[str, list[str]]] = []
    for name, told in splits.items():
        length = told.get("length", {})
        figures = [
            told.get("rows"),
            told.get("duplicates", {}).get("rows"),
            told.get("conflicts", {}).get("texts"),
            told.get("quarantined", {}).get("rows"),
            length.get("p50"),
            length.get("p99"),
        ]
        rows.append(("", [esc(w(f"split-{name}")), *("–" if x is None else f"{x:,.0f}" for x in figures)]))
    head = [("", ""), *((w(f"data-{k}"), "n") for k in ("rows", "duplicates", "conflicts", "quarantined", "length", "length-p99"))]
    body = table(head, rows) if rows else ""
    warnings = "".join(f"<li>{esc(w.sentence(x['key'], x['fields']))}</li>" for x in card.get("warnings") or ())
    body += f"<ul>{warnings}</ul>" if warnings else ""
    shown: list[tuple[str, object]] = [(w(f"split-{k}"), f"{n:,}") for k, n in d["rows"].items()]
    shown.append((w("data-leaks"), f"{leak['n']:,}" if leak else "0"))
    shown += [(str(k), _plain(v)) for k, v in card.items() if k not in {"splits", "warnings", "labels", "leaks", "rows", "format", "task"} and _plain(v) is not None]
    return section(w("data"), w("data-lead"), pairs(shown[:40]) + body)


def _plain(value: Any) -> str | None:
    """A figure of the data card in one line; None when it is too rich for that."""
    if isinstance(value, bool) or value is None:
        return None if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        parts = [f"{k} {_plain(v)}" for k, v in cast("Mapping[str, Any]", value).items()]
    else:
        parts = [value] if isinstance(value, str) else [str(_plain(v)) for v in cast("Sequence[Any]", value)]
    text = " · ".join(parts)
    return text if len(text) <= 240 else None


def _search(d: Document, w: Words) -> str:
    rows: list[tuple[str, list[str]]] = []
    for run in d["runs"]:
        params = ", ".join(f"{k}={v}" for k, v in run["params"].items())
        said = " ".join(w.sentence(key, fields) for key, fields in [*([run["reason"]] if run["reason"] else []), *run["findings"]])
        rows.append(
            (
                run["state"],
                [
                    esc(run["name"]),
                    esc(w(f"state-{run['state']}")),
                    percent(run["metrics"].get("score")),
                    esc(seconds(run["fit_s"])),
                    f"{esc(params)}" + (f'<div class="said">{esc(said)}</div>' if said else ""),
                ],
            )
        )
    head = [(w("col-run"), ""), (w("col-state"), ""), (w("col-valid"), "n"), (w("col-fit"), "n"), (w("col-params"), "wrap")]
    body = table(head, rows)
    left = "".join(f"<li>{esc(w.sentence(g['key'], {k: v for k, v in g.items() if k != 'key'}))}</li>" for g in d["given_up"])
    return section(w("search"), w("search-lead", runs_n=len(d["runs"]), spent=seconds(d["spent_s"]), budget=seconds(d["budget_s"])), body + (f"<ul>{left}</ul>" if left else ""))


def _again(d: Document, w: Words) -> str:
    limits = [
        (w(f"limit-{k}"), milliseconds(v) if k == "max_latency_ms" else f"{v:g}" if k == "max_cost_per_million" else size(v)) for k, v in d["limits"].items() if v is not None
    ]
    rows: list[tuple[str, object]] = [*(limits or [(w("limits"), w("none"))]), (w("seed"), d["seed"]), (w("budget"), seconds(d["budget_s"]))]
    rows += [(w("command"), d["command"])] if d["command"] else []
    rows += [(k, v) for k, v in d["environment"].items() if v]
    return section(w("again"), w("again-lead"), pairs(rows))
