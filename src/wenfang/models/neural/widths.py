"""In which width a network is served: every one is made, timed and judged on the machine at hand; the fastest that keeps the score wins. Knows nothing of tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .answering import Run
from .batches import Batch
from .quantising import fp16_of, int8_of, int8_static_of
from .session import BUDGETS, Session, Width

__all__ = ["Served", "serve_in"]

LOSS = 0.002
"""Valid score that a narrower width may cost."""
FASTER = 0.9
"""int8 is taken when a text takes at most this share of the time."""
NEAR = 1.1
"""Widths this near to the fastest for a text alone are told apart by texts in batches."""
ROUNDS = 7
TIMING_S = 4.0
"""No further round of timing after so long."""
FAST: tuple[Width, ...] = ("int8-static", "int8")
WIDTHS: tuple[Width, ...] = ("fp32", *FAST, "fp16")
Judge = Callable[[Run, int], float]
"""Valid score of a network that answers so many padded tokens at once."""


@dataclass(slots=True)
class Served:
    """The network that is served."""

    onnx: bytes
    width: Width
    tried: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Of each width: microseconds of a text alone and in batches, bytes, and the valid score where it was judged."""


def serve_in(wish: Width | Literal["auto"], whole: bytes, samples: Sequence[Batch], *, judge: Judge | None, texts: int = 0, left_s: float | None = None) -> Served:
    """The network in the width that is wanted, or the one that pays.

    Of the widths that are clearly faster than fp32 the fastest that keeps the valid score; if there is none, half floats where those
    keep it: they take half the room at the same speed.

    Args:
        wish: a width; ``auto``: measured, and fp32 without ``judge``.
        whole: the fp32 network.
        samples: batches of training texts, some of them with one row; fixed int8 scales are learned from them.
        judge: valid score of a network.
        texts: that one judgement reads.
        left_s: time there is; None: as much as it takes.
    """
    if wish != "auto":
        return Served(_narrow(whole, wish, samples), wish)
    if judge is None:
        return Served(whole, "fp32")
    made: dict[Width, bytes] = {w: _narrow(whole, w, samples) for w in WIDTHS}
    sessions: dict[Width, Session] = {width: Session(model) for width, model in made.items()}
    singles = [b for b in samples if len(b.rows) == 1]
    alone = _seconds(sessions, dict.fromkeys(WIDTHS, singles))
    several = [b for b in samples if len(b.rows) > 1][:2] or samples[:2]
    rows: dict[Width, list[Batch]] = {w: [one for b in several for one in (b.parts(len(b.rows)) if BUDGETS[w] == 0 else [b])] for w in made}
    together = _seconds(sessions, rows)
    tried: list[dict[str, Any]] = [{"width": w, "us": round(1e6 * alone[w]), "batch_us": round(1e6 * together[w]), "size_bytes": len(made[w])} for w in made]
    least = min(alone[w] for w in FAST)
    ordered: list[Width] = sorted((w for w in FAST if alone[w] <= FASTER * alone["fp32"]), key=lambda w: (together[w] if alone[w] <= NEAR * least else float("inf"), alone[w]))
    until = None if left_s is None else time.monotonic() + left_s
    scores: dict[Width, float] = {}

    def score(width: Width) -> float | None:
        """None: there is no time to find out."""
        if width not in scores and (until is None or time.monotonic() + 1.5 * texts * together[width] < until):
            scores[width] = judge(sessions[width], BUDGETS[width])
            next(t for t in tried if t["width"] == width)["score"] = round(scores[width], 6)
        return scores.get(width)

    chosen: Width = "fp32"
    exact = score("fp32")
    narrower: list[Width] = [*ordered, "fp16"]
    for width in narrower if exact is not None else ():
        own = score(width)
        if own is not None and exact is not None and own >= exact - LOSS:
            chosen = width
            break
    return Served(made[chosen], chosen, tried)


def _seconds(sessions: Mapping[Width, Session], batches: Mapping[Width, Sequence[Batch]]) -> dict[Width, float]:
    """Of one text: the least of some rounds, taken in turn, so that a busy moment hits all alike."""
    best = dict.fromkeys(sessions, float("inf"))
    until = time.monotonic() + TIMING_S
    for done in range(ROUNDS):
        if done > 1 and time.monotonic() > until:
            break
        for width, session in sessions.items():
            start = time.perf_counter()
            for batch in batches[width]:
                session(batch)
            best[width] = min(best[width], (time.perf_counter() - start) / sum(len(b.rows) for b in batches[width]))
    return best


def _narrow(whole: bytes, width: Width, samples: Sequence[Batch]) -> bytes:
    return whole if width == "fp32" else fp16_of(whole) if width == "fp16" else int8_of(whole) if width == "int8" else int8_static_of(whole, samples)
