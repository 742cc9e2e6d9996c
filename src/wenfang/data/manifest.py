"""The manifest of a dataset version: which blobs hold its splits, and what they were made from. Written once, never changed."""

from __future__ import annotations

import math
from typing import Any

import orjson

from wenfang.core.errors import Broken, Invalid
from wenfang.core.ports import Blobs

from .imported import Imported
from .intake import Split
from .parts import content_hash

__all__ = ["FORMAT", "grade_scale", "keep_version", "read_manifest"]

FORMAT = 1
GRADED_FROM = 5
"""So many different numbers as labels of pairs are grades."""
SCALES = (1.0, 5.0, 10.0, 100.0)
Scale = tuple[float, float]


def grade_scale(splits: list[Split], graded: bool | None) -> Scale | None:
    """(lowest, highest) grade of pairs; None: their labels are classes.

    Args:
        splits: of the version.
        graded: what the caller said.

    Raises:
        Invalid: `dataset.grades-wanted`: grades were asked for and a label is no number, or they are all one.
    """
    if splits[0].task not in {"matching", "embedding"} or graded is False:
        return None
    labels = {label for s in splits for label in s.tally.labels}
    numbers = [_number(label) for label in labels]
    known = [n for n in numbers if n is not None]
    if len(known) < len(numbers) or len(set(known)) < 2:
        if graded:
            raise Invalid("dataset.grades-wanted", found=sorted(labels)[:10])
        return None
    if graded is None and len(set(known)) < GRADED_FROM and all(n.is_integer() for n in known):
        return None
    low, high = min(0.0, *known), max(known)
    return low, next((s for s in SCALES if high <= s), high)


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def keep_version(
    splits: list[Split], card: dict[str, Any], warnings: list[tuple[str, dict[str, Any]]], guessed: dict[str, str], blobs: Blobs, *, scale: Scale | None = None
) -> Imported:
    """Put the manifest and the card of ``splits`` into ``blobs``; the version stands when this returns."""
    task = splits[0].task
    labels = [] if scale else sorted({label for s in splits for label in s.tally.labels})
    whole = content_hash(task, {s.name: s.digests for s in splits})
    manifest: dict[str, Any] = {"format": FORMAT, "task": task, "labels": labels, "content_hash": whole, "splits": {}}
    if scale:
        manifest["grade_scale"] = list(scale)
    for s in splits:
        manifest["splits"][s.name] = {
            "rows": s.tally.rows, "columns": s.columns, "parts": s.parts, "digests": s.digests, "source": s.source,
            "quarantine": {"rows": sum(s.quarantined.values()), "blob": s.quarantine_blob},
        }  # fmt: skip
    card_blob = blobs.put(orjson.dumps(card))
    name = blobs.put(orjson.dumps(manifest))
    return Imported(name, whole, card_blob, task, labels, {s.name: s.tally.rows for s in splits}, card, warnings, guessed)


def read_manifest(manifest: str, blobs: Blobs) -> dict[str, Any]:
    """The manifest in the blob ``manifest``, whose bytes the blobs check against their name.

    Raises:
        NotFound: `blob.missing`.
        Broken: `blob.damaged`, `dataset.manifest-unknown`.
    """
    try:
        document = orjson.loads(blobs.get(manifest))
    except orjson.JSONDecodeError as e:
        raise Broken("dataset.manifest-unknown", blob=manifest) from e
    if not isinstance(document, dict) or document.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
        raise Broken("dataset.manifest-unknown", blob=manifest)
    return document  # pyright: ignore[reportUnknownVariableType]
