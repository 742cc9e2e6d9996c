"""What gateways noticed, written down as events: they keep it until it is, so nothing is lost while the control process is away."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wenfang.core.errors import Broken, Conflict, WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.ports import Changes, Tables
from wenfang.core.records import Event

__all__ = ["Noticing"]

log = logging.getLogger("wenfang.control")


class Noticing:
    """Asks the gateways.

    Args:
        run: folder of their sockets.
        tables: where events are kept.
    """

    def __init__(self, run: Path, tables: Tables) -> None:
        self.run = run
        self.tables = tables
        self._written: dict[str, list[str]] = {}
        """By socket: ids that the gateway may forget."""

    def tick(self) -> int:
        """Write down what is new; how much. A gateway that does not answer is asked again next time."""
        count = 0
        for path in sorted(self.run.glob("gateway-*.sock")):
            try:
                client = FrameClient(path, timeout_s=2.0)
            except Broken:  # it is being started
                continue
            try:
                count += self._write(path.stem, client)
            except WenfangError as e:
                log.warning("%s did not tell what it noticed: %s", path.name, e)
            finally:
                client.close()
        return count

    def _write(self, gateway: str, client: FrameClient) -> int:
        written = self._written.setdefault(gateway, [])
        notices: list[dict[str, Any]] = client.call("notices", heard=written)
        new = [n for n in notices if n["id"] not in written]
        for notice in new:
            at = datetime.fromtimestamp(notice["at"], UTC)
            event = Event(id=notice["id"], at=at, kind=notice["kind"], actor=gateway, subject=notice["subject"], data=notice["data"])
            with suppress(Conflict):  # an earlier control process wrote it and had no time to say so
                self.tables.commit(Changes(events=[event]))
        self._written[gateway] = [n["id"] for n in notices]
        return len(new)
