"""Files become one immutable dataset version: Parquet parts, a manifest, a data card. The studio calls this; nothing heavy is imported before it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wenfang.core.errors import Invalid
from wenfang.core.ports import Blobs, Progress
from wenfang.core.records import Task

from .imported import LONG_AT, Imported

__all__ = ["Imported", "import_file", "import_splits"]


def import_splits(
    files: Mapping[str, Path], *, text: str | None = None, label: str | None = None, task: Task | None = None, blobs: Blobs, progress: Progress,
    id: str | None = None, group: str | None = None, text_b: str | None = None, target: str | None = None, weight: str | None = None, graded: bool | None = None,
    long_at: int = LONG_AT,
) -> Imported:  # fmt: skip
    """Import ``files``, one for each split (``train``, ``valid``, ``test`` or ``all``), as one version.

    Args:
        files: path by split. Columns and task that are guessed are guessed on the first file and asked of the others.
        text: column of the text; guessed unless given.
        label: column of the label or spans; guessed unless given.
        task: guessed unless given.
        blobs: where parts, manifest and card go.
        progress: told of the stages ``import``, ``check``.
        id: column of ids, unique within a file.
        group: column whose equal values stay on one side of a split.
        text_b: column of the second text of pairs; guessed unless given.
        target: column of the text that should be generated; guessed unless given.
        weight: column of how much each example counts in learning.
        graded: whether the labels of pairs are grades; None: when they are numbers of five values or more, or broken ones.
        long_at: code points above which a text counts as over-long.

    Raises:
        Invalid: `dataset.…`: whatever is wrong with a file, with its line. Nothing but unreferenced blobs is left behind.

    Cost: about 2 CPU-s for 200,000 titles, card included; memory bounded for files of any size.
    """
    from .card import build_card
    from .guess import Named
    from .intake import Split, Wish, take_file
    from .manifest import grade_scale, keep_version

    if not files:
        raise Invalid("dataset.no-files")
    splits: list[Split] = []
    named = Named(text, label, id, group, text_b, target, weight)
    wish = Wish(named, task, long_at)
    for name, path in files.items():
        split = take_file(name, Path(path), wish, blobs=blobs, progress=progress)
        splits.append(split)
        wish = Wish(named, split.task, long_at, split.fields)
    scale = grade_scale(splits, graded)
    progress.stage("check", total=len(splits))
    document, warnings = build_card(splits, blobs, graded=scale is not None)
    progress.advance(len(splits))
    guessed = dict(splits[0].guessed)
    guessed |= {k: splits[0].source[k] for k in ("format", "encoding", "header", "separator", "tags", "joined") if splits[0].source.get(k)}
    return keep_version(splits, document, warnings, guessed, blobs, scale=scale)


def import_file(
    path: Path, *, text: str | None = None, label: str | None = None, task: Task | None = None, blobs: Blobs, progress: Progress, split_name: str = "all",
    id: str | None = None, group: str | None = None, long_at: int = LONG_AT,
) -> Imported:  # fmt: skip
    """Import one file as a version of one split; see ``import_splits``."""
    return import_splits({split_name: path}, text=text, label=label, task=task, blobs=blobs, progress=progress, id=id, group=group, long_at=long_at)
