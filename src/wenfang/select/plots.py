"""Plots of candidates and classes as inline SVG: real axes, no scripts, colours from the page's style sheet. Knows nothing of selections or words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .svg import esc, line_at, log_ticks, number, percent_at, picture, short, text_at, text_width, ticks

__all__ = ["Bar", "Point", "Series", "bars", "heat_map", "lines", "reliability", "scatter_log"]


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate of the quality x latency plot."""

    label: str
    x: float
    y: float
    low: float
    high: float
    role: str


@dataclass(frozen=True, slots=True)
class Series:
    """One learning curve."""

    label: str
    points: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One class: F1 in 0..1 and how often it stands in the gold; None, 0: a gap in the list."""

    label: str
    value: float | None
    count: int


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle of text, for keeping labels apart."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: _Box) -> bool:
        """Whether they overlap."""
        return self.x < other.x + other.width and other.x < self.x + self.width and self.y < other.y + other.height and other.y < self.y + self.height


def scatter_log(points: Sequence[Point], *, title: str, x_title: str, y_title: str, limit: float | None = None, limit_label: str = "") -> str:
    """Score (with interval) over latency on a logarithmic axis; the front is joined, the chosen one is filled.

    A point so far below that it would press the others together (the floor) is named at the bottom edge instead.
    """
    points, below = _within_sight(points)
    width, height, left, right, top, bottom = 876.0, 420.0, 52.0, 28.0, 34.0, 52.0
    xs = [p.x for p in points] + ([limit] if limit else [])
    x_ticks = log_ticks(min(xs) / 1.3, max(xs) * 1.6)
    y_ticks = ticks(min(p.low for p in points), min(1.0, max(p.high for p in points)), 6)
    step = y_ticks[1] - y_ticks[0] if len(y_ticks) > 1 else 0.1
    span = math.log(x_ticks[-1] / x_ticks[0])

    def px(v: float) -> float:
        return left + (width - left - right) * math.log(v / x_ticks[0]) / span

    def py(v: float) -> float:
        return height - bottom - (height - top - bottom) * (v - y_ticks[0]) / max(y_ticks[-1] - y_ticks[0], 1e-9)

    parts = [line_at(left, py(t), width - right, py(t), "grid") + text_at(left - 8, py(t) + 4, percent_at(t, step), cls="t n", anchor="end") for t in y_ticks]
    parts += [line_at(px(t), top, px(t), height - bottom, "grid") + text_at(px(t), height - bottom + 18, number(t), cls="t n", anchor="middle") for t in x_ticks]
    parts += [text_at((left + width - right) / 2, height - 10, x_title, cls="t axis", anchor="middle"), text_at(14, top - 16, y_title, cls="t axis")]
    taken = [_Box(px(p.x) - 6, py(p.high), 12, max(py(p.low) - py(p.high), 12)) for p in points]
    if limit:
        parts += [line_at(px(limit), top, px(limit), height - bottom, "limit"), text_at(px(limit) - 6, top + 12, limit_label, cls="t limit-t", anchor="end")]
        taken += [_Box(px(limit) - 6 - text_width(limit_label), top, text_width(limit_label), 16), _Box(px(limit) - 2, top, 4, height)]
    front = _rising(points)
    steps = [f"{'M' if i == 0 else 'H'}{px(p.x):.1f}{f' {py(p.y):.1f}' if i == 0 else f'V{py(p.y):.1f}'}" for i, p in enumerate(front)]
    parts.append(f'<path d="{"".join(steps)}" class="front"/>' if len(front) > 1 else "")
    inside = _Box(left, top, width - left - right, height - top - bottom)
    for p in sorted(points, key=lambda p: (p.role != "chosen", -p.y)):
        x, y, cls = px(p.x), py(p.y), f"dot {p.role}"
        parts += [line_at(x, py(p.low), x, py(p.high), f"whisker {p.role}"), *(line_at(x - 4, py(v), x + 4, py(v), f"whisker {p.role}") for v in (p.low, p.high))]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6.5 if p.role == "chosen" else 5}" class="{cls}"><title>{esc(p.label)}</title></circle>')
        label = short(p.label, 190)
        parts.append(_placed(label, x, y, taken, inside, "t strong" if p.role == "chosen" else "t"))
    told = ", ".join(f"{p.label} {100 * p.y:.1f}" for p in below)
    parts.append(text_at(left + 8, height - bottom - 8, "↓ " + short(told, 400), cls="t s halo") if below else "")
    return picture(width, height, parts, title)


def _within_sight(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    ordered = sorted(points, key=lambda p: -p.y)
    for i in range(1, len(ordered)):
        if ordered[i].role != "chosen" and ordered[i - 1].y - ordered[i].y > max(0.15, 2 * (ordered[0].high - ordered[i - 1].low)):
            return ordered[:i], ordered[i:]
    return ordered, []


def _rising(points: Sequence[Point]) -> list[Point]:
    """The front in score and latency, from fast to slow."""
    front: list[Point] = []
    for p in sorted(points, key=lambda p: (p.x, -p.y)):
        if not front or p.y > front[-1].y:
            front.append(p)
    return front


def _placed(label: str, x: float, y: float, taken: list[_Box], inside: _Box, cls: str) -> str:
    """A label beside its point where nothing else stands; left out if there is no room (the table has it)."""
    w = text_width(label)
    shifts = [(10.0, dy) for dy in (4, -9, 17, -22, 30)] + [(-10.0 - w, dy) for dy in (4, -9, 17, -22, 30)]
    for dx, dy in shifts:
        box = _Box(x + dx - 2, y + dy - 11, w + 4, 15)
        within = box.x >= inside.x and box.x + box.width <= inside.x + inside.width + 20 and box.y >= inside.y - 4 and box.y + box.height <= inside.y + inside.height
        if within and not any(box.meets(b) for b in taken):
            taken.append(box)
            return text_at(x + dx, y + dy, label, cls=f"{cls} halo")
    return ""


def lines(series: Series, *, y_range: tuple[float, float] | None, percent: bool, x_title: str, y_title: str) -> str:
    """One small learning curve."""
    width, height, left, right, top, bottom = 204.0, 164.0, 34.0, 8.0, 42.0, 32.0
    xs, ys = [x for x, _ in series.points], [y for _, y in series.points]
    y_ticks = ticks(*(y_range or (min(ys), max(ys))), 4)
    x_ticks = ticks(0, max([*xs, 1e-6]), 3)
    step = y_ticks[1] - y_ticks[0] if len(y_ticks) > 1 else 0.1

    def px(v: float) -> float:
        return left + (width - left - right) * (v - x_ticks[0]) / max(x_ticks[-1] - x_ticks[0], 1e-9)

    def py(v: float) -> float:
        return height - bottom - (height - top - bottom) * (v - y_ticks[0]) / max(y_ticks[-1] - y_ticks[0], 1e-9)

    parts = [text_at(left, 14, short(series.label, width - left - right), cls="t strong"), text_at(left, 30, y_title, cls="t s")]
    parts += [
        line_at(left, py(t), width - right, py(t), "grid") + text_at(left - 6, py(t) + 4, percent_at(t, step) if percent else number(t), cls="t s n", anchor="end") for t in y_ticks
    ]
    parts += [text_at(px(t), height - bottom + 14, number(t), cls="t s n", anchor="middle") for t in x_ticks]
    parts.append(text_at(width - right, height - 4, x_title, cls="t s", anchor="end"))
    path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in series.points)
    parts.append(f'<polyline points="{path}" class="curve"/>')
    parts += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.2" class="dot curve-dot"/>' for x, y in (series.points if len(series.points) <= 30 else series.points[-1:])]
    return picture(width, height, parts, series.label)


def bars(rows: Sequence[Bar], *, title: str, value_title: str, count_title: str) -> str:
    """F1 of each class as horizontal bars, head at the top, tail at the bottom, with the count beside."""
    label_w = min(210.0, max([text_width(r.label) for r in rows] + [40.0]) + 6)
    bar_w, count_w, row_h, top = 520.0, 64.0, 22.0, 28.0
    left = label_w + count_w + 18
    width, height = left + bar_w + 54, top + row_h * len(rows) + 26
    parts = [text_at(left - 12, 16, count_title, cls="t s", anchor="end"), text_at(left, 16, value_title, cls="t s")]
    parts += [
        line_at(left + bar_w * t, top - 4, left + bar_w * t, height - 22, "grid") + text_at(left + bar_w * t, height - 8, f"{100 * t:.0f}", cls="t s n", anchor="middle")
        for t in (0, 0.25, 0.5, 0.75, 1.0)
    ]
    for i, row in enumerate(rows):
        y = top + row_h * i
        if row.value is None:
            parts.append(text_at(label_w, y + 14, row.label, cls="t s", anchor="end"))
            continue
        parts.append(f"<g><title>{esc(row.label)}</title>{text_at(label_w, y + 14, short(row.label, label_w - 4), anchor='end')}</g>")
        parts.append(text_at(left - 12, y + 14, f"{row.count:,}", cls="t n s", anchor="end"))
        parts.append(f'<rect x="{left:.1f}" y="{y + 3:.1f}" width="{max(bar_w * row.value, 0.8):.1f}" height="{row_h - 8:.1f}" rx="2" class="bar"/>')
        parts.append(text_at(left + bar_w * row.value + 6, y + 14, f"{100 * row.value:.1f}", cls="t n s halo"))
    return picture(width, height, parts, title)


def heat_map(labels: Sequence[str], cells: Sequence[Sequence[int]], *, title: str, row_title: str, column_title: str) -> str:
    """A confusion matrix: share of each gold class by shade, counts in the cells."""
    n = len(labels)
    cell = max(30.0, min(46.0, 560.0 / max(n, 1)))
    label_w = min(170.0, max([text_width(x) for x in labels] + [30.0]) + 8)
    slant = label_w * 0.72 + 12
    left, top = label_w + 26, slant + 26
    width, height = left + cell * n + slant, top + cell * n + 10
    parts = [text_at(left, 14, column_title, cls="t axis"), text_at(14, top + cell * n / 2, row_title, cls="t axis", anchor="middle", turn=-90)]
    for j, label in enumerate(labels):
        x = left + cell * (j + 0.5)
        parts.append(f"<g><title>{esc(label)}</title>{text_at(x + 3, top - 8, short(label, label_w - 4), turn=-45)}</g>")
        parts.append(f"<g><title>{esc(label)}</title>{text_at(left - 8, top + cell * (j + 0.5) + 4, short(label, label_w - 4), anchor='end')}</g>")
    for i, row in enumerate(cells):
        total = max(sum(row), 1)
        for j, value in enumerate(row):
            share = value / total
            x, y = left + cell * j, top + cell * i
            parts.append(
                f'<rect x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}" rx="2" class="cell {"hit" if i == j else "miss"}" style="--s:{share:.3f}"/>'
            )
            if value:
                size = min(11.5, (cell - 6) / (0.58 * len(str(value))))
                parts.append(
                    f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle" class="t n{" on" if share > 0.5 else ""}" style="font-size:{size:.1f}px">{value}</text>'
                )
    return picture(width, height, parts, title)


def reliability(rows: Sequence[tuple[float, float, int]], *, title: str, x_title: str, y_title: str) -> str:
    """How often answers of a confidence were right; the diagonal is perfect calibration.

    Args:
        rows: (mean confidence, accuracy, count) of each bin.
        title: of the picture.
        x_title: confidence.
        y_title: accuracy.
    """
    side, left, top, bottom = 300.0, 52.0, 30.0, 44.0
    width, height = left + side + 24, top + side + bottom
    most = max((n for *_, n in rows), default=1)
    parts = [
        line_at(left, top + side * (1 - t), left + side, top + side * (1 - t), "grid")
        + line_at(left + side * t, top, left + side * t, top + side, "grid")
        + text_at(left - 8, top + side * (1 - t) + 4, f"{100 * t:.0f}", cls="t n s", anchor="end")
        + text_at(left + side * t, top + side + 16, f"{100 * t:.0f}", cls="t n s", anchor="middle")
        for t in (0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    parts += [
        line_at(left, top + side, left + side, top, "diagonal"),
        text_at(left + side / 2, height - 8, x_title, cls="t axis", anchor="middle"),
        text_at(14, 16, y_title, cls="t axis"),
    ]
    spots = [(left + side * c, top + side * (1 - a), n) for c, a, n in rows]
    parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)}" class="curve"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 8 * math.sqrt(n / most):.1f}" class="dot bubble"><title>{n}</title></circle>' for x, y, n in spots]
    return picture(width, height, parts, title)
