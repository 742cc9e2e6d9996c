"""Work in a process of its own that is waited for: a foreign library that never ends can be ended, and its memory goes back to the system.

What the work tells comes as JSON lines appended to a file: nothing can block on a full pipe, and what was told survives the teller.
Knows nothing of what the work is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wenfang.core.errors import BY_STATUS, Broken

from .processes import Child, spawn

__all__ = ["LocalWorkers", "died"]

POLL_S = 0.05


class LocalWorkers:
    """Runs pieces of work as processes of this machine; thread-safe."""

    elsewhere = False

    def __init__(self) -> None:
        # the kernel ends a child with the *thread* that started it: one thread of ours starts them all and stays
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="worker-starter")

    def run(self, entry: str, arguments: Mapping[str, Any], folder: Path, *, heard: Callable[[Mapping[str, Any]], None], limit_s: float | None = None) -> None:
        """Run ``module:function`` in a process of its own until it ends; see ``core/ports.py``."""
        told, log = folder / "told.jsonl", folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        told.write_bytes(b"")
        child = self._starter.submit(spawn, entry, {**arguments, "told": str(told)}, log).result()
        until = None if limit_s is None else time.monotonic() + limit_s
        try:
            with open(told, "rb") as lines:
                while child.popen.poll() is None:
                    _hear(lines, heard)
                    if until is not None and time.monotonic() > until:
                        raise Broken("runtime.worker-overran", name=entry, limit_s=round(limit_s or 0.0, 1))
                    time.sleep(POLL_S)
                _hear(lines, heard)
            _judge(child, entry, log)
        finally:
            child.close(0.0)


def _hear(lines: Any, heard: Callable[[Mapping[str, Any]], None]) -> None:
    """Pass on the whole lines that came since; half a line waits for its end."""
    while True:
        at = lines.tell()
        line = lines.readline()
        if not line.endswith(b"\n"):
            lines.seek(at)
            return
        heard(json.loads(line))


def _judge(child: Child, entry: str, log: Path) -> None:
    code = child.popen.returncode
    if code == 0:
        return
    if error := child.failure():
        raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
    raise died(entry, code, log)


def died(entry: str, code: int, log: Path) -> Broken:
    """The error for a piece of work that ended without a word: what its log says last, by kind."""
    # the last line of a trace names the exception and may (with WENFANG_DEBUG) quote a text of the user: its kind is all that leaves the log
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    kind = last.partition(" (")[0].partition(":")[0].strip()
    return Broken("runtime.worker-died", name=entry, code=code, reason=kind if kind.replace(".", "").isidentifier() else "no reason given")
