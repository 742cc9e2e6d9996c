"""From an API key to who is asking. Reads ``ApiKey`` records through the tables port; only digests are compared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from wenfang.core.errors import Unauthenticated
from wenfang.core.ids import now
from wenfang.core.ports import Tables
from wenfang.core.records import ApiKey

from .keys import digest
from .roles import ROLES, Actor

__all__ = ["Keyring", "actor_of"]


def _check(key: ApiKey, moment: datetime) -> None:
    if key.revoked_at is not None and key.revoked_at <= moment:
        raise Unauthenticated("auth.key-revoked", id=key.id)
    if key.expires_at is not None and key.expires_at <= moment:
        raise Unauthenticated("auth.key-expired", id=key.id, expires_at=key.expires_at.isoformat(timespec="seconds"))


def actor_of(key: ApiKey, at: datetime | None = None) -> Actor:
    """Who ``key`` stands for at a moment (now unless given), for work that was asked for earlier.

    A key that is revoked or expired by then, or whose role is not known here, has no permissions: what it asked for is refused and audited.
    """
    granted = ROLES.get(key.role, frozenset[str]())
    try:
        _check(key, at or now())
    except Unauthenticated:
        granted = frozenset[str]()
    return Actor(id=key.id, name=key.name, role=key.role, permissions=granted, project=key.project)


class Keyring:
    """Finds the actor behind an API key; looks into the tables each time, so a revoked key fails at once.

    Args:
        tables: where the ``ApiKey`` records are.
        clock: the present moment, UTC.
    """

    def __init__(self, tables: Tables, clock: Callable[[], datetime] = now) -> None:
        self._tables = tables
        self._clock = clock

    def authenticate(self, key: str) -> Actor:
        """The actor of an API key as it was sent.

        Raises:
            Unauthenticated: `auth.no-key`, `auth.bad-key`, `auth.key-revoked`, `auth.key-expired`.
        """
        if not key:
            raise Unauthenticated("auth.no-key")
        return self.by_digest(digest(key))

    def by_digest(self, key_digest: str) -> Actor:
        """The actor of a key of which only the digest is known."""
        found = self._tables.find(ApiKey, where={"digest": key_digest}, limit=1)
        if not found:
            raise Unauthenticated("auth.bad-key")
        moment = self._clock()
        _check(found[0], moment)
        return actor_of(found[0], moment)
