"""Parsed JSON objects → looks and batches: the common ground of jsonl, json and nested Parquet. Knows shapes, not files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from wenfang.core.text import has_surrogate

from .columns import Batch, Fields, Look, frame_of, int64
from .shapes import Unusable, label_of, spans_key, spans_of, string_of, tokens_of

__all__ = ["Objects", "batch_objects", "look_objects"]

Objects = Iterable[tuple[int, dict[str, Any]]]
"""(line, object)."""


def look_objects(objects: Objects, rows: int) -> Look:
    """Columns are the keys of the first ``rows`` objects, in order of appearance."""
    sample: dict[str, list[str]] = {}
    spans: dict[str, int] = {}
    for _, row in islice(objects, rows):
        for key, value in row.items():
            kept = sample.setdefault(key, [])
            if text := "".join(tokens_of(row, key) or ()) or string_of(value):
                kept.append(text)
        if key := spans_key(row):
            spans[key] = spans.get(key, 0) + 1
    return Look(list(sample), sample, spans=max(spans, key=lambda k: spans[k]) if spans else None)


def batch_objects(objects: Objects, fields: Fields, rows: int) -> Iterator[Batch]:
    """The wanted fields of all objects, ``rows`` in a batch."""
    stream = iter(objects)
    roles = fields.by_role()
    while chunk := list(islice(stream, rows)):
        columns: dict[str, list[Any]] = {"spans" if role == "label" and fields.spans else role: [] for role in roles}
        lines: list[int] = []
        bad: list[tuple[int, str]] = []
        repaired = 0
        for line, row in chunk:
            try:
                values, mended = _values(row, fields, roles)
            except Unusable as e:
                bad.append((line, str(e)))
                continue
            for name, value in values.items():
                columns[name].append(value)
            lines.append(line)
            repaired += mended
        yield Batch(frame_of(columns), int64(lines), bad, repaired)


def _values(row: dict[str, Any], fields: Fields, roles: dict[str, str]) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    mended = 0
    if fields.spans and fields.label is not None:
        values["text"], values["spans"], mended = spans_of(row, fields.text, fields.label)
    else:
        values["text"] = string_of(row.get(fields.text))
        if fields.label is not None:
            values["label"] = label_of(row.get(fields.label))
    for role in ("id", "group"):
        if role in roles:
            values[role] = string_of(row.get(roles[role]))
    if any(isinstance(v, str) and has_surrogate(v) for v in values.values()):
        raise Unusable("lone-surrogate")
    return values, mended
