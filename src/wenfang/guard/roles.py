"""Who may do what: a role is a set of permissions, a permission is ``noun:verb``, and what is not given is denied.

A decision is a set look-up and a comparison, however many roles and keys there are. Knows nothing of keys, requests or records.
"""

from __future__ import annotations

from dataclasses import dataclass

from wenfang.core.errors import Denied, Invalid
from wenfang.core.registry import nearest

__all__ = ["LOCAL", "NOUNS", "PERMISSIONS", "ROLES", "VERBS", "Actor", "permissions_of", "require"]

NOUNS = (
    "project",
    "dataset",
    "label",
    "family",
    "model",
    "selection",
    "service",
    "rollout",
    "experiment",
    "monitor",
    "alert",
    "pipeline",
    "feed",
    "item",
    "behaviour",
    "user",
    "key",
    "role",
    "secret",
    "audit",
    "backup",
    "job",
    "event",
)
VERBS = ("read", "write", "admin")
PERMISSIONS = frozenset(f"{noun}:{verb}" for noun in NOUNS for verb in VERBS) | {"service:call"}
INSTALLATION = frozenset(("user", "key", "role", "secret", "audit", "backup", "event"))
"""Nouns that belong to the whole installation when no project is named: a key scoped to one project has no say there."""


def _grants(text: str) -> frozenset[str]:
    """``dataset:rw service:rwc`` spelled out; a noun with ``a`` has every verb."""
    granted: set[str] = set()
    for word in text.split():
        noun, _, letters = word.partition(":")
        for letter in letters:
            granted |= {f"{noun}:{verb}" for verb in {"r": ("read",), "w": ("write",), "a": VERBS, "c": ("call",)}[letter]}
    return frozenset(granted)


_WORK_READ = _grants(
    "project:r dataset:r label:r family:r model:r selection:r service:r rollout:r experiment:r monitor:r alert:r pipeline:r feed:r item:r behaviour:r job:r event:r role:r"
)

ROLES: dict[str, frozenset[str]] = {
    "admin": PERMISSIONS,
    "operator": _WORK_READ | _grants("service:ac rollout:a experiment:w monitor:a alert:a pipeline:w feed:w job:a backup:rw"),
    "engineer": _WORK_READ | _grants("dataset:a label:a model:a selection:a service:wc rollout:w experiment:w monitor:w alert:w pipeline:w feed:w item:w behaviour:w job:w"),
    "annotator": _grants("project:r dataset:r label:rw job:r"),
    "analyst": _WORK_READ | _grants("experiment:w service:c"),
    "auditor": _WORK_READ | _grants("audit:r user:r key:r backup:r"),
    "caller": _grants("service:c"),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking: an API key, or the operating-system user behind the Unix socket."""

    id: str
    name: str
    role: str
    permissions: frozenset[str]
    project: str | None = None
    """None: every project."""
    local: bool = False


LOCAL = Actor(id="local", name="local", role="admin", permissions=PERMISSIONS, project=None, local=True)
"""The operating-system user who can read ``keys/``; only the Unix socket and work in place make one."""


def permissions_of(role: str) -> frozenset[str]:
    """What ``role`` may do.

    Raises:
        Invalid: `auth.unknown-role`, with the nearest names.
    """
    if role not in ROLES:
        raise Invalid("auth.unknown-role", role=role[:40], near=nearest(role, list(ROLES)))
    return ROLES[role]


def require(actor: Actor, permission: str, project: str | None = None) -> None:
    """Return if ``actor`` has ``permission`` in ``project``; deny otherwise.

    Args:
        actor: who is asking.
        permission: ``noun:verb``.
        project: where; None if the request names none. An actor of one project then may work on nouns that live in
            projects, and the operation narrows what it sees to ``actor.project``; it has no say over the installation's own nouns.

    Raises:
        Denied: `auth.denied`.

    Cost: under a microsecond, whatever the number of roles and keys.
    """
    if permission in actor.permissions:
        if actor.project is None or actor.project == project:
            return
        if project is None and permission.partition(":")[0] not in INSTALLATION and permission not in {"project:write", "project:admin"}:
            return
    raise Denied("auth.denied", actor=actor.id, permission=permission)
