"""Apache Parquet: flat columns, class names of the datasets library, lists of tokens with tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import polars as pl
import pyarrow  # noqa: ICN001 the name pa is its untyped view
import pyarrow.parquet

from wenfang.core.errors import Invalid
from wenfang.data.columns import Batch, Fields, Look, int64
from wenfang.data.objects import batch_objects, look_objects
from wenfang.data.source import Source

from .base import ROWS, SAMPLE_ROWS, Reader

__all__ = ["Parquet"]

pa: Any = pyarrow  # it has no type stubs
pq: Any = pyarrow.parquet


class Parquet(Reader):
    """Reads Parquet; integer labels with known class names become those names."""

    suffixes = (".parquet", ".pq")
    binary = True

    def __init__(self, source: Source, wanted: Sequence[str] = ()) -> None:
        super().__init__(source, wanted)
        self._names: dict[str, list[str]] = {}
        self._flat: set[str] = set()

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """Its magic number."""
        return 1.0 if head.startswith(b"PAR1") else 0.0

    def look(self) -> Look:
        """The schema and the first rows."""
        file = self._open()
        schema = file.schema_arrow
        self._names = _class_names(schema.metadata or {})
        self._flat = {f.name for f in schema if not pa.types.is_nested(f.type)}
        seen = look_objects(self._objects(file, schema.names, SAMPLE_ROWS), SAMPLE_ROWS)
        columns: list[str] = list(schema.names)
        return Look(columns, {c: seen.sample.get(c, []) for c in columns}, spans=seen.spans, lists=seen.lists, turns=seen.turns)

    def read(self, fields: Fields) -> Iterator[Batch]:
        """All row groups, ``ROWS`` rows at a time; a row's line is its number from 1."""
        roles = fields.by_role()
        file = self._open()
        if fields.spans or not set(roles.values()) <= self._flat:
            yield from batch_objects(self._objects(file, sorted(set(roles.values())), ROWS), fields, ROWS)
            return
        begun = 1
        for piece in self._pieces(file, sorted(set(roles.values())), ROWS):
            frame: Any = pl.from_arrow(piece)
            columns = [self._named(frame.get_column(name), name).alias(role) for role, name in roles.items()]
            yield Batch(pl.DataFrame(columns), int64(range(begun, begun + piece.num_rows)))
            begun += piece.num_rows

    def _named(self, column: pl.Series, name: str) -> pl.Series:
        names = self._names.get(name)
        if names is None or not column.dtype.is_integer():
            if column.dtype != pl.Binary:
                return column.cast(pl.String)
            return pl.Series(column.name, [_utf8(v) for v in column.to_list()], dtype=pl.String)
        return column.cast(pl.Int64).replace_strict(dict(enumerate(names)), default=None, return_dtype=pl.String)

    def _objects(self, file: Any, columns: list[str], rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
        line = 0
        for piece in self._pieces(file, columns, rows):
            for row in piece.to_pylist():
                line += 1
                for name, names in self._names.items():
                    if name in row:
                        row[name] = _name_of(row[name], names)
                yield line, row

    def _open(self) -> Any:
        try:
            return pq.ParquetFile(self.source.path, pre_buffer=False)
        except (pa.ArrowException, OSError) as e:
            raise self._damaged(e) from e

    def _pieces(self, file: Any, columns: list[str], rows: int) -> Iterator[Any]:
        try:
            yield from file.iter_batches(batch_size=rows, columns=columns)
        except (pa.ArrowException, OSError) as e:
            raise self._damaged(e) from e

    def _damaged(self, e: Exception) -> Invalid:
        return Invalid("dataset.damaged-file", file=self.source.name, format="Parquet", reason=str(e).split("\n")[0][:200])


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of integer classes by column, as the datasets library writes them into the schema."""
    try:
        features = orjson.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    found: dict[str, list[str]] = {}
    for column, feature in features.items():
        inner: Any = feature.get("feature", feature) if isinstance(feature, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(inner, dict) and isinstance(names := inner.get("names"), list):  # pyright: ignore[reportUnknownVariableType]
            found[column] = [str(n) for n in names]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return found


def _name_of(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_name_of(v, names) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _utf8(value: bytes | None) -> str | None:
    """The text of a binary cell; None (a row to put aside) if it is none."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
