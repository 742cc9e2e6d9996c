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


def actor_of(key: ApiKey, at: datetime | None = None) -> Actor:
    """Who ``key`` stands for at a moment (now unless given). A role that is not known here has no permissions.

    Raises:
        Unauthenticated: `auth.key-revoked`, `auth.key-expired`.
    """
    moment = at or now()
    if key.revoked_at is not None and key.revoked_at <= moment:
        raise Unauthenticated("auth.key-revoked", id=key.id)
    if key.expires_at is not None and key.expires_at <= moment:
        raise Unauthenticated("auth.key-expired", id=key.id, expires_at=key.expires_at.isoformat(timespec="seconds"))
    return Actor(id=key.id, name=key.name, role=key.role, permissions=ROLES.get(key.role, frozenset()), project=key.project)


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
            Unauthenticated: `auth.bad-key`, `auth.key-revoked`, `auth.key-expired`.
        """
        return self.by_digest(digest(key))

    def by_digest(self, key_digest: str) -> Actor:
        """The actor of a key of which only the digest is known."""
        found = self._tables.find(ApiKey, where={"digest": key_digest}, limit=1)
        if not found:
            raise Unauthenticated("auth.bad-key")
        return actor_of(found[0], self._clock())
