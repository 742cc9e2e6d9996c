"""Whose key came with a request, judged by the routing table alone: no store, no control process."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from wenfang.core.errors import Denied, Unauthenticated
from wenfang.serve.routing import Principal, RoutedService, RoutingTable

from .exchange import Request

__all__ = ["CALL", "authenticate", "authorise"]

CALL = "service:call"


def authenticate(table: RoutingTable, request: Request) -> Principal:
    """The holder of the key in ``Authorization: Bearer`` or ``X-API-Key``.

    Raises:
        Unauthenticated: `auth.no-key`, `auth.bad-key`, `auth.key-expired`.

    Cost: one SHA-256 and one look-up, about 2 µs.
    """
    header = request.headers.get(b"authorization")
    key = header[7:].strip() if header is not None and header[:7].lower() == b"bearer " else request.headers.get(b"x-api-key", b"").strip()
    if not key:
        raise Unauthenticated("auth.no-key")
    principal = table.keys.get(hashlib.sha256(key).hexdigest())
    if principal is None:
        raise Unauthenticated("auth.bad-key")
    if principal.expires_at is not None and principal.expired():
        raise Unauthenticated("auth.key-expired", id=principal.id, expires_at=datetime.fromtimestamp(principal.expires_at, UTC).isoformat(timespec="seconds"))
    return principal


def authorise(principal: Principal | None, service: RoutedService) -> None:
    """Return if the principal may call the service.

    Raises:
        Denied: `auth.denied`.
    """
    if principal is None or not principal.may(CALL, service.project):
        raise Denied("auth.denied", actor=principal.id if principal else "nobody", permission=CALL)
