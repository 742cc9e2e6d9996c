"""Wenfang 文房: from an enterprise's text to a language model in production, in one program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .core.version import __version__

if TYPE_CHECKING:
    from .doors.client import connect
    from .doors.client import open_home as open  # noqa: A004 `wf.open` is the contract

__all__ = ["__version__", "connect", "open"]


def __getattr__(name: str) -> Any:
    """Load the doors only when somebody knocks: importing one room must not import the whole house."""
    if name in {"connect", "open"}:
        from .doors import client

        return client.connect if name == "connect" else client.open_home
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
