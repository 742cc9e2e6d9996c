"""Dataset versions as examples: load a version that stands in the blobs, or keep examples as a new one. Polars is imported when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from wenfang.core.errors import Broken, Invalid, NotFound
from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Blobs, Progress
from wenfang.core.registry import nearest

from .imported import LABELS, LONG_AT, Imported

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
                yield _examples(frame, document, name)


def _examples(frame: pl.DataFrame, document: dict[str, Any], split: str) -> Examples:
    columns, task = frame.columns, document["task"]
    ids = frame["id"].to_list() if "id" in columns else [f"{split}:{line}" for line in frame["line"].to_list()]
    plain = {name: frame[column].to_list() if column in columns else [] for name, column in (("texts", "text"), ("texts_b", "text_b"), ("groups", "group"), ("targets", "target"))}
    weights = [float(w) for w in frame["weight"].to_list()] if "weight" in columns else []
    return Examples(task, ids=ids, weights=weights, **plain, **_answers(frame, document))


def _answers(frame: pl.DataFrame, document: dict[str, Any]) -> dict[str, Any]:
    """The columns of labels, grades, label sets or spans."""
    if "spans" in frame.columns:
        return {"spans": [tuple(Span(s["start"], s["end"], s["label"]) for s in row) for row in frame["spans"].to_list()]}
    if "label" not in frame.columns:
        return {}
    labels: list[str] = frame["label"].to_list()
    if document["task"] == "multilabel":
        return {"label_sets": [tuple(row.split(LABELS)) if row else () for row in labels]}
    if scale := document.get("grade_scale"):
        low, high = scale
        return {"grades": [min(1.0, max(0.0, (float(label) - low) / (high - low))) for label in labels]}
    return {"labels": labels}


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
    document, warnings = build_card(made, blobs, graded=made[0].graded)
    progress.advance(len(made))
    return keep_version(made, document, warnings, {}, blobs, scale=(0.0, 1.0) if made[0].graded else None)


def _keep(name: str, examples: Examples, blobs: Blobs, progress: Progress) -> Any:
    import numpy as np
    import polars as pl

    from .columns import frame_of
    from .intake import Split
    from .parts import PartWriter
    from .tally import Tally

    hashed = tuple(_columns_of(examples.take([0])))
    writer = PartWriter(blobs, hashed)
    source: dict[str, Any] = {"file": "", "format": "examples", "encoding": "", "sha256": "", "columns": {}}
    split = Split(name, examples.task, source, {}, Tally(LONG_AT), suffix_differs=False, graded=bool(examples.grades))
    line = 1
    for piece in examples.batches(BATCH):
        lines = np.arange(line, line + len(piece), dtype=np.int64)
        frame = frame_of(_columns_of(piece))
        split.tally.add(frame, lines)
        writer.add(frame.with_columns(pl.Series("line", lines)))
        progress.advance(len(piece))
        line += len(piece)
    split.digests = writer.finish()
    split.parts, split.columns = writer.parts, [*hashed, "line"]
    return split


def _columns_of(examples: Examples) -> dict[str, list[Any]]:
    """The canonical columns of ``examples``, in the order they are hashed in."""
    columns: dict[str, list[Any]] = {"id": examples.ids, "text": examples.texts, "text_b": examples.texts_b}
    if examples.task == "tagging":
        columns["spans"] = [[(s.start, s.end, s.label) for s in row] for row in examples.spans]
    elif examples.task == "multilabel":
        columns["label"] = [LABELS.join(row) for row in examples.label_sets]
    else:
        columns["label"] = examples.labels or [repr(g) for g in examples.grades]
    columns |= {"target": examples.targets, "group": examples.groups, "weight": [repr(w) for w in examples.weights]}
    return {name: column for name, column in columns.items() if column}
