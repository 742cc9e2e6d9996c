"""The studio: what it holds, who is asking, and the one way an operation is run. Every door ends in ``Studio.run``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from wenfang.core.errors import Broken, Denied, NotFound, WenfangError
from wenfang.core.home import Home
from wenfang.core.ids import new_id, now
from wenfang.core.operation import Operation
from wenfang.core.ports import Blobs, Cancelled, Changes, MeasuringHost, Progress, Quiet, ReplicaHost, Runtime, Signer, Tables, Verifier, Workers
from wenfang.core.records import AuditEntry, Event, Job, ModelVersion, Pointer, Record, Service
from wenfang.core.registry import nearest
from wenfang.core.settings import Settings
from wenfang.guard.roles import Actor, require

__all__ = ["Studio"]

R = TypeVar("R", bound=Record)
log = logging.getLogger("wenfang.studio")


@dataclass
class Studio:
    """Everything an operation may touch. Built by ``wiring``; each run of an operation works on a copy with its own changes."""

    home: Home
    settings: Settings
    tables: Tables
    blobs: Blobs
    signer: Signer
    verifier: Verifier
    host: ReplicaHost
    measuring: MeasuringHost | None = None
    """Starts replicas and a gateway that are only measured; None where no processes are started."""
    workers: Workers | None = None
    """None: whatever could be done in a process of its own is done in this one."""
    runtime: Runtime | None = None
    """None while no process tree runs: work is done in place."""
    settle: Callable[[], None] | None = None
    """Makes the process tree and the routing table follow the records; returns when they do."""
    roll: Callable[[Service, ModelVersion, Sequence[str]], Callable[[], None]] | None = None
    """Changes the replicas of a service one by one and returns what must be called once the records say so, or will not; only where the routing table is written."""
    actor: Actor | None = None
    progress: Progress = field(default_factory=Quiet)
    changes: Changes = field(default_factory=Changes)
    remains: list[Record] = field(default_factory=list[Record])
    """Records that are written if the operation fails."""
    afterwards: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    """Called when the operation has ended, written or not."""
    request_id: str = ""
    job: Job | None = None

    def run(self, op: Operation, actor: Actor, request: BaseModel, *, progress: Progress | None = None, request_id: str = "", job: Job | None = None) -> Any:
        """Permission → work (no transaction held) → one short transaction with records, events and the audit entry.

        Raises:
            Denied: `auth.denied`; the refusal has its own audit entry.
            WenfangError: whatever the operation raises; the failure has its own audit entry.
            Broken: `operation.failed` for anything unforeseen; the log holds the trace under the request id.
        """
        request_id = request_id or new_id("rq")
        desk = replace(self, actor=actor, changes=Changes(), remains=[], afterwards=[], progress=progress or Quiet(), request_id=request_id, job=job)
        try:
            require(actor, op.permission, project=getattr(request, "project", None))
            answer = op.run(desk, request)
            desk.record("done", op, subject=_subject(request, answer))
            if job is not None:
                done = job.model_copy(update={"state": "done", "revision": job.revision + 1, "finished_at": now(), "answer": answer.model_dump(mode="json")})
                desk.changes.updates.append((done, job.revision))
            self.tables.commit(desk.changes)
        except (WenfangError, Cancelled) as e:
            self._record_failure(op, desk, e, _subject(request, None))
            raise
        except Exception as e:
            log.exception("%s failed, request %s", op.name, request_id)
            self._record_failure(op, desk, e, _subject(request, None))
            raise Broken("operation.failed", operation=op.name, request_id=request_id, kind=type(e).__name__) from e
        finally:
            for work in desk.afterwards:
                try:
                    work()
                except (WenfangError, OSError):
                    log.exception("after %s, request %s", op.name, request_id)
        if self.settle is not None and _touches_serving(desk.changes):
            self.settle()
        return answer

    def record(self, outcome: Literal["done", "refused", "failed"], op: Operation, *, subject: str, code: str = "") -> None:
        """Add an audit entry to this run's changes."""
        entry = AuditEntry(seq=0, at=now(), actor=self.actor_name, operation=op.name, subject=subject, outcome=outcome, code=code, request_id=self.request_id)
        self.changes.audit.append(entry)

    def _record_failure(self, op: Operation, desk: Studio, e: BaseException, subject: str) -> None:
        failed = replace(desk, changes=Changes(puts=list(desk.remains)))
        failed.record("refused" if isinstance(e, Denied) else "failed", op, subject=subject, code=getattr(e, "code", type(e).__name__))
        self.tables.commit(failed.changes)

    # ------------------------------------------------------------ what operations use
    @property
    def actor_name(self) -> str:
        """Id of who is asking."""
        return self.actor.id if self.actor else "nobody"

    def put(self, record: Record) -> None:
        """Have a new record written when the operation ends."""
        self.changes.puts.append(record)

    def leave(self, *records: Record) -> None:
        """Have records written should the operation fail, so that what was done can be looked at."""
        self.remains.extend(records)

    def update(self, record: Record, revision: int) -> None:
        """Have a record replaced, if it still is at ``revision``."""
        self.changes.updates.append((record, revision))

    def point(self, kind: str, key: str, target: str) -> None:
        """Have ``key`` stand for ``target`` from now on."""
        self.changes.pointers.append(Pointer(kind=kind, key=key, target=target, actor=self.actor_name))

    def tell(self, kind: str, subject: str, **data: Any) -> None:
        """Have an event written with the records."""
        self.changes.events.append(Event(id=new_id("ev"), kind=kind, actor=self.actor_name, subject=subject, data=data))

    def may_see(self, project: str | None) -> bool:
        """Whether the actor's scope covers ``project``."""
        return self.actor is None or self.actor.project is None or self.actor.project == project

    def get(self, kind: type[R], id: str) -> R:
        """The record, if it exists in a project the actor may see.

        Raises:
            NotFound: `record.not-found`; a record of another project looks the same as none.
        """
        found = self.tables.get(kind, id)
        if found is None or not self.may_see(getattr(found, "project", None)):
            raise NotFound("record.not-found", kind=kind.__name__, name=id, near=nearest(id, [r.id for r in self.find(kind, limit=100)]) or "—")
        return found

    def named(self, kind: type[R], project: str, name: str) -> R | None:
        """The newest record of that name in ``project``."""
        found = self.tables.find(kind, where={"project": project, "name": name}, newest_first=True, limit=1)
        return found[0] if found else None

    def find(self, kind: type[R], *, limit: int = 1000, **where: Any) -> list[R]:
        """Records the actor may see, newest first."""
        if self.actor is not None and self.actor.project is not None:
            if "project" not in kind.indexed:
                return []
            where["project"] = self.actor.project
        return self.tables.find(kind, where=where, newest_first=True, limit=limit)


def _subject(request: BaseModel, answer: BaseModel | None) -> str:
    for source in (answer, request):
        for name in ("id", "model_version", "service", "name", "dataset_version", "job", "train"):
            value = getattr(source, name, None)
            if isinstance(value, str) and value:
                return value[:200]
    return ""


def _touches_serving(changes: Changes) -> bool:
    kinds = {type(r).__name__ for r in changes.puts} | {type(r).__name__ for r, _ in changes.updates}
    return bool(changes.pointers) or bool(kinds & {"Service", "ApiKey", "Project", "QueueBinding"})
