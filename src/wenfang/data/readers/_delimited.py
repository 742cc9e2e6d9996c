"""Rows of fields with a separator between them: the common ground of csv, tsv and plain.

The fast path hands blocks of whole records to Polars. A block whose quotes are not where RFC 4180 wants them, or whose records have
more fields than the header, sends the rest of the file down the slow path: Python's csv module, which knows its line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wenfang.core.errors import Invalid
from wenfang.data.columns import Batch, Fields, Look, int64
from wenfang.data.guess import looks_like_header
from wenfang.data.source import HEAD_BYTES, Source

from .base import ROWS, SAMPLE_ROWS, Reader

__all__ = ["Delimited"]

FIELD_MAX = 16 << 20
"""Code points of one field on the slow path; an unclosed quote would otherwise swallow the file."""
Block = tuple[int, bytes]
_FEED, _RETURN, _QUOTE = 10, 13, 34


class Delimited(Reader):
    """Common ground of the separated formats; a format says its separator and whether quotes mean something."""

    may_have_header: ClassVar[bool] = True

    def __init__(self, source: Source, wanted: Sequence[str] = ()) -> None:
        super().__init__(source, wanted)
        self._separator = "\t"
        self._quoted = False
        self._header = False
        self._columns: list[str] = []

    def dialect(self, head: str) -> tuple[str, bool]:
        """(separator, whether quotes have a meaning) for a file that begins with ``head``."""
        raise Invalid("dataset.malformed", file=self.source.name, line=1, reason=f"no dialect for {len(head)} characters")

    def look(self) -> Look:
        """Find separator, quoting and header in the first rows."""
        head = self.source.head()
        self._separator, self._quoted = self.dialect(head.decode("utf-8"))
        rows = [cells for _, cells in islice(self._records(iter([(1, head)]), strict=self.source.size_bytes < HEAD_BYTES), SAMPLE_ROWS)]
        width = max((len(cells) for cells in rows), default=1)
        self._header = self.may_have_header and bool(rows) and looks_like_header(rows, self.wanted)
        names = [cell.strip() or f"column_{i + 1}" for i, cell in enumerate(rows[0])] if self._header else [f"column_{i + 1}" for i in range(width)]
        if len(set(names)) < len(names):
            raise Invalid("dataset.column-twice", file=self.source.name, columns=sorted({n for n in names if names.count(n) > 1}))
        self._columns = names
        body = rows[1:] if self._header else rows
        sample = {name: [cells[i] for cells in body if i < len(cells) and cells[i]] for i, name in enumerate(names)}
        said = {"header": "yes" if self._header else "no", "separator": {"\t": "tab", " ": "space"}.get(self._separator, self._separator)}
        return Look(names, sample, named=self._header, said=said)

    def read(self, fields: Fields) -> Iterator[Batch]:
        """All rows: Polars while the blocks are well formed, Python's csv module from the first that is not."""
        skip = self._header
        blocks = self.source.line_blocks()
        for line, block in (fast := _Fast(blocks, self._separator, len(self._columns), quoted=self._quoted)):
            frame, lines = fast.parse(line, block)
            if frame is None:
                continue
            filled = ~frame.select(pl.all_horizontal(pl.all().is_null())).to_series().to_numpy()
            if skip and filled.any():
                filled[: int(filled.argmax()) + 1] = False
                skip = False
            yield self._batch(frame.filter(pl.Series(filled)), lines[filled], fields)
        if fast.left is not None:
            yield from self._slow(fast.left, blocks, fields, skip=skip)

    def _batch(self, frame: pl.DataFrame, lines: NDArray[np.int64], fields: Fields, bad: list[tuple[int, str]] | None = None) -> Batch:
        frame.columns = self._columns
        return Batch(frame.select(pl.col(name).alias(role) for role, name in fields.by_role().items()), lines, bad or [])

    def _slow(self, left: Block, blocks: Iterator[Block], fields: Fields, *, skip: bool) -> Iterator[Batch]:
        width = len(self._columns)
        rows: list[list[str | None]] = []
        lines: list[int] = []
        bad: list[tuple[int, str]] = []

        for line, cells in self._records(chain([left], blocks), strict=True):
            if skip:
                skip = False
                continue
            if len(cells) > width:
                bad.append((line, "too-many-fields"))
                continue
            rows.append([*cells, *([None] * (width - len(cells)))])
            lines.append(line)
            if len(rows) == ROWS:
                yield self._batch(self._frame(rows), int64(lines), fields, bad)
                rows, lines, bad = [], [], []
        if rows or bad:
            yield self._batch(self._frame(rows), int64(lines), fields, bad)

    def _frame(self, rows: list[list[str | None]]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=dict.fromkeys(self._columns, pl.String), orient="row")

    def _records(self, blocks: Iterator[Block], *, strict: bool) -> Iterator[tuple[int, list[str]]]:
        """(line, fields) of every record that is not blank. Not strict: stop quietly at the first trouble (a head ends anywhere)."""
        first, lines = _text_lines(blocks)
        if not self._quoted:
            for i, text in enumerate(lines):
                if row := text.removesuffix("\n").removesuffix("\r"):
                    yield first + i, row.split(self._separator)
            return
        csv.field_size_limit(FIELD_MAX)
        reader = csv.reader(lines, delimiter=self._separator, strict=True)
        start = 0
        while True:
            start = reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as e:
                if not strict:
                    return
                raise Invalid("dataset.quotes-unbalanced", file=self.source.name, line=first + start, noticed_line=first + max(start, reader.line_num - 1), reason=str(e)) from e
            if cells and cells != [""]:
                yield first + start, cells


