"""Examples in Parquet parts, kept as blobs, and the hash of their content. Knows Arrow and the port of the blobs, nothing of files read.

The content hash is of the examples in order: it does not depend on where batches or parts begin, nor on compression.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import polars as pl
import pyarrow  # noqa: ICN001 the name pa is its untyped view
import pyarrow.parquet

from wenfang.core.ids import sha256_hex
from wenfang.core.ports import Blobs
from wenfang.core.records import Task

__all__ = ["ContentHash", "PartWriter", "content_hash"]

pa: Any = pyarrow  # it has no type stubs
pq: Any = pyarrow.parquet

PART_BYTES = 64 << 20
"""Of text before compression; a part is closed when it holds more."""
GROUP_BYTES = 4 << 20
"""Rows wait until they are so many bytes, so that row groups do not get tiny."""


class ContentHash:
    """The hash of one column's values in order, fed in pieces of any size: one SHA-256 over the lengths, one over the bytes."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}

    def _feed(self, name: str, data: Any) -> None:
        self._streams.setdefault(name, hashlib.sha256()).update(data)

    def update(self, array: Any, name: str = "") -> None:
        """Feed an Arrow array of large strings, 32-bit integers, or lists of structs of these; no nulls."""
        if pa.types.is_large_list(array.type):
            self._feed(f"{name}#", memoryview(array.value_lengths().cast(pa.int64()).buffers()[1])[: 8 * len(array)])
            items = array.flatten()
            for field in items.type:
                self.update(items.field(field.name), f"{name}.{field.name}")
        elif pa.types.is_large_string(array.type):
            offsets = memoryview(array.buffers()[1]).cast("q")[array.offset : array.offset + len(array) + 1]
            self._feed(f"{name}#", memoryview(pa.compute.binary_length(array).buffers()[1])[: 8 * len(array)])
            if array.buffers()[2] is not None:
                self._feed(name, memoryview(array.buffers()[2])[offsets[0] : offsets[-1]])
        else:
            self._feed(name, array.cast(pa.int64()).to_numpy().tobytes())

    def digest(self) -> dict[str, str]:
        """Hexadecimal digests by stream."""
        return {name: h.hexdigest() for name, h in sorted(self._streams.items())}


def content_hash(task: Task, splits: dict[str, dict[str, Any]]) -> str:
    """One hash of rows and column digests of every split."""
    return sha256_hex(orjson.dumps({"task": task, "splits": splits}, option=orjson.OPT_SORT_KEYS))


class PartWriter:
    """Takes the rows of one split and keeps them as Parquet blobs.

    Args:
        blobs: where the parts go.
        hashed: columns that are the example itself; the others (``line``) are only stored.
    """

    def __init__(self, blobs: Blobs, hashed: tuple[str, ...]) -> None:
        self._blobs = blobs
        self._hashes = {name: ContentHash() for name in hashed}
        self._waiting: list[pl.DataFrame] = []
        self._waiting_bytes = 0
        self._sink: Any = None
        self._writer: Any = None
        self._part_rows = 0
        self._part_bytes = 0
        self.rows = 0
        self.parts: list[dict[str, Any]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Rows in canonical columns, no nulls."""
        self._waiting.append(frame)
        self._waiting_bytes += int(frame.estimated_size())
        self.rows += frame.height
        if self._waiting_bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = _large(pl.concat(self._waiting).to_arrow())
        for name, hashed in self._hashes.items():
            for chunk in table.column(name).chunks:
                hashed.update(chunk)
        if self._writer is None:
            self._sink = pa.BufferOutputStream()
            text_like = [n for n in table.schema.names if n in {"label", "group"}]
            self._writer = pq.ParquetWriter(self._sink, table.schema, compression="zstd", compression_level=1, use_dictionary=text_like, write_statistics=False)
        self._writer.write_table(table)
        self._part_rows += table.num_rows
        self._part_bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        if self._part_bytes >= PART_BYTES:
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        data = self._sink.getvalue().to_pybytes()
        self.parts.append({"blob": self._blobs.put(data), "rows": self._part_rows, "size_bytes": len(data)})
        self._writer = self._sink = None
        self._part_rows = self._part_bytes = 0

    def finish(self) -> dict[str, Any]:
        """Close the last part; digests of the columns."""
        self._flush()
        self._close_part()
        return {"rows": self.rows, "columns": {name: h.digest() for name, h in self._hashes.items()}}


def _large(table: Any) -> Any:
    """String views → large strings, whatever Polars chose."""
    fields = [pa.field(f.name, _large_type(f.type)) for f in table.schema]
    return table.cast(pa.schema(fields)).combine_chunks()


def _large_type(kind: Any) -> Any:
    if pa.types.is_string_view(kind) or pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.large_list(pa.struct([pa.field(f.name, _large_type(f.type)) for f in kind.value_type]))
    return kind
