"""The picture of a capacity plan: p50, p95 and p99 over the rate, with the limit and the rate that was asked; one SVG file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from wenfang.core.words import say
from wenfang.select.svg import esc, line_at, number, text_at, ticks

__all__ = ["rate_picture"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760.0, 400.0, 64.0, 64.0, 44.0, 52.0
STYLE = (
    "text{font:12px system-ui,'Noto Sans CJK SC','PingFang SC',sans-serif;fill:#23211d}.n{font-variant-numeric:tabular-nums}.axis{fill:#6b675f}.grid{stroke:#e4e0d7}"
    ".limit{stroke:#b23a2e;stroke-width:1.5;stroke-dasharray:5 4}.asked{stroke:#6b675f;stroke-dasharray:2 4}polyline{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".p50{stroke:#a8a297}.p95{stroke:#85b1dd}.p99{stroke:#35618f}polygon{fill:#35618f;opacity:.14}"
)
FIGURES = ("p50", "p95", "p99")


def rate_picture(rows: Sequence[dict[str, float]], *, title: str, limit_ms: float, rate_per_s: float) -> str:
    """A whole SVG document.

    Args:
        rows: ``rate_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms``, ``p99_low_ms``, ``p99_high_ms``; by rate; at least one.
        title: above it.
        limit_ms: of the p99.
        rate_per_s: that was asked.
    """
    most_x = max([*(r["rate_per_s"] for r in rows), rate_per_s]) * 1.02
    x_ticks, y_ticks = ticks(0, most_x, 6), ticks(0, max([*(r["p99_high_ms"] for r in rows), limit_ms]) * 1.1, 5)
    most_y = y_ticks[-1]

    def px(v: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * v / most_x

    def py(v: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(v, most_y) / most_y

    def line(key: str) -> str:
        return " ".join(f"{px(r['rate_per_s']):.1f},{py(r[key]):.1f}" for r in rows)

    parts = [line_at(LEFT, py(t), WIDTH - RIGHT, py(t), "grid") + text_at(LEFT - 8, py(t) + 4, number(t), cls="n", anchor="end") for t in y_ticks]
    parts += [text_at(px(t), HEIGHT - BOTTOM + 18, number(t), cls="n", anchor="middle") for t in x_ticks if t <= most_x]
    parts += [text_at((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, say("plan.axis-rate"), cls="axis", anchor="middle"), text_at(14, TOP - 12, say("plan.axis-ms"), cls="axis")]
    parts.append(text_at(LEFT, 18, title))
    back = " ".join(f"{px(r['rate_per_s']):.1f},{py(r['p99_low_ms']):.1f}" for r in reversed(rows))
    parts.append(f'<polygon points="{line("p99_high_ms")} {back}"/>')
    for name in FIGURES:
        parts.append(f'<polyline class="{name}" points="{line(f"{name}_ms")}"/>')
        parts.append(text_at(px(rows[-1]["rate_per_s"]) + 6, py(rows[-1][f"{name}_ms"]) + 4, name, cls="n"))
    parts.append(line_at(LEFT, py(limit_ms), WIDTH - RIGHT, py(limit_ms), "limit") + text_at(LEFT + 6, py(limit_ms) - 5, say("plan.axis-limit", limit_ms=limit_ms)))
    parts.append(line_at(px(rate_per_s), TOP, px(rate_per_s), HEIGHT - BOTTOM, "asked"))
    size = f'width="{WIDTH:.0f}" height="{HEIGHT:.0f}" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{esc(title)}</title><style>{STYLE}</style><rect width="100%" height="100%" fill="#fbfaf7"/>{"".join(parts)}</svg>\n'
