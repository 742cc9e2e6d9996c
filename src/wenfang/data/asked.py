"""Texts that a model shall be asked about: the rows of a file of any format, or of a dataset version, without labels. Nothing heavy is imported before a file is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wenfang.core.errors import Invalid
from wenfang.core.ports import Blobs
from wenfang.core.records import Task

from .version import iter_examples

if TYPE_CHECKING:
    from .columns import Batch, Fields
    from .readers.base import Reader

__all__ = ["TEXT_MAX", "Asked", "Row", "asked_of_file", "asked_of_version"]

TEXT_MAX = 1_000_000
"""Code points; a longer text is not asked about."""


class Row(NamedTuple):
    """One question."""

    number: int
    """From 1, in the order of the source."""
    id: str | None
    text: str
    text_b: str
    error: str = ""
    """Code of why it cannot be asked; a key of the catalogue."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A source of rows that has been read once and found whole."""

    sha256: str
    """Of the file's bytes, or the content hash of the dataset version."""
    total: int
    rows: Iterator[Row]
    fields: dict[str, str]
    """Column of the file by role."""
    guessed: dict[str, str] = field(default_factory=dict[str, str])
    """What nobody said and was found out."""


def asked_of_file(path: Path, task: Task, *, text: str | None = None, text_b: str | None = None, id: str | None = None) -> Asked:
    """The rows of a file in a format of ``readers``.

    Args:
        path: of the file.
        task: of the model that will be asked: ``matching`` wants two columns, ``chat`` takes conversations whole.
        text: column of the text; guessed unless given.
        text_b: column of the second text of pairs.
        id: column of what a row is called.

    Raises:
        Invalid: `dataset.…`, whatever is wrong with the file: it is read once from end to end before the first row is given.

    Cost: two passes over the file; memory bounded as for an import.
    """
    from .formats import open_reader
    from .guess import Named, guess_asked

    named = Named(text=text, text_b=text_b, id=id)
    reader, _ = open_reader(path, named.given())
    look, source = reader.look(), reader.source
    fields, guessed = guess_asked(look, file=source.name, named=named, task=task)
    told = {"format": reader.name, "encoding": source.encoding.removesuffix("-sig"), **look.said}
    guessed |= {k: told[k] for k in ("format", "encoding", "header", "separator", "joined") if told.get(k)}
    total = sum(len(batch.lines) + len(batch.bad) for batch in reader.read(fields))
    if not total:
        raise Invalid("dataset.no-rows", file=source.name)
    return Asked(source.sha256, total, _rows_of_file(_again(reader), fields), fields.by_role(), guessed)


def _again(reader: Reader) -> Reader:
    """A reader of the same source that has not been read."""
    fresh = type(reader)(reader.source, reader.wanted)
    fresh.look()
    return fresh


def _rows_of_file(reader: Reader, fields: Fields) -> Iterator[Row]:
    number = 0
    for batch in reader.read(fields):
        for line_row in _in_order(batch):
            number += 1
            yield _row(number, *line_row)
    reader.source.check_unchanged()


def _in_order(batch: Batch) -> Iterator[tuple[str | None, str | None, str | None, str]]:
    """(id, text, text_b or None, error) of the rows of a batch, those that the reader refused at their places."""
    n, there = len(batch.lines), batch.frame.columns
    columns: list[list[Any]] = [batch.frame[name].to_list() if name in there else [filler] * n for name, filler in (("id", None), ("text", None), ("text_b", ""))]
    good = zip(batch.lines.tolist(), *columns, [""] * n, strict=True)
    bad = ((line, None, None, "", f"reader.{reason}") for line, reason in batch.bad)
    for _, *row in merge(good, bad, key=lambda r: r[0]) if batch.bad else good:
        yield tuple(row)  # pyright: ignore[reportReturnType] four values


def _row(number: int, id: str | None, text: str | None, text_b: str | None, error: str = "") -> Row:
    if not error:
        if text is None or text_b is None or not text or text.isspace():
            error = "reader.empty-text"
        elif len(text) > TEXT_MAX or len(text_b) > TEXT_MAX:
            error = "service.text-too-long"
    return Row(number, id, "", "", error) if error else Row(number, id, text or "", text_b or "")


def asked_of_version(manifest: str, blobs: Blobs, *, content_hash: str, rows: dict[str, int], pairs: bool, split: str | None = None) -> Asked:
    """The examples of a dataset version, or of one split of it.

    Args:
        manifest: blob of the manifest.
        blobs: where it lies.
        content_hash: of the version.
        rows: examples by split.
        pairs: the second texts are asked about, too.
        split: None takes every split, in the manifest's order.

    Raises:
        Invalid: `batch.no-pairs`; and what ``iter_examples`` raises.

    Cost: memory holds one part of the version.
    """
    pieces = iter_examples(manifest, blobs, split)
    first = next(pieces, None)
    if pairs and first is not None and not first.texts_b:
        raise Invalid("batch.no-pairs")

    def told() -> Iterator[Row]:
        number = 0
        for piece in chain([first] if first is not None else [], pieces):
            texts_b = piece.texts_b if pairs else [""] * len(piece.texts)
            for id, text, text_b in zip(piece.ids or [None] * len(piece.texts), piece.texts, texts_b, strict=True):
                number += 1
                yield _row(number, id, text, text_b)

    return Asked(f"{content_hash}:{split or ''}", sum(n for name, n in rows.items() if split in {None, name}), told(), {})
