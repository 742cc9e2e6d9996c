"""How long a batch takes as a function of its size, measured on the serving machine. Pure arithmetic over a clock and a callable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["CostCurve", "fit", "measure"]

_SAMPLE = "今天天气很好我们去公园散步吧客服请问订单什么时候发货系统登录失败需要重置密码谢谢您的帮助abc123，。"


@dataclass(frozen=True, slots=True)
class CostCurve:
    """``ms = item_ms · (texts × longest text) + fixed_ms`` and the batch size that pays."""

    item_ms: float
    fixed_ms: float
    batch_max: int


def sample_text(n: int, shift: int = 0) -> str:
    """A text of ``n`` code points that looks like what comes in."""
    start = shift % len(_SAMPLE)
    return (_SAMPLE[start:] + _SAMPLE * (n // len(_SAMPLE) + 1))[:n]


def fit(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Least squares of ``ms = a·n + b`` with neither negative, weighted by 1/ms so that small batches count.

    Args:
        points: (code points of the padded batch, milliseconds).

    >>> fit([(10, 2.0), (20, 3.0), (40, 5.0)])
    (0.1, 1.0)
    """
    weighted = [(n, ms, 1.0 / max(ms, 1e-6)) for n, ms in points]
    total = sum(w for _, _, w in weighted)
    mean_n = sum(w * n for n, _, w in weighted) / total
    mean_ms = sum(w * ms for _, ms, w in weighted) / total
    spread = sum(w * (n - mean_n) ** 2 for n, _, w in weighted)
    a = max(0.0, sum(w * (n - mean_n) * (ms - mean_ms) for n, ms, w in weighted) / spread) if spread else 0.0
    b = max(0.0, mean_ms - a * mean_n)
    return round(a, 9), round(b, 9)


def measure(predict: Callable[[list[str]], object], *, batch_max: int, budget_s: float = 1.5, clock: Callable[[], float] = time.process_time) -> CostCurve:
    """Warm ``predict`` up and measure it; stops early when the budget is spent, but never before batch 1 is known.

    The clock is processor time, which neighbours on a busy machine do not distort as they do wall time. The batch size that pays is the smallest whose time per text is within 3 % of the best seen.

    Cost: at most about ``budget_s`` plus one batch.
    """
    until = clock() + budget_s
    for n in (8, 24, 64):
        predict([sample_text(n)])
    points: list[tuple[int, float]] = []
    per_text: dict[int, float] = {}
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if size <= batch_max]
    for size in sizes:
        for length in (24, 8, 64):
            if points and clock() > until:
                break
            batch = [sample_text(length, 7 * i) for i in range(size)]
            best_ms = min(_once(predict, batch, clock) for _ in range(3))
            points.append((size * length, best_ms))
            if length == 24:
                per_text[size] = best_ms / size
    item_ms, fixed_ms = fit(points)
    floor = min(per_text.values())
    return CostCurve(item_ms, fixed_ms, next(size for size in sorted(per_text) if per_text[size] <= floor * 1.03))


def _once(predict: Callable[[list[str]], object], batch: list[str], clock: Callable[[], float]) -> float:
    start = clock()
    predict(batch)
    return (clock() - start) * 1000
