"""What every plot is made of: text, lines, ticks and a frame, as inline SVG; strings from data are escaped here. Knows nothing of figures or words.

Text is placed with its estimated width, so that long Chinese labels neither overlap nor run out of the picture.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

__all__ = ["FONT", "esc", "line_at", "log_ticks", "number", "percent_at", "picture", "short", "text_at", "text_width", "ticks"]

FONT = 12.0


def esc(text: object) -> str:
    """Safe in HTML and in attributes; control characters are shown, not sent."""
    return html.escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)), quote=True)


def text_width(text: str, size: float = FONT) -> float:
    """Estimated width in pixels: wide characters take a whole em.

    >>> text_width("中文", 10.0), text_width("ab", 10.0)
    (20.0, 11.6)
    """
    return round(sum(size if ord(c) > 0x2E7F else size * 0.58 for c in text), 3)


def short(text: str, width: float, size: float = FONT) -> str:
    """``text`` cut to ``width`` pixels, with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers that cover ``[low, high]``, about ``n``.

    >>> ticks(0.9, 0.94, 4)
    [0.9, 0.91, 0.92, 0.93, 0.94]
    """
    span = max(high - low, 1e-9)
    raw = span / n
    unit = 10 ** math.floor(math.log10(raw))
    step = min((s * unit for s in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... around ``[low, high]``; only powers of ten over more than two decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    every = [round(m * 10.0**e, 10) for e in range(first, last + 1) for m in steps]
    start = max((i for i, v in enumerate(every) if v <= low), default=0)
    end = min((i for i, v in enumerate(every) if v >= high), default=len(every) - 1)
    return every[start : end + 1]


def text_at(x: float, y: float, text: str, *, cls: str = "t", anchor: str = "start", turn: float | None = None) -> str:
    """One line of text."""
    rotate = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn is not None else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}"{rotate}>{esc(text)}</text>'


def line_at(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """One straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{cls}"/>'


def picture(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """The whole picture in its frame."""
    # never wider than drawn: letters keep their size, narrow screens scroll the frame
    return f'<div class="plot"><svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img"><title>{esc(title)}</title>{"".join(parts)}</svg></div>'


def number(value: float) -> str:
    """A figure without idle digits."""
    return f"{value:g}"


def percent_at(value: float, step: float) -> str:
    """A share in per cent, with the digits that ticks ``step`` apart need."""
    digits = max(0, -math.floor(math.log10(max(step, 1e-9) * 100) + 1e-9))
    return f"{100 * value:.{digits}f}"
