"""What a reader of a file format must be able to do. The promises are tested for every reader in ``tests/contracts/test_readers.py``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from wenfang.data.columns import Batch, Fields, Look
from wenfang.data.source import Source

__all__ = ["ROWS", "SAMPLE_ROWS", "Reader"]

ROWS = 50_000
"""Rows of one batch, for readers that build them one by one."""
SAMPLE_ROWS = 1000


class Reader(ABC):
    """Reads one file of its format in bounded memory. ``look`` comes first, ``read`` once after it.

    Args:
        source: the opened file.
        wanted: names of columns the caller asks for; they help to tell a header from a row.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """Lower case, with the dot."""
    binary: ClassVar[bool] = False
    """The format is no text: there is no encoding to detect."""
    generic: ClassVar[bool] = False
    """Its suffixes promise nothing; another format under them is no mistake."""
    lossless: ClassVar[bool] = True
    """Any text without line ends comes back code point by code point."""

    def __init__(self, source: Source, wanted: Sequence[str] = ()) -> None:
        self.source = source
        self.wanted = tuple(wanted)

    @classmethod
    @abstractmethod
    def sniff(cls, head: bytes) -> float:
        """How sure it is that ``head`` (first whole lines in UTF-8; raw bytes for binary formats) is of this format: 0 … 1."""

    @abstractmethod
    def look(self) -> Look:
        """Read the first rows.

        Raises:
            Invalid: `dataset.malformed` with the line, `dataset.damaged-file`.
        """

    @abstractmethod
    def read(self, fields: Fields) -> Iterator[Batch]:
        """All rows, in order.

        Raises:
            Invalid: `dataset.malformed` with the line, `dataset.damaged-file`.
        """
