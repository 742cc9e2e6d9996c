"""The process of a job: it runs the operation of one job through the same ``Studio.run`` as every door.

It ends with one commit that holds the operation's records and the job's end. If the process dies before that, nothing of it was
written and it is started again.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any

from wenfang.core.discreet import begin_log
from wenfang.core.errors import WenfangError
from wenfang.core.home import Home
from wenfang.core.ids import new_id, now
from wenfang.core.ports import Cancelled, Changes
from wenfang.core.records import ApiKey, Event, Job
from wenfang.core.settings import load_settings
from wenfang.guard.keyring import actor_of
from wenfang.guard.roles import LOCAL, Actor

from . import operations
from .app import Studio
from .queue import HEARTBEAT
from .wiring import open_worker

__all__ = ["FileProgress", "main"]

log = logging.getLogger("wenfang.jobs")


class FileProgress:
    """Progress kept in ``progress.json`` of the job's folder, at most twice a second; raises ``Cancelled`` after SIGTERM."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = threading.Event()
        self._state: dict[str, Any] = {"stage": "", "done": 0, "total": None, "unit": "", "rate": None, "left_s": None, "figures": {}, "notes": []}
        self._began = self._written = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """A new stage begins."""
        self._began = time.monotonic()
        self._state.update(stage=name, done=0, total=total, unit=unit, rate=None, left_s=None)
        self._write(force=True)

    def advance(self, n: int = 1, /, **figures: Any) -> None:
        """``n`` more are done."""
        s = self._state
        s["done"] += n
        s["figures"].update({k: v for k, v in figures.items() if v is not None})
        if (took := time.monotonic() - self._began) > 0.5 and s["done"]:
            s["rate"] = s["done"] / took
            s["left_s"] = (s["total"] - s["done"]) / s["rate"] if s["total"] else None
        self._write()

    def note(self, key: str, /, **fields: Any) -> None:
        """A sentence worth keeping."""
        self._state["notes"] = [*self._state["notes"][-200:], [key, fields]]
        self._write(force=True)

    def _write(self, *, force: bool = False) -> None:
        if self.stop.is_set():
            raise Cancelled
        if force or time.monotonic() - self._written > 0.5:
            self._written = time.monotonic()
            spare = self.path.with_suffix(".new")  # not fsynced: progress may be lost with the machine, never half read
            spare.write_text(json.dumps(self._state, default=str, ensure_ascii=False), encoding="utf-8")
            spare.replace(self.path)


def actor_by_id(studio: Studio, id: str) -> Actor:
    """Whoever queued a job, with the rights they have now."""
    if id == LOCAL.id:
        return LOCAL
    key = studio.tables.get(ApiKey, id)
    return actor_of(key) if key is not None else Actor(id=id, name=id, role="none", permissions=frozenset(), project=None, local=False)


def _beat(path: Path) -> None:
    """Touch the heartbeat as long as this process can run at all."""
    while True:
        path.touch()
        time.sleep(1.0)


def main(arguments: dict[str, Any]) -> None:
    """Entry of a job's process: run the operation of one job and end it."""
    begin_log()
    home = Home(Path(arguments["home"]))
    studio = open_worker(home, load_settings(home.root))
    job = studio.tables.get(Job, arguments["job"])
    if job is None or job.state != "running":
        log.info("job %s needs no work", arguments["job"])
        return
    folder = home.jobs / job.id
    folder.mkdir(parents=True, exist_ok=True)
    progress = FileProgress(folder / "progress.json")
    threading.Thread(target=_beat, args=(folder / HEARTBEAT,), name="heartbeat", daemon=True).start()

    def stop(*_: object) -> None:
        progress.stop.set()

    signal.signal(signal.SIGTERM, stop)
    op = operations()[job.operation]
    try:
        studio.run(op, actor_by_id(studio, job.actor), op.request.model_validate(job.request), progress=progress, request_id=job.id, job=job)
    except Cancelled:
        log.info("job %s stopped", job.id)  # cancelled: the record says so already; shut down: it is started again
    except WenfangError as e:
        log.exception("job %s failed", job.id)
        if (current := studio.tables.get(Job, job.id)) is not None and current.state == "running":
            failed = current.model_copy(update={"state": "failed", "revision": current.revision + 1, "finished_at": now(), "error": e.problem()})
            studio.tables.commit(Changes(updates=[(failed, current.revision)], events=[Event(id=new_id("ev"), kind="job.failed", actor=job.actor, subject=job.id)]))
