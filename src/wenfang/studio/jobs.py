"""Operations on jobs: long work in processes of its own."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from wenfang.core.errors import Conflict
from wenfang.core.ids import now
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import Job

from .app import Studio
from .names import ProjectName

__all__: list[str] = []


class ListJobs(Request):
    """Which jobs there are."""

    project: ProjectName = "default"
    state: str | None = Field(None, description="queued, running, done, failed or cancelled")
    limit: int = Field(100, ge=1, le=1000)


class Jobs(Answer):
    """Jobs, newest first."""

    jobs: list[Job]


class OneJob(Request):
    """One job."""

    id: str = Field(description="jb_…", json_schema_extra={"positional": True})


class ShownJob(Answer):
    """A job and how far it is."""

    job: Job
    progress: dict[str, Any] = Field(default_factory=dict, description="stage, done, total, rate, left_s, figures, notes")


class JobLog(Answer):
    """The last lines a job has written."""

    lines: list[str]


@operation("job.list", permission="job:read", http="GET /api/v1/jobs")
def list_jobs(studio: Studio, request: ListJobs) -> Jobs:
    """List jobs."""
    where = {"state": request.state} if request.state else {}
    return Jobs(jobs=studio.find(Job, project=request.project, limit=request.limit, **where))


@operation("job.show", permission="job:read", http="GET /api/v1/jobs/{id}")
def show_job(studio: Studio, request: OneJob) -> ShownJob:
    """Show a job and how far it is."""
    job = studio.get(Job, request.id)
    path = studio.home.jobs / job.id / "progress.json"
    return ShownJob(job=job, progress=json.loads(path.read_bytes()) if path.is_file() else {})


@operation("job.log", permission="job:read", http="GET /api/v1/jobs/{id}/log")
def read_log(studio: Studio, request: OneJob) -> JobLog:
    """Read the last 500 lines of a job's log."""
    job = studio.get(Job, request.id)
    path = studio.home.logs / f"job-{job.id}.log"
    return JobLog(lines=path.read_text(encoding="utf-8", errors="replace").splitlines()[-500:] if path.is_file() else [])


@operation("job.cancel", permission="job:write", http="POST /api/v1/jobs/{id}/cancel")
def cancel_job(studio: Studio, request: OneJob) -> Job:
    """Cancel a job; what it was about to write is not written."""
    job = studio.get(Job, request.id)
    if job.state in {"done", "failed", "cancelled"}:
        raise Conflict("job.over", id=job.id, state=job.state)
    cancelled = job.model_copy(update={"state": "cancelled", "revision": job.revision + 1, "finished_at": now()})
    studio.update(cancelled, job.revision)
    studio.tell("job.cancelled", job.id)
    return cancelled
