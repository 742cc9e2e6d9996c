"""Operations on the audit and the event log."""

from __future__ import annotations

from pydantic import Field

from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import AuditEntry, Event

from .app import Studio

__all__: list[str] = []


class Page(Request):
    """A page of a log."""

    after: int = Field(0, ge=0, description="sequence number of the last line already read")
    limit: int = Field(100, ge=1, le=1000)


class AuditPage(Answer):
    """Audit entries in order."""

    entries: list[AuditEntry]


class EventPage(Answer):
    """Events in order."""

    events: list[Event]


class VerifyAudit(Request):
    """Whether the audit is whole."""


class AuditVerdict(Answer):
    """What the check found."""

    ok: bool
    entries: int
    first_bad_seq: int | None
    head: str = Field(description="hash of the last entry: keep it elsewhere, a chain alone cannot show that its tail was cut")


@operation("audit.list", permission="audit:read", http="GET /api/v1/audit")
def list_audit(studio: Studio, request: Page) -> AuditPage:
    """Read the audit: who asked for what, and what came of it."""
    return AuditPage(entries=studio.tables.audit(request.after, request.limit))


@operation("audit.verify", permission="audit:read", http="GET /api/v1/audit/verify")
def verify_audit(studio: Studio, request: VerifyAudit) -> AuditVerdict:  # noqa: ARG001 every operation takes its request
    """Check the hash chain of the audit from its first entry to its last."""
    from wenfang.guard.audit import verify_tables

    report = verify_tables(studio.tables)
    return AuditVerdict(ok=report.ok, entries=report.entries, first_bad_seq=report.first_bad_seq, head=report.head)


@operation("event.list", permission="event:read", http="GET /api/v1/events")
def list_events(studio: Studio, request: Page) -> EventPage:
    """Read the events: what happened, in order."""
    return EventPage(events=studio.tables.events(request.after, request.limit))
