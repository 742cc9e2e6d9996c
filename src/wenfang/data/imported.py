"""What an import gives back. Knows nothing of how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wenfang.core.records import Task

__all__ = ["LABELS", "LONG_AT", "Imported"]

LABELS = "\x1f"
"""Stands between the labels of one text where they share a column."""

LONG_AT = 100_000
"""Code points; longer texts are kept, but told."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A dataset version that stands in the blobs."""

    manifest: str
    """Blob of the manifest."""
    content_hash: str
    """Of the examples in order, independent of how they are stored."""
    card: str
    """Blob of the data card."""
    task: Task
    labels: list[str]
    rows: dict[str, int]
    """Usable rows by split."""
    card_document: dict[str, Any]
    warnings: list[tuple[str, dict[str, Any]]]
    """Keys of the catalogue with their fields."""
    guessed: dict[str, str]
    """What nobody said and was found out: task, text, label, format, encoding, header."""
