"""Plots of the closer look as inline SVG: scores of parts, failures of tests, grades against scores, histograms. Knows nothing of selections or words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .svg import esc, line_at, percent_at, picture, short, text_at, text_width, ticks

__all__ = ["Range", "histogram", "ranges", "scatter"]

ROW = 24.0


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with its interval; ``bad`` in the accent colour, ``mark`` a bound of its own."""

    label: str
    n: int
    value: float
    low: float
    high: float
    bad: bool = False
    mark: float | None = None


def ranges(rows: Sequence[Range], *, title: str, value_title: str, count_title: str, line: float | None = None, line_label: str = "", from_zero: bool = False) -> str:
    """One row for each figure: a dot (a bar from zero) with its interval.

    Args:
        rows: from top to bottom.
        title: of the picture.
        value_title: of the axis.
        count_title: over the counts.
        line: an upright line to compare with.
        line_label: over it.
        from_zero: bars instead of dots, and an axis that begins at 0.
    """
    label_w = min(280.0, max([text_width(r.label) for r in rows] + [40.0]) + 6)
    left, top, plot_w = label_w + 76, 40.0, 430.0
    ends = [v for r in rows for v in (r.low, r.high, r.mark) if v is not None] + ([line] if line is not None else [])
    scale = ticks(0.0 if from_zero else min(ends), max(ends), 6)
    step = scale[1] - scale[0] if len(scale) > 1 else 0.1
    width, height = left + plot_w + 60, top + ROW * len(rows) + 26

    def px(v: float) -> float:
        return left + plot_w * (v - scale[0]) / max(scale[-1] - scale[0], 1e-9)

    parts = [line_at(px(t), top - 4, px(t), height - 22, "grid") + text_at(px(t), height - 8, percent_at(t, step), cls="t s n", anchor="middle") for t in scale]
    parts += [text_at(left - 12, 14, count_title, cls="t s", anchor="end"), text_at(left, 14, value_title, cls="t s")]
    if line is not None:
        parts += [line_at(px(line), top - 4, px(line), height - 22, "diagonal"), text_at(px(line), top - 9, line_label, cls="t s", anchor="middle")]
    for i, row in enumerate(rows):
        y, cls = top + ROW * i + ROW / 2, "chosen" if row.bad else "plain"
        parts.append(f"<g><title>{esc(row.label)}</title>{text_at(label_w, y + 4, short(row.label, label_w - 4), anchor='end')}</g>")
        parts.append(text_at(left - 12, y + 4, f"{row.n:,}", cls="t n s", anchor="end"))
        if from_zero:
            parts.append(f'<rect x="{left:.1f}" y="{y - 7:.1f}" width="{max(px(row.value) - left, 0.8):.1f}" height="14" rx="2" class="bar pale {cls}"/>')
        parts.append(line_at(px(row.low), y, px(row.high), y, f"whisker {cls}"))
        parts += [line_at(px(v), y - 4, px(v), y + 4, f"whisker {cls}") for v in (row.low, row.high)]
        if row.mark is not None:
            parts.append(line_at(px(row.mark), y - 9, px(row.mark), y + 9, "mark"))
        if not from_zero:
            parts.append(f'<circle cx="{px(row.value):.1f}" cy="{y:.1f}" r="5" class="dot {cls}"/>')
        parts.append(text_at(px(max(row.high, row.mark or row.high)) + 8, y + 4, f"{100 * row.value:.1f}", cls="t n s halo"))
    return picture(width, height, parts, title)


def scatter(points: Sequence[tuple[float, float]], *, title: str, x_title: str, y_title: str) -> str:
    """Grades against scores, each point a pair."""
    side, left, top, bottom = 320.0, 52.0, 30.0, 46.0
    width, height = left + side + 24, top + side + bottom
    xs, ys = (ticks(min(v), max(v), 5) for v in ([x for x, _ in points], [y for _, y in points]))

    def px(v: float) -> float:
        return left + side * (v - xs[0]) / max(xs[-1] - xs[0], 1e-9)

    def py(v: float) -> float:
        return top + side * (1 - (v - ys[0]) / max(ys[-1] - ys[0], 1e-9))

    parts = [line_at(left, py(t), left + side, py(t), "grid") + text_at(left - 8, py(t) + 4, f"{t:g}", cls="t n s", anchor="end") for t in ys]
    parts += [line_at(px(t), top, px(t), top + side, "grid") + text_at(px(t), top + side + 16, f"{t:g}", cls="t n s", anchor="middle") for t in xs]
    parts += [text_at(left + side / 2, height - 8, x_title, cls="t axis", anchor="middle"), text_at(14, 16, y_title, cls="t axis")]
    parts += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="3" class="speck"/>' for x, y in points]
    return picture(width, height, parts, title)


def histogram(counts: Mapping[str, Sequence[int]], *, title: str, x_title: str, y_title: str) -> str:
    """Shares over ``[0, 1]`` of one or two kinds, one over the other, each of its own whole."""
    plot_w, each_h, left, top, bottom = 440.0, 110.0, 52.0, 26.0, 46.0
    width, height = left + plot_w + 24, top + (each_h + 26) * len(counts) + bottom - 20
    parts = [text_at(14, 14, y_title, cls="t axis")]
    for i, (name, bins) in enumerate(counts.items()):
        base, most, total = top + (each_h + 26) * i + each_h + 14, max([*bins, 1]), max(sum(bins), 1)
        w = plot_w / max(len(bins), 1)
        parts += [text_at(left, base - each_h - 2, name, cls="t strong") if name else "", line_at(left, base, left + plot_w, base, "grid")]
        parts += [
            f'<rect x="{left + w * j + 1:.1f}" y="{base - each_h * b / most:.1f}" width="{w - 2:.1f}" height="{each_h * b / most:.1f}" rx="1.5" class="bar {"chosen" if i else "plain"}">'
            f"<title>{b}</title></rect>"
            for j, b in enumerate(bins)
        ]
        parts += [text_at(left - 8, base - each_h + 8, f"{100 * most / total:.0f}", cls="t n s", anchor="end"), text_at(left - 8, base, "0", cls="t n s", anchor="end")]
    parts += [text_at(left + plot_w * t, height - 26, f"{100 * t:.0f}", cls="t n s", anchor="middle") for t in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(text_at(left + plot_w / 2, height - 8, x_title, cls="t axis", anchor="middle"))
    return picture(width, height, parts, title)
