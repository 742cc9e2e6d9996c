"""The user's file of checks, found and read: what a selection looks at beside the score."""

from __future__ import annotations

from typing import Any

from wenfang.core.errors import Invalid

from .app import Studio
from .names import local_path

__all__ = ["checks_of"]

LARGEST_BYTES = 1 << 20


def checks_of(studio: Studio, reference: str | None) -> Any:
    """The checks of a file (a path, or ``upload:up_…``); those that come with Wenfang without one.

    Raises:
        Invalid: `checks.not-toml` and what ``read_checks`` raises; and what ``local_path`` raises.
    """
    from wenfang.select.checks import Checks, read_checks

    if reference is None:
        return Checks()
    path = local_path(studio, reference, studio.home.jobs / "uploads")
    if path.stat().st_size > LARGEST_BYTES:
        raise Invalid("checks.not-toml", reason=f"over {LARGEST_BYTES} bytes")
    try:
        return read_checks(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as e:
        raise Invalid("checks.not-toml", reason=f"not UTF-8 at byte {e.start}") from None
