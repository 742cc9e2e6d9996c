"""One JSON object a line: plain columns, doccano and Prodigy spans, CLUENER labels, tokens with tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wenfang.core.errors import Invalid
from wenfang.data.columns import Batch, Fields, Look
from wenfang.data.objects import batch_objects, look_objects

from ._values import parse_object
from .base import ROWS, SAMPLE_ROWS, Reader

__all__ = ["Jsonl"]


class Jsonl(Reader):
    """Reads JSON lines."""

    suffixes = (".jsonl", ".ndjson", ".json")

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """The first line that is not blank is a whole object."""
        first = next((line for line in head.split(b"\n") if line.strip()), b"").strip()
        if not first.startswith(b"{"):
            return 0.0
        try:
            parse_object(first, file="", line=1)
        except Invalid:
            return 0.3 if first != b"{" else 0.0
        return 0.95

    def look(self) -> Look:
        """Keys of the first objects."""
        return look_objects(self._objects(), SAMPLE_ROWS)

    def read(self, fields: Fields) -> Iterator[Batch]:
        """All lines."""
        return batch_objects(self._objects(), fields, ROWS)

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        name = self.source.name
        for first, block in self.source.line_blocks():
            for number, line in enumerate(block.split(b"\n"), first):
                if line and not line.isspace():
                    yield number, parse_object(line, file=name, line=number)
