"""Excel workbooks (.xlsx): the first sheet that holds rows, read row by row."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from itertools import islice

import openpyxl
import polars as pl

from wenfang.core.errors import Invalid
from wenfang.data.columns import Batch, Fields, Look, int64
from wenfang.data.guess import looks_like_header
from wenfang.data.source import Source

from .base import ROWS, SAMPLE_ROWS, Reader

__all__ = ["Xlsx"]

UNPACKED_MAX_BYTES = 8 << 30
"""A workbook that unpacks to more is refused: it is a bomb or no work for a spreadsheet."""


class Xlsx(Reader):
    """Reads the first sheet of a workbook. Whole numbers lose their ``.0``; a formula gives the value that was saved with it."""

    suffixes = (".xlsx", ".xlsm")
    binary = True
    lossless = False  # XML has no control characters

    def __init__(self, source: Source, wanted: Sequence[str] = ()) -> None:
        super().__init__(source, wanted)
        self._header = False
        self._columns: list[str] = []

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """A zip archive."""
        return 0.8 if head.startswith(b"PK\x03\x04") else 0.0

    def look(self) -> Look:
        """Header and first rows."""
        rows = [[cell or "" for cell in cells] for _, cells in islice(self._rows(), SAMPLE_ROWS)]
        self._header = bool(rows) and looks_like_header(rows, self.wanted)
        width = max((len(cells) for cells in rows), default=1)
        self._columns = [(rows[0][i].strip() if self._header and i < len(rows[0]) else "") or f"column_{i + 1}" for i in range(width)]
        if len(set(self._columns)) < width:
            raise Invalid("dataset.column-twice", file=self.source.name, columns=sorted({n for n in self._columns if self._columns.count(n) > 1}))
        body = rows[1:] if self._header else rows
        sample = {name: [cells[i] for cells in body if i < len(cells) and cells[i]] for i, name in enumerate(self._columns)}
        return Look(self._columns, sample, named=self._header, said={"header": "yes" if self._header else "no"})

    def read(self, fields: Fields) -> Iterator[Batch]:
        """All rows; a row's line is its row number in the sheet."""
        at = {role: self._columns.index(name) for role, name in fields.by_role().items()}
        rows = self._rows()
        if self._header:
            next(rows, None)
        while chunk := list(islice(rows, ROWS)):
            frame = pl.DataFrame([pl.Series(role, [cells[i] if i < len(cells) else None for _, cells in chunk], dtype=pl.String) for role, i in at.items()])
            yield Batch(frame, int64([line for line, _ in chunk]))

    def _rows(self) -> Iterator[tuple[int, list[str | None]]]:
        """(row number, cells) of every row that is not blank."""
        try:
            self._check_size()
            with open(self.source.path, "rb") as f:  # given a name, openpyxl would judge its suffix
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about styles and extensions, nothing of the cells
                    book = openpyxl.load_workbook(f, read_only=True, data_only=True)
                for sheet in book.worksheets:
                    some = False
                    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                        cells = [_cell(value) for value in row]
                        if any(cells):
                            some = True
                            yield number, cells
                    if some:
                        return
        except Invalid:
            raise
        except Exception as e:  # a damaged workbook stumbles anywhere in zipfile, expat or openpyxl, with errors of every kind
            raise Invalid("dataset.damaged-file", file=self.source.name, format="XLSX", reason=str(e)[:200]) from e

    def _check_size(self) -> None:
        with zipfile.ZipFile(self.source.path) as archive:
            if sum(i.file_size for i in archive.infolist()) > UNPACKED_MAX_BYTES:
                raise Invalid("dataset.damaged-file", file=self.source.name, format="XLSX", reason=f"it unpacks to more than {UNPACKED_MAX_BYTES} bytes")


def _cell(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value.isoformat() if isinstance(value, (datetime, date, time)) else str(value)
