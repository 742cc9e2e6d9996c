"""The queue of jobs: how a job is written, and the runner in the control process that starts its process and notices its death."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.ids import new_id, now
from wenfang.core.operation import Operation
from wenfang.core.ports import Changes, Runtime
from wenfang.core.records import AuditEntry, Event, Job
from wenfang.guard.roles import Actor, require

from .app import Studio

__all__ = ["HEARTBEAT", "JobRunner", "queue_job"]

ENTRY = "wenfang.studio.work:main"
HEARTBEAT = "heartbeat"
"""File in a job's folder that its process touches every second."""


def queue_job(studio: Studio, op: Operation, actor: Actor, request: BaseModel, request_id: str = "") -> Job:
    """Write a job that will run ``op``.

    Raises:
        Denied: `auth.denied`, audited.
    """
    project = getattr(request, "project", "default")
    job = Job(id=new_id("jb"), project=project, operation=op.name, request=request.model_dump(mode="json"), actor=actor.id, state="queued")
    entry = AuditEntry(seq=0, at=now(), actor=actor.id, operation=f"{op.name}", subject=job.id, outcome="done", code="job.queued", request_id=request_id)
    try:
        require(actor, op.permission, project=project)
    except WenfangError as e:
        studio.tables.commit(Changes(audit=[entry.model_copy(update={"outcome": "refused", "code": e.code})]))
        raise
    event = Event(id=new_id("ev"), kind="job.queued", actor=actor.id, subject=job.id, data={"operation": op.name})
    studio.tables.commit(Changes(puts=[job], events=[event], audit=[entry]))
    return job


class JobRunner:
    """Starts queued jobs, notices dead ones, stops cancelled ones. ``tick`` is called by the control process a few times a second."""

    def __init__(self, studio: Studio, runtime: Runtime) -> None:
        self.studio = studio
        self.runtime = runtime

    def tick(self) -> None:
        """One look at everything."""
        alive = {n.removeprefix("job-"): p for n, p in self.runtime.processes().items() if n.startswith("job-") and p["state"] in {"running", "starting", "stopping"}}
        running = self.studio.tables.find(Job, where={"state": "running"})
        for job in running:
            if job.id not in alive:
                self._died(job)
        for id, process in alive.items():
            job = self.studio.tables.get(Job, id)
            if job is None or job.state == "cancelled":
                self.runtime.stop(f"job-{id}", grace_s=5.0)
            elif self._silent(job, process):
                self.runtime.stop(f"job-{id}", grace_s=0.0)
        room = self.studio.settings.jobs.parallel - len([j for j in running if j.id in alive])
        for job in self.studio.tables.find(Job, where={"state": "queued"}, limit=max(room, 0)) if room > 0 else []:
            self._start(job)

    def _silent(self, job: Job, process: dict[str, Any]) -> bool:
        """Whether the process has not touched its heartbeat for too long: stopped, swapped to death, or stuck in a lock."""
        beat = self.studio.home.jobs / job.id / HEARTBEAT
        last = max(beat.stat().st_mtime if beat.is_file() else 0.0, process["started_at"] or time.time())
        return time.time() - last > self.studio.settings.jobs.heartbeat_s

    def _start(self, job: Job) -> None:
        started = job.model_copy(update={"state": "running", "revision": job.revision + 1, "attempts": job.attempts + 1, "started_at": now()})
        self._change(started, job)
        self.runtime.ensure(f"job-{job.id}", ENTRY, {"home": str(self.studio.home.root), "job": job.id}, restart=False)

    def _died(self, job: Job) -> None:
        current = self.studio.tables.get(Job, job.id)
        if current is None or current.state != "running" or current.revision != job.revision:
            return  # it ended between our two looks
        if job.attempts < self.studio.settings.jobs.attempts:
            self._change(job.model_copy(update={"state": "queued", "revision": job.revision + 1}), job)
        else:
            error = Broken("job.died", attempts=job.attempts, id=job.id).problem()
            self._change(job.model_copy(update={"state": "failed", "revision": job.revision + 1, "finished_at": now(), "error": error}), job)

    def _change(self, new: Job, old: Job) -> None:
        event = Event(id=new_id("ev"), kind=f"job.{new.state}", actor="system:jobs", subject=new.id)
        self.studio.tables.commit(Changes(updates=[(new, old.revision)], events=[event]))
