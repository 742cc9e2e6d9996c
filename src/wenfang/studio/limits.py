"""How much a key, a service or a project may ask. Gateways hold the limits from the moment the operation returns."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wenfang.core.errors import NotFound
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import ApiKey, Project
from wenfang.core.registry import nearest

from .app import Studio
from .services import find_service

__all__ = ["Limited"]

MAX = 1e9


class Limits(Request):
    """What may be asked each second; a limit that is not given is lifted."""

    requests_per_s: float | None = Field(None, gt=0, le=MAX, description="requests")
    texts_per_s: float | None = Field(None, gt=0, le=MAX, description="texts in them")
    tokens_per_s: float | None = Field(None, gt=0, le=MAX, description="tokens read and written, where a family counts them; paid afterwards")

    def rate(self) -> dict[str, float]:
        """The limits that are given."""
        found = {"requests_per_s": self.requests_per_s, "texts_per_s": self.texts_per_s, "tokens_per_s": self.tokens_per_s}
        return {name: value for name, value in found.items() if value is not None}


class LimitKey(Limits):
    """A key and what it may ask."""

    id: str = Field(description="ky_…", json_schema_extra={"positional": True})


class LimitService(Limits):
    """A service and what all its callers together may ask."""

    service: str = Field(json_schema_extra={"positional": True})


class LimitProject(Limits):
    """A project and what all callers of its services together may ask."""

    project: str = Field(json_schema_extra={"positional": True})


class Limited(Answer):
    """The limits that hold now."""

    id: str
    name: str
    rate: dict[str, float]


def _limit(studio: Studio, record: Any, rate: dict[str, float]) -> Limited:
    if record.rate != rate:
        studio.update(record.model_copy(update={"rate": rate, "revision": record.revision + 1}), record.revision)
        studio.tell(f"{type(record).__name__.lower()}.limited", record.id, **rate)
    return Limited(id=record.id, name=record.name, rate=rate)


@operation("key.limit", permission="key:admin", http="POST /api/v1/keys/{id}/limit")
def limit_key(studio: Studio, request: LimitKey) -> Limited:
    """Say how much the holder of a key may ask; without numbers, lift its limits."""
    return _limit(studio, studio.get(ApiKey, request.id), request.rate())


@operation("service.limit", permission="service:write", http="POST /api/v1/services/{service}/limit")
def limit_service(studio: Studio, request: LimitService) -> Limited:
    """Say how much all callers of a service together may ask; without numbers, lift its limits."""
    return _limit(studio, find_service(studio, request.service), request.rate())


@operation("project.limit", permission="project:admin", http="POST /api/v1/projects/{project}/limit")
def limit_project(studio: Studio, request: LimitProject) -> Limited:
    """Say how much all callers of a project's services together may ask; without numbers, lift its limits."""
    found = studio.tables.find(Project, where={"name": request.project}, limit=1)
    if not found or not studio.may_see(request.project):
        known = [p.name for p in studio.tables.find(Project) if studio.may_see(p.name)]
        raise NotFound("record.not-found", kind="Project", name=request.project, near=nearest(request.project, known) if known else "—")
    return _limit(studio, found[0], request.rate())
