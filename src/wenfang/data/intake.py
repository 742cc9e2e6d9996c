"""One file becomes one split: its rows are checked, the usable ones counted and kept, the others put in quarantine with a reason.

Knows readers through ``formats`` and storage through ``parts``; the sentences for people are made elsewhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from wenfang.core.errors import Invalid
from wenfang.core.ports import Blobs, Progress
from wenfang.core.records import Task

from .columns import ANSWER, Batch, Fields
from .formats import open_reader
from .guess import Named, guess_fields
from .parts import PartWriter
from .readers.base import Reader
from .shapes import split_labels
from .tally import Tally

__all__ = ["Split", "Wish", "take_file"]

QUARANTINE_MAX = 1000
"""Rows listed one by one; more are only counted."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asked for; None: to be guessed."""

    named: Named = field(default_factory=Named)
    task: Task | None = None
    long_at: int = 100_000
    earlier: Fields | None = None
    """Columns of the file before, if this one has them."""


@dataclass(slots=True)
class Split:
    """One split as it stands after its file was read."""

    name: str
    task: Task
    source: dict[str, Any]
    """What the file was: name, format, encoding, hash, decisions of its reader."""
    guessed: dict[str, str]
    tally: Tally
    suffix_differs: bool
    repaired: int = 0
    quarantined: Counter[str] = field(default_factory=Counter[str])
    quarantine: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    quarantine_blob: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    digests: dict[str, Any] = field(default_factory=dict[str, Any])
    columns: list[str] = field(default_factory=list[str])
    fields: Fields | None = None
    graded: bool = False
    """Its labels are grades from 0 to 1 already."""


def take_file(name: str, path: Path, wish: Wish, *, blobs: Blobs, progress: Progress) -> Split:
    """Read ``path`` as the split ``name``.

    Raises:
        Invalid: what readers and guesses raise; `dataset.no-usable-row`, `dataset.duplicate-id`.

    Cost: about 1.5 CPU-s for 200,000 titles; memory bounded by blocks of 8 MiB and 12 bytes a row.
    """
    reader, differs = open_reader(path, wish.named.given())
    look = reader.look()
    source = reader.source
    fields, task, guessed = guess_fields(look, file=source.name, named=wish.named, task=wish.task, earlier=wish.earlier)
    told: dict[str, Any] = {
        "file": source.name,
        "format": reader.name,
        "encoding": source.encoding.removesuffix("-sig"),
        "bom": bool(source.skip_bytes),
        "size_bytes": source.size_bytes,
    }
    told |= {"sha256": source.sha256, "columns": fields.by_role(), **look.said}
    split = Split(name, task, told, guessed, Tally(wish.long_at), differs, fields=fields)
    there = set(fields.names())
    hashed = tuple(c for c in ("id", "text", "text_b", "spans", "label", "target", "group", "weight") if c in there)
    writer = PartWriter(blobs, hashed)
    progress.stage("import", total=source.newlines or None, unit="rows")
    for batch in _told(reader, fields, progress):
        split.repaired += batch.repaired
        _refuse(split, batch.bad)
        frame, lines = _usable(split, batch)
        if frame.height:
            split.tally.add(frame, lines)
            writer.add(frame.with_columns(pl.Series("line", lines)))
    source.check_unchanged()
    if not split.tally.rows:
        _nothing(split)
    if (pair := split.tally.first_same_id()) is not None:
        raise Invalid("dataset.duplicate-id", file=source.name, line=pair[0], again_line=pair[1], column=wish.named.id)
    split.digests = writer.finish()
    split.parts = writer.parts
    split.columns = [*hashed, "line"]
    if split.quarantined:
        rows = [{"line": line, "reason": reason} for line, reason in split.quarantine]
        split.quarantine_blob = blobs.put(orjson.dumps({"file": source.name, "reasons": dict(sorted(split.quarantined.items())), "rows": rows}))
    return split


def _told(reader: Reader, fields: Fields, progress: Progress) -> Any:
    """The batches of ``reader``, telling how far it is."""
    line = 0
    for batch in reader.read(fields):
        yield batch
        last = int(batch.lines[-1]) if len(batch.lines) else line
        progress.advance(last - line)
        line = last


def _refuse(split: Split, rows: list[tuple[int, str]]) -> None:
    split.quarantined.update(reason for _, reason in rows)
    split.quarantine.extend(rows[: max(0, QUARANTINE_MAX - len(split.quarantine))])


def _usable(split: Split, batch: Batch) -> tuple[pl.DataFrame, Any]:
    """The rows of ``batch`` that can be used; the others go to quarantine."""
    frame = batch.frame
    names = frame.columns
    text = pl.col("text")
    answer, many = ANSWER[split.task], split.task == "multilabel"
    if "label" in names:
        frame = frame.with_columns(pl.col("label").map_elements(split_labels, return_dtype=pl.String) if many else pl.col("label").str.strip_chars())
    if "group" in names:
        frame = frame.with_columns(pl.col("group").fill_null(""))
    reason = pl.when(text.is_null() | (text.str.strip_chars() == "")).then(pl.lit("empty-text"))
    if "text_b" in names:
        reason = reason.when(pl.col("text_b").is_null() | (pl.col("text_b").str.strip_chars() == "")).then(pl.lit("empty-text"))
    if answer in names:
        empty = pl.col(answer).is_null() if many or answer == "spans" else pl.col(answer).is_null() | (pl.col(answer).str.strip_chars() == "")
        reason = reason.when(empty).then(pl.lit("missing-target" if answer == "target" else "missing-label"))
    if "weight" in names:
        weight = pl.col("weight").cast(pl.Float64, strict=False)
        reason = reason.when(weight.is_null() | ~weight.is_finite() | (weight <= 0)).then(pl.lit("bad-weight"))
    if "id" in names:
        reason = reason.when(pl.col("id").is_null() | (pl.col("id") == "")).then(pl.lit("missing-id"))
    for name in ("text", "text_b", "label", "target", "id", "group"):
        if name in names:
            reason = reason.when(pl.col(name).str.contains("\0", literal=True)).then(pl.lit("nul-character"))
    reasons = frame.select(reason.otherwise(None).alias("r"))["r"]
    bad = reasons.is_not_null().to_numpy()
    if not bad.any():
        return frame, batch.lines
    at = np.flatnonzero(bad)
    split.quarantined.update(reasons.gather(at).to_list())
    at = at[: max(0, QUARANTINE_MAX - len(split.quarantine))]
    split.quarantine.extend(zip(batch.lines[at].tolist(), reasons.gather(at).to_list(), strict=True))
    return frame.filter(reasons.is_null()), batch.lines[~bad]


def _nothing(split: Split) -> None:
    """Why no row could be used."""
    file = split.source["file"]
    if not split.quarantined:
        raise Invalid("dataset.no-rows", file=file)
    reasons = [f"{reason}: {n}" for reason, n in split.quarantined.most_common()]
    raise Invalid("dataset.no-usable-row", file=file, rows=sum(split.quarantined.values()), reasons=reasons, line=split.quarantine[0][0])
