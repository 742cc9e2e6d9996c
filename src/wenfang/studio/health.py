"""Every replica is asked a real question now and then; one that hangs, or fails where it used to answer, is replaced.

A process that lives may still not answer: stuck in a lock, stopped, a device that is gone. Its supervisor sees nothing of that, and the
gateways only go around it. Knows nothing of routes beyond where replicas listen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wenfang.core.errors import WenfangError
from wenfang.serve.probing import Probed, vital

__all__ = ["Health"]

FAILURES_MAX = 3
AT_ONCE = 16
log = logging.getLogger("wenfang.health")


class Health:
    """Asks from threads of its own.

    Args:
        replicas: says the present ones, name → path of the socket.
        replace: ends the process of a name and has it started again.
        every_s: between two questions to one replica; 0: never.
        patience_s: without a sign of life, unless the replica said that it may take longer.
    """

    def __init__(self, replicas: Callable[[], Mapping[str, str]], replace: Callable[[str], None], *, every_s: float, patience_s: float) -> None:
        self.every_s = every_s
        self.patience_s = patience_s
        self._replicas = replicas
        self._replace = replace
        self._silent_s: dict[str, float] = {}
        """By path: what its replica said at the last hello."""
        self._failures: dict[str, int] = {}
        """By name, since it answered last; those that never answered are not here."""
        self._asked: set[str] = set()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin; returns at once."""
        if self.every_s:
            threading.Thread(target=self._run, name="health", daemon=True).start()

    def close(self) -> None:
        """Ask nothing new."""
        self._over.set()

    def _run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="health") as threads:
            while not self._over.wait(self.every_s):
                present = dict(self._replicas())
                for gone in self._failures.keys() - present.keys():
                    self._failures.pop(gone, None)
                for name, path in present.items():
                    if name not in self._asked:
                        self._asked.add(name)
                        threads.submit(self._ask, name, path)

    def _ask(self, name: str, path: str) -> None:
        try:
            found = vital(Path(path), patience_s=max(self.patience_s, self._silent_s.get(path, 0.0)))
            if found.hello is not None:
                self._silent_s[path] = found.hello.silent_s
            if self._ill(name, found) and not self._over.is_set():
                self._failures.pop(name, None)
                self._replace(name)
        except (WenfangError, OSError):
            log.exception("%s could not be looked after", name)
        finally:
            self._asked.discard(name)

    def _ill(self, name: str, found: Probed) -> bool:
        """Whether it must be replaced. One that is not there is its supervisor's business."""
        if found.state == "answers":
            self._failures[name] = 0
        elif found.state == "silent":
            log.warning("%s gave no sign of life for %.1f s: it is replaced", name, max(self.patience_s, self._silent_s.get(str(found.path), 0.0)))
            return True
        elif found.state == "fails" and name in self._failures:
            self._failures[name] += 1
            if self._failures[name] >= FAILURES_MAX:
                log.warning("%s answered once and fails now, %d times in a row: it is replaced", name, FAILURES_MAX)
                return True
        return False
