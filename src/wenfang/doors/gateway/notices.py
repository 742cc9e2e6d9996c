"""What one gateway noticed and others want to know: its siblings at once, the control process when it asks. Needs neither of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

from wenfang.core.ids import new_id
from wenfang.doors.channel import Call, ask
from wenfang.serve.pool import Pool
from wenfang.serve.router import Router

__all__ = ["Notices"]

KEPT_MAX = 256
"""While nobody comes to hear them; the oldest goes first."""
log = logging.getLogger("wenfang.gateway")


class Notices:
    """Of one gateway; must be made on a running loop.

    Args:
        run: folder of the sockets.
        index: of this gateway.
        router: its pools.
    """

    def __init__(self, run: Path, index: int, router: Router) -> None:
        self._run = run
        self._index = index
        self._router = router
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT_MAX)
        self._telling: set[asyncio.Task[Any]] = set()
        self.calls: dict[str, Call] = {"notices": self._hear, "quarantine": self._quarantine}
        router.on_quarantine = self._quarantined

    def _quarantined(self, pool: Pool, digest: str) -> None:
        """A text killed replicas: no sibling shall have to find that out for itself."""
        self._kept.append(
            {"id": new_id("ev"), "at": time.time(), "kind": "text.quarantined", "subject": pool.model, "data": {"model": pool.version, "digest": digest, "gateway": self._index}}
        )
        for path in sorted(self._run.glob("gateway-*.sock")):
            if path.name != f"gateway-{self._index}.sock":
                task = asyncio.ensure_future(ask(path, "quarantine", model=pool.model, digest=digest))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _quarantine(self, message: dict[str, Any]) -> Any:
        """``model`` and ``digest`` of a text that killed replicas of a sibling's."""
        pool = self._router.pools.get(str(message["model"]))
        return pool is not None and pool.quarantine.add(str(message["digest"]))

    async def _hear(self, message: dict[str, Any]) -> Any:
        """What was noticed; ``heard``: ids of what the caller has kept safe, which is forgotten here."""
        heard = frozenset(message.get("heard", ()))
        kept = [notice for notice in self._kept if notice["id"] not in heard]
        self._kept.clear()
        self._kept.extend(kept)
        return kept
