"""Operations on API keys. A key is shown once, when it is made; only its digest is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from wenfang.core.errors import Invalid
from wenfang.core.ids import new_id, now
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import ApiKey
from wenfang.guard.keys import digest, new_key

from .app import Studio
from .names import Name, check_project

__all__ = ["make_key"]

Role = Literal["admin", "operator", "engineer", "annotator", "analyst", "auditor", "caller"]


class CreateKey(Request):
    """A new API key."""

    name: Name = Field(json_schema_extra={"positional": True})
    role: Role = Field("caller", description="what the key may do")
    project: str | None = Field(None, description="only this project; every project unless given")
    expires_at: datetime | None = Field(None, description="UTC; never unless given")


class CreatedKey(Answer):
    """The only time the key is shown."""

    id: str
    key: str
    name: str
    role: str
    project: str | None
    expires_at: datetime | None


class ListKeys(Request):
    """Which keys there are."""


class KeyLine(Answer):
    """A key without its secret."""

    id: str
    name: str
    role: str
    project: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rate: dict[str, float] = Field(default_factory=dict, description="what its holder may ask each second")


class Keys(Answer):
    """Keys, newest first."""

    keys: list[KeyLine]


class RevokeKey(Request):
    """A key that shall not work any more."""

    id: str = Field(description="ky_…", json_schema_extra={"positional": True})


def make_key(*, name: str, role: str, project: str | None, expires_at: datetime | None = None, key: str | None = None) -> tuple[ApiKey, str]:
    """A key record and the key itself."""
    secret = key or new_key()
    return ApiKey(id=new_id("ky"), digest=digest(secret), name=name, role=role, project=project, expires_at=expires_at), secret


@operation("key.create", permission="key:admin", http="POST /api/v1/keys")
def create_key(studio: Studio, request: CreateKey) -> CreatedKey:
    """Make an API key; it is shown this once."""
    if request.project is not None:
        check_project(studio, request.project)
    if request.expires_at is not None and (request.expires_at.tzinfo is None or request.expires_at <= now()):
        raise Invalid("key.expired-at-birth", expires_at=request.expires_at.isoformat())
    record, secret = make_key(name=request.name, role=request.role, project=request.project, expires_at=request.expires_at)
    studio.put(record)
    studio.tell("key.created", record.id, role=record.role)
    return CreatedKey(id=record.id, key=secret, name=record.name, role=record.role, project=record.project, expires_at=record.expires_at)


@operation("key.list", permission="key:read", http="GET /api/v1/keys")
def list_keys(studio: Studio, request: ListKeys) -> Keys:  # noqa: ARG001 every operation takes its request
    """List API keys, without the keys themselves."""
    return Keys(keys=[KeyLine(**k.model_dump(include=set(KeyLine.model_fields))) for k in studio.find(ApiKey)])


@operation("key.revoke", permission="key:admin", http="POST /api/v1/keys/{id}/revoke")
def revoke_key(studio: Studio, request: RevokeKey) -> KeyLine:
    """Revoke an API key; when this returns, no gateway accepts it."""
    key = studio.get(ApiKey, request.id)
    if key.revoked_at is None:
        studio.update(key.model_copy(update={"revoked_at": now(), "revision": key.revision + 1}), key.revision)
        studio.tell("key.revoked", key.id)
        key = key.model_copy(update={"revoked_at": now()})
    return KeyLine(**key.model_dump(include=set(KeyLine.model_fields)))
