"""Pieces of the report page: words of one language, figures as people read them, tables and sections. Knows nothing of selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wenfang.core.words import say

from .svg import esc

__all__ = ["Document", "Words", "between", "milliseconds", "pairs", "percent", "seconds", "section", "size", "table"]

Document = Mapping[str, Any]
"""``selection.json``."""


class Words:
    """Sentences of the catalogue in one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang

    def __call__(self, key: str, **fields: Any) -> str:
        """A sentence of the report."""
        return say(f"report.{key}", self.lang, **fields)

    def sentence(self, key: str, fields: Mapping[str, Any]) -> str:
        """A sentence of another noun."""
        return say(key, self.lang, **fields)


def percent(value: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.2f}"


def between(figures: Mapping[str, float]) -> str:
    """An interval in per cent."""
    return f"{100 * figures['low']:.2f} – {100 * figures['high']:.2f}"


def size(value: float | None) -> str:
    """Bytes as a person reads them."""
    if value is None:
        return "–"
    return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value / 1e3:,.1f} kB"


def milliseconds(value: float) -> str:
    """A latency."""
    return f"{value:.2f} ms" if value < 100 else f"{value:,.0f} ms"


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:,.1f} s" if value < 600 else f"{value / 60:,.1f} min"


def table(head: Sequence[tuple[str, str]], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table; ``head`` is (title, class: ``n`` numbers, ``wrap`` long text), cells are safe HTML already."""
    top = "".join(f'<th class="{cls}">{esc(title)}</th>' for title, cls in head)
    body = "".join(f'<tr class="{row}">' + "".join(f'<td class="{cls}">{cell}</td>' for cell, (_, cls) in zip(cells, head, strict=True)) + "</tr>" for row, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def section(title: str, lead: str, body: str) -> str:
    """A titled part of the page; nothing without a body."""
    return f'<section><h2>{esc(title)}</h2><p class="lead">{esc(lead)}</p>{body}</section>' if body else ""


def pairs(rows: Sequence[tuple[str, object]]) -> str:
    """Names and values in a card."""
    return '<div class="card"><dl>' + "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>" for k, v in rows) + "</dl></div>"
