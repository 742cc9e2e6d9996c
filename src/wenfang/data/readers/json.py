"""One JSON document: an array of objects, or an object whose ``data``, ``rows``, ``examples`` or ``items`` is one. Read in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from wenfang.core.errors import Invalid
from wenfang.data.columns import Batch, Fields, Look
from wenfang.data.objects import batch_objects, look_objects

from ._values import parse_object
from .base import ROWS, SAMPLE_ROWS, Reader

__all__ = ["Json"]

OBJECT_MAX_BYTES = 64 << 20
_OPEN = re.compile(rb'\s*(?:\{\s*"(?:data|rows|examples|items)"\s*:\s*(?=\[\s*\{))?\[')
_ESCAPE = re.compile(rb"\\.", re.DOTALL)


class Json(Reader):
    """Reads a JSON array of objects."""

    suffixes = (".json",)

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """An array, or an object that holds one."""
        return 0.0 if _OPEN.match(head) is None else 0.97 if head.lstrip().startswith(b"{") else 0.9

    def look(self) -> Look:
        """Keys of the first objects."""
        return look_objects(self._objects(), SAMPLE_ROWS)

    def read(self, fields: Fields) -> Iterator[Batch]:
        """All objects of the array; a row's line is the one its brace stands on."""
        return batch_objects(self._objects(), fields, ROWS)

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        blocks = self.source.line_blocks()
        line, rest = next(blocks)
        opened = _OPEN.match(rest)
        if opened is None:
            raise Invalid("dataset.malformed", file=self.source.name, line=line, reason="an array of objects was expected")
        line, rest = line + rest.count(b"\n", 0, opened.end()), rest[opened.end() :]
        closed = False
        while not closed:
            used = 0
            for start, end in _spans_of_objects(rest):
                between = rest[used:start]
                if between.strip(b" \t\r\n,"):
                    raise Invalid("dataset.malformed", file=self.source.name, line=line + between.count(b"\n"), reason="an object was expected")
                line += between.count(b"\n")
                yield line, parse_object(rest[start:end], file=self.source.name, line=line)
                line += rest.count(b"\n", start, end)
                used = end
            rest = rest[used:]
            closed = rest.lstrip(b" \t\r\n,").startswith(b"]")
            if closed:
                return
            if rest.lstrip(b" \t\r\n,")[:1] not in {b"", b"{"}:
                raise Invalid("dataset.malformed", file=self.source.name, line=line, reason="an object was expected")
            more = next(blocks, None)
            if more is None or len(rest) > OBJECT_MAX_BYTES:
                raise Invalid("dataset.malformed", file=self.source.name, line=line + rest.count(b"\n"), reason="the document ends before its array does")
            rest += more[1]


def _spans_of_objects(data: bytes) -> list[tuple[int, int]]:
    """Where the whole objects at the outermost level of ``data`` stand; stops at the end of the array."""
    plain = np.frombuffer(_ESCAPE.sub(b"__", data), dtype=np.uint8)
    marks = np.flatnonzero(np.isin(plain, np.frombuffer(b'"{}[]', dtype=np.uint8)))
    kinds = plain[marks]
    outside = np.cumsum(kinds == ord('"')) % 2 == 0
    steps = np.where((kinds == ord("{")) | (kinds == ord("[")), 1, np.where((kinds == ord("}")) | (kinds == ord("]")), -1, 0)) * outside
    depth = np.cumsum(steps)
    if (depth < 0).any():  # the array's own bracket
        last = int(np.argmax(depth < 0))
        marks, steps, depth = marks[:last], steps[:last], depth[:last]
    starts = marks[(steps == 1) & (depth == 1)]
    ends = marks[(steps == -1) & (depth == 0)] + 1
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=False)]
