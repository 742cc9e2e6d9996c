"""Dataset versions as examples: load a version that stands in the blobs, or keep examples as a new one. Polars is imported when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from wenfang.core.errors import Broken, Invalid, NotFound
from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Blobs, Progress
from wenfang.core.registry import nearest

from .imported import LONG_AT, Imported

if TYPE_CHECKING:
    import polars as pl

__all__ = ["iter_examples", "load_examples", "save_splits"]

BATCH = 100_000
"""Rows of examples put into columns at once."""


def load_examples(manifest: str, blobs: Blobs, split: str | None = None) -> Examples:
    """All examples of a split, or of all splits in the manifest's order.

    Args:
        manifest: blob of the manifest.
        blobs: where it lies.
        split: None takes every split.

    Raises:
        NotFound: `dataset.split-unknown`, `blob.missing`.
        Broken: `blob.damaged`, `dataset.part-damaged`, `dataset.manifest-unknown`.

    Cost: about 0.1 CPU-s for 100,000 titles once Polars is imported.
    """
    from .manifest import read_manifest

    document = read_manifest(manifest, blobs)
    whole: Examples = Examples(document["task"], [])
    for piece in _pieces(document, blobs, split):
        whole = whole + piece if whole.texts else piece
    return whole


def iter_examples(manifest: str, blobs: Blobs, split: str | None = None) -> Iterator[Examples]:
    """The examples part by part, so that memory holds one part at a time; raises what ``load_examples`` does."""
    from .manifest import read_manifest

    yield from _pieces(read_manifest(manifest, blobs), blobs, split)


def _pieces(document: dict[str, Any], blobs: Blobs, split: str | None) -> Iterator[Examples]:
    import polars as pl

    splits: dict[str, Any] = document["splits"]
    if split is not None and split not in splits:
        raise NotFound("dataset.split-unknown", split=split, near=nearest(split, list(splits)))
    for name, entry in splits.items():
        if split in {None, name}:
            for part in entry["parts"]:
                frame = pl.read_parquet(BytesIO(blobs.get(part["blob"])))
                if frame.height != part["rows"]:
                    raise Broken("dataset.part-damaged", blob=part["blob"], rows=frame.height, expected_rows=part["rows"])
                yield _examples(frame, document["task"], name)


def _examples(frame: pl.DataFrame, task: Any, split: str) -> Examples:
    columns = frame.columns
    ids = frame["id"].to_list() if "id" in columns else [f"{split}:{line}" for line in frame["line"].to_list()]
    groups = frame["group"].to_list() if "group" in columns else []
    texts = frame["text"].to_list()
    if task == "classification":
        return Examples(task, texts, frame["label"].to_list(), [], ids, groups)
    rows = frame["spans"].to_list()
    return Examples(task, texts, [], [tuple(Span(s["start"], s["end"], s["label"]) for s in row) for row in rows], ids, groups)


def save_splits(splits: Mapping[str, Examples], *, blobs: Blobs, progress: Progress) -> Imported:
    """Keep ``splits`` (of one task) as a new version with its own card; ids and groups are kept where they are.

    Raises:
        Invalid: `dataset.no-files` when there are none, `dataset.tasks-differ`, `dataset.split-empty`.
    """
    from .card import build_card
    from .intake import Split
    from .manifest import keep_version

    if not splits:
        raise Invalid("dataset.no-files")
    if len(tasks := {e.task for e in splits.values()}) > 1:
        raise Invalid("dataset.tasks-differ", tasks=sorted(tasks))
    progress.stage("import", total=sum(map(len, splits.values())), unit="rows")
    made: list[Split] = []
    for name, examples in splits.items():
        if not len(examples):
            raise Invalid("dataset.split-empty", split=name)
        made.append(_keep(name, examples, blobs, progress))
    progress.stage("check", total=len(made))
    document, warnings = build_card(made, blobs)
    progress.advance(len(made))
    return keep_version(made, document, warnings, {}, blobs)


def _keep(name: str, examples: Examples, blobs: Blobs, progress: Progress) -> Any:
    import numpy as np
    import polars as pl

    from .columns import frame_of
    from .intake import Split
    from .parts import PartWriter
    from .tally import Tally

    answer = "label" if examples.task == "classification" else "spans"
    hashed = tuple(c for c in ("id" if examples.ids else "", "text", answer, "group" if examples.groups else "") if c)
    writer = PartWriter(blobs, hashed)
    source: dict[str, Any] = {"file": "", "format": "examples", "encoding": "", "sha256": "", "columns": {}}
    split = Split(name, examples.task, source, {}, Tally(LONG_AT), suffix_differs=False)
    line = 1
    for piece in examples.batches(BATCH):
        columns: dict[str, list[Any]] = {"text": piece.texts, answer: piece.labels if answer == "label" else [[(s.start, s.end, s.label) for s in row] for row in piece.spans]}
        columns |= {k: v for k, v in (("id", piece.ids), ("group", piece.groups)) if v}
        lines = np.arange(line, line + len(piece), dtype=np.int64)
        frame = frame_of(columns)
        split.tally.add(frame, lines)
        writer.add(frame.with_columns(pl.Series("line", lines)))
        progress.advance(len(piece))
        line += len(piece)
    split.digests = writer.finish()
    split.parts, split.columns = writer.parts, [*hashed, "line"]
    return split