def _text_lines(blocks: Iterator[Block]) -> tuple[int, Iterator[str]]:
    """(number of the first line, the lines with their line feeds); only a line feed ends a line."""
    first = next(blocks, (1, b""))

    def lines() -> Iterator[str]:
        for _, block in chain([first], blocks):
            yield from io.StringIO(block.decode("utf-8"), newline="\n")

    return first[0], lines()


class _Fast:
    """Blocks cut at the ends of records, and Polars on each. What it cannot do is left in ``left`` with all that follows."""

    def __init__(self, blocks: Iterator[Block], separator: str, width: int, *, quoted: bool) -> None:
        self._blocks = blocks
        self._separator = separator
        self._schema = {f"column_{i + 1}": pl.String for i in range(width)}
        self._quoted = quoted
        self._starts: NDArray[np.int64] = int64([])
        self.left: Block | None = None

    def __iter__(self) -> Iterator[Block]:
        rest: Block | None = None
        for line, piece in self._blocks:
            block = piece if rest is None else rest[1] + piece
            line = line if rest is None else rest[0]  # noqa: PLW2901 the block grew at its front
            rest = None
            cut = self._cut(block)
            if cut is None or (cut == 0 and len(block) > FIELD_MAX):
                self.left = (line, block)
                return
            if cut < len(block):
                rest = (line + block.count(b"\n", 0, cut), block[cut:])
            if cut:
                self._line = line
                yield line, block[:cut]
                if self.left is not None:
                    if rest is not None:
                        self.left = (self.left[0], self.left[1] + rest[1])
                    return
        self.left = rest

    def _cut(self, block: bytes) -> int | None:
        """Where the last whole record of ``block`` ends; None: its quotes are not well placed."""
        bytes_ = np.frombuffer(block, dtype=np.uint8)
        feeds = np.flatnonzero(bytes_ == _FEED)
        if not self._quoted or b'"' not in block:
            self._starts = np.concatenate(([0], feeds + 1))
            return len(block)
        quotes = np.flatnonzero(bytes_ == _QUOTE)
        padded = np.concatenate(([_FEED], bytes_, [_FEED]))
        separator = ord(self._separator)
        before, after = padded[quotes[::2]], padded[quotes[1::2] + 2]
        if not (np.isin(before, (separator, _FEED, _QUOTE)).all() and np.isin(after, (separator, _FEED, _RETURN, _QUOTE)).all()):
            return None
        ends = feeds[np.searchsorted(quotes, feeds) % 2 == 0]
        self._starts = np.concatenate(([0], ends + 1))
        if len(quotes) % 2 == 0:
            return len(block)
        return int(ends[-1]) + 1 if len(ends) else 0

    def parse(self, line: int, block: bytes) -> tuple[pl.DataFrame | None, NDArray[np.int64]]:
        """(frame, line of each row); no frame: the block is left for the slow path."""
        starts = self._starts[self._starts < len(block)]
        feeds = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _FEED)
        lines = line + np.searchsorted(feeds, starts)
        try:
            frame = pl.read_csv(io.BytesIO(block), has_header=False, schema=self._schema, separator=self._separator, quote_char='"' if self._quoted else None)
        except pl.exceptions.PolarsError:
            self.left = (line, block)
            return None, lines
        if frame.height != len(starts):
            self.left = (line, block)
            return None, lines
        return frame, lines.astype(np.int64)
