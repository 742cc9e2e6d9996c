"""What a deploy changes for those who call the service: refused where it would break them, told where it is merely new. No operations."""

from __future__ import annotations

from wenfang.core.errors import Conflict
from wenfang.core.records import Service
from wenfang.serve.compatibility import Changes, changes_between
from wenfang.serve.interface import interface_with

from .app import Studio
from .targets import Target, target_of

__all__ = ["changes_for_callers", "told_or_refused"]


def changes_for_callers(studio: Studio, service: Service, version: Target) -> Changes:
    """What callers of ``service`` meet when ``version`` answers instead of the present one."""
    pointer = studio.tables.pointer("service", service.id)
    present = target_of(studio.tables, pointer.target) if pointer else None
    if present is None or present.id == version.id:
        return Changes()
    return changes_between(interface_with(service.name, present), interface_with(service.name, version), present.labels, version.labels)


def told_or_refused(studio: Studio, service: Service, version: Target, *, allow_breaking: bool) -> Changes:
    """What changes for callers, where that is allowed.

    Raises:
        Conflict: `service.breaks-callers`.
    """
    changes = changes_for_callers(studio, service, version)
    if changes.breaking and not allow_breaking:
        breaks = [{"key": key, "fields": fields} for key, fields in changes.breaking]
        raise Conflict("service.breaks-callers", service=service.name, model=f"{version.name}:{version.number}", breaks=breaks, errors=breaks)
    return changes
