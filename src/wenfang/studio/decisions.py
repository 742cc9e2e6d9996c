"""The autoscaler's log: each step, and each reason not to take one, with its numbers. One bounded file a service under ``logs/``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from wenfang.core.durable import write_file
from wenfang.core.home import Home

__all__ = ["DecisionLog", "Logged"]

FILE_MAX_BYTES = 512 << 10
SAID_AGAIN_S = 60.0
"""The same reason to stay is not written again within this time."""
log = logging.getLogger("wenfang.autoscaler")


class Logged(msgspec.Struct, frozen=True):
    """One line."""

    at: float
    """Seconds since 1970, UTC."""
    present: int
    wanted: int
    reason: str
    figures: dict[str, Any] = {}


class DecisionLog:
    """Of all services of a home; lines that cannot be written or read are left out, scaling goes on."""

    def __init__(self, home: Home) -> None:
        self._folder = home.logs
        self._said: dict[str, tuple[float, int, int, str]] = {}

    def _path(self, service: str) -> Path:
        return self._folder / f"scaling-{service}.jsonl"

    def add(self, service: str, line: Logged) -> None:
        """Write a line, unless it says of staying what was said a moment ago."""
        said = (line.present, line.wanted, line.reason)
        at, *before = self._said.get(service, (0.0, -1, -1, ""))
        if line.present == line.wanted and before == [*said] and line.at - at < SAID_AGAIN_S:
            return
        self._said[service] = (line.at, *said)
        path = self._path(service)
        try:
            with path.open("ab") as f:
                f.write(msgspec.json.encode(line) + b"\n")
            if path.stat().st_size > FILE_MAX_BYTES:
                kept = path.read_bytes()[-FILE_MAX_BYTES // 2 :].partition(b"\n")[2]
                write_file(path, kept)
        except OSError as e:
            log.warning("%s was not written: %s", path.name, e.strerror)

    def lines(self, service: str, limit: int) -> list[Logged]:
        """The latest, newest first."""
        try:
            rows = self._path(service).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found: list[Logged] = []
        for row in reversed(rows):
            if len(found) >= limit:
                break
            try:
                found.append(msgspec.json.decode(row, type=Logged))
            except msgspec.MsgspecError:  # a line cut by a crash
                log.debug("a line of %s cannot be read", service)
        return found
