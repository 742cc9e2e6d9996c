"""The operation that shows why a service has as many replicas as it has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from wenfang.core.operation import Answer, Request, operation
from wenfang.core.words import say

from .app import Studio
from .decisions import DecisionLog
from .services import find_service

__all__: list[str] = []


class ListDecisions(Request):
    """Which service."""

    service: str = Field(json_schema_extra={"positional": True})
    limit: int = Field(50, ge=1, le=1000, description="of the latest")
    lang: Literal["zh", "en"] | None = Field(None, description="the surroundings' unless given")


class ShownDecision(Answer):
    """One step, or why there was none."""

    at: datetime
    present: int
    wanted: int
    why: str
    reason: str = Field(description="key of the catalogue, without `scaling.`")
    figures: dict[str, Any]


class Decisions(Answer):
    """Newest first."""

    decisions: list[ShownDecision]


@operation("service.decisions", permission="service:read", http="GET /api/v1/services/{service}/decisions")
def list_decisions(studio: Studio, request: ListDecisions) -> Decisions:
    """Say when and why the number of a service's replicas changed, or did not though the load would have had it."""
    service = find_service(studio, request.service)
    lines = DecisionLog(studio.home).lines(service.id, request.limit)
    return Decisions(
        decisions=[
            ShownDecision(
                at=datetime.fromtimestamp(line.at, UTC),
                present=line.present,
                wanted=line.wanted,
                why=say(f"scaling.{line.reason}", request.lang, **line.figures),
                reason=line.reason,
                figures=line.figures,
            )
            for line in lines
        ]
    )
