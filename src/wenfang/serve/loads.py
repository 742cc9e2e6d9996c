"""What a gateway tells the autoscaler of its pools: counters that only grow, and what is there now. Lives on one loop."""

from __future__ import annotations

import asyncio
from typing import Any

from .pool import Pool
from .router import Router

__all__ = ["told"]

WAIT_MAX_S = 5.0


async def told(router: Router, wait_s: float) -> dict[str, Any]:
    """By id of the model version, what its pool has counted; after ``wait_s``, or at once when a text comes for which there is no replica.

    Args:
        router: whose pools.
        wait_s: at most five seconds.
    """
    try:
        await asyncio.wait_for(router.stranded.wait(), min(max(wait_s, 0.0), WAIT_MAX_S))
    except TimeoutError:
        return _now(router)
    router.stranded.clear()
    return _now(router)


def _now(router: Router) -> dict[str, Any]:
    return {model: _figures(pool) for model, pool in router.pools.items()}


def _figures(pool: Pool) -> dict[str, Any]:
    now, figures = pool.loop.time(), pool.figures
    return {
        "at": now,
        "asked": figures.asked,
        "texts": figures.texts,
        "busy_s": figures.busy_s + pool.working_s(now),
        "waits": figures.waits,
        "waiting": len(pool.waiting),
        "oldest_ms": max((1000 * (now - item.ticket.started) for item in pool.waiting), default=0.0),
        "in_flight": pool.in_flight,
        "ready": pool.ready,
    }
