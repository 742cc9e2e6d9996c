"""The manifest of a dataset version: which blobs hold its splits, and what they were made from. Written once, never changed."""

from __future__ import annotations

from typing import Any

import orjson

from wenfang.core.errors import Broken
from wenfang.core.ports import Blobs

from .imported import Imported
from .intake import Split
from .parts import content_hash

__all__ = ["FORMAT", "keep_version", "read_manifest"]

FORMAT = 1


def keep_version(splits: list[Split], card: dict[str, Any], warnings: list[tuple[str, dict[str, Any]]], guessed: dict[str, str], blobs: Blobs) -> Imported:
    """Put the manifest and the card of ``splits`` into ``blobs``; the version stands when this returns."""
    task = splits[0].task
    labels = sorted({label for s in splits for label in s.tally.labels})
    whole = content_hash(task, {s.name: s.digests for s in splits})
    manifest: dict[str, Any] = {"format": FORMAT, "task": task, "labels": labels, "content_hash": whole, "splits": {}}
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
