"""Makes the queue workers of the process tree follow the bindings: one process for each request queue that a service answers."""

from __future__ import annotations

import threading
from typing import Any

from wenfang.core.errors import WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.ports import Runtime
from wenfang.core.records import QueueBinding

from .app import Studio

__all__ = ["QueueWorkers", "worker_state"]

ENTRY = "wenfang.doors.queue:main"
GRACE_S = 15.0


class QueueWorkers:
    """One at a time; safe to repeat."""

    def __init__(self, studio: Studio, runtime: Runtime) -> None:
        self._studio, self._runtime = studio, runtime
        self._lock = threading.Lock()

    def settle(self) -> None:
        """Start the workers that bindings ask for, stop the others. A binding that changed has a new worker once the old one has finished."""
        with self._lock:
            bindings = {f"queue-{b.id}-{b.revision}": b for b in self._studio.tables.find(QueueBinding) if not b.detached}
            running = {n: p for n, p in self._runtime.processes().items() if n.startswith("queue-") and p["state"] not in {"exited", "stopping"}}
            for name in running.keys() - bindings.keys():
                self._runtime.stop(name, grace_s=GRACE_S)
            busy = {n.rpartition("-")[0] for n, p in self._runtime.processes().items() if n.startswith("queue-") and p["state"] != "exited"}
            for name, binding in bindings.items():
                if name not in running and name.rpartition("-")[0] not in busy:
                    self._runtime.ensure(name, ENTRY, {"home": str(self._studio.home.root), "binding": binding.model_dump(mode="json")}, restart=True)


def worker_state(studio: Studio, binding: QueueBinding) -> dict[str, Any]:
    """What the worker of a binding counts; ``{}`` when it does not answer."""
    try:
        client = FrameClient(studio.home.run / binding.socket, timeout_s=2.0)
    except WenfangError:
        return {}
    try:
        return client.call("state")
    except WenfangError:
        return {}
    finally:
        client.close()
