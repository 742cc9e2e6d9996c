"""Rows in columns on their way from a reader to storage. Knows Polars and Arrow, nothing of formats.

The canonical columns are ``text``, ``text_b`` for pairs, the answer of the task (``label``, ``spans`` or ``target``), and ``id``, ``group`` and ``weight``
where they were asked for. All but spans are strings; several labels of one text are joined by ``LABELS`` of ``imported``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow  # noqa: ICN001 the name pa is its untyped view
from numpy.typing import NDArray

from wenfang.core.records import Task

__all__ = ["ANSWER", "SPANS", "Batch", "Fields", "Look", "RawSpan", "frame_of", "int64", "spans_series"]

pa: Any = pyarrow  # it has no type stubs

ANSWER: dict[Task, str] = {
    "classification": "label", "multilabel": "label", "tagging": "spans", "matching": "label", "embedding": "label", "generation": "target", "chat": "target",
}  # fmt: skip
"""The column that holds what a model should answer."""
RawSpan = tuple[int, int, str]
"""(start, end, label) in code points."""
SPANS = pl.List(pl.Struct({"start": pl.Int32, "end": pl.Int32, "label": pl.String}))


@dataclass(frozen=True, slots=True)
class Fields:
    """Which columns of the file are meant; names as the reader's ``look`` gave them."""

    text: str
    label: str | None = None
    id: str | None = None
    group: str | None = None
    text_b: str | None = None
    target: str | None = None
    weight: str | None = None
    task: Task = "classification"
    asked: bool = False
    """A model shall be asked about the text: there is no answer to learn, and tokens or a conversation are one text."""

    @property
    def spans(self) -> bool:
        """The label column holds spans."""
        return self.task == "tagging" and not self.asked

    @property
    def turns(self) -> bool:
        """The text column holds whole conversations: their last turns are the targets."""
        return self.task == "chat" and self.target is None and not self.asked

    def by_role(self) -> dict[str, str]:
        """File column by canonical name, for those that are asked for."""
        given = {"text": self.text, "text_b": self.text_b, "label": self.label, "target": self.target, "id": self.id, "group": self.group, "weight": self.weight}
        return {role: name for role, name in given.items() if name is not None}

    def names(self) -> list[str]:
        """The canonical columns that a reader gives."""
        return (
            ["spans" if role == "label" and self.spans else role for role in self.by_role()]
            + (["target"] if self.turns else [])
            + (["group"] if self.turns and self.group is None else [])
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What a reader saw in the first rows of its file."""

    columns: list[str]
    sample: dict[str, list[str]]
    """Values of up to 1,000 rows by column, empty ones left out."""
    spans: str | None = None
    """The column that holds spans."""
    lists: str | None = None
    """The column that holds lists of labels."""
    turns: str | None = None
    """The column that holds conversations."""
    named: bool = True
    """The columns have names in the file; otherwise they are ``column_1``, ``column_2`` …"""
    said: dict[str, str] = field(default_factory=dict[str, str])
    """What the reader decided by itself: separator, header, joining of tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows of a file.

    Args:
        frame: n rows of the canonical columns; a value that is missing is null.
        lines: (n) int64, where each row begins, from 1 (rows, in formats without lines).
        bad: (line, reason) of rows the reader itself could not use.
        repaired: how many tags or offsets were mended by the rule of their format.
    """

    frame: pl.DataFrame
    lines: NDArray[np.int64]
    bad: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    repaired: int = 0


def int64(values: Sequence[int]) -> NDArray[np.int64]:
    """``values`` as an array of int64."""
    return np.asarray(values, dtype=np.int64)


def spans_series(rows: Sequence[Sequence[RawSpan] | None]) -> pl.Series:
    """A column of span lists; None stays null."""
    flat = [span for row in rows if row is not None for span in row]
    counts = np.fromiter((0 if row is None else len(row) for row in rows), dtype=np.int64, count=len(rows))
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    items = pa.StructArray.from_arrays(
        [pa.array([s[0] for s in flat], pa.int32()), pa.array([s[1] for s in flat], pa.int32()), pa.array([s[2] for s in flat], pa.large_string())], names=["start", "end", "label"]
    )
    missing = pa.array([row is None for row in rows], pa.bool_())
    column: Any = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), items, mask=missing))
    return column.cast(SPANS)


def frame_of(columns: dict[str, list[Any]]) -> pl.DataFrame:
    """Lists of str (or of span lists under ``spans``), None where missing, as a frame."""
    return pl.DataFrame([spans_series(v).alias(k) if k == "spans" else pl.Series(k, v, dtype=pl.String) for k, v in columns.items()])
