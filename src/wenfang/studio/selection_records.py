"""Records of a selection: its runs, its document, the version it made; or, where it failed, what it had tried. Operations call these; nothing here is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wenfang.core.errors import Conflict, Invalid
from wenfang.core.ids import new_id
from wenfang.core.records import DatasetVersion, ModelVersion, Run, Selection

from .app import Studio
from .bundles import store_bundle

__all__ = ["document_of", "register", "report_path", "what_was_tried"]


def register(studio: Studio, outcome: Any, version: DatasetVersion, name: str, *, served: bool) -> tuple[ModelVersion, Selection]:
    """Put the selection, its runs and the model version."""
    made, chosen = new_id("mv"), new_id("sl")
    ids = {"dataset_version": version.id, "model_version": made, "service": name if served else None, "report": str(report_path(studio, chosen))}
    manifest, signature = store_bundle(outcome.bundle, studio.blobs)
    if outcome.written:
        outcome.document["written"] = studio.blobs.put(json.dumps(outcome.written, ensure_ascii=False).encode())
    number = 1 + max((m.number for m in studio.find(ModelVersion, project=version.project, name=name)), default=0)
    selection = Selection(
        id=chosen, project=version.project, dataset_version=version.id, limits=outcome.document["limits"], verdict={**outcome.verdict, **ids},
        report=studio.blobs.put(outcome.html.encode()), document=studio.blobs.put(json.dumps(outcome.document, ensure_ascii=False, default=str).encode()),
    )  # fmt: skip
    model = ModelVersion(
        id=made, project=version.project, name=name, number=number, family=outcome.verdict["family"], task=version.task, labels=version.labels, bundle=manifest,
        signature=signature, size_bytes=outcome.verdict["size_bytes"], dataset_version=version.id, selection=selection.id, metrics={k: outcome.verdict[k] for k in ("metric", "valid", "test", "latency_ms")},
    )  # fmt: skip
    for run in _runs(outcome.document["runs"], selection):
        studio.put(run)
    studio.put(selection)
    studio.put(model)
    studio.tell("model.registered", model.id, family=model.family, selection=selection.id)
    return model, selection


def report_path(studio: Studio, id: str) -> Path:
    """Where the report of a selection lies on the machine that made it."""
    return studio.home.jobs / f"{id}.html"


@contextmanager
def what_was_tried(studio: Studio, version: DatasetVersion, work: Path, limits: Mapping[str, Any]) -> Generator[None]:
    """Inside, a selection that ends without a verdict leaves its record, its runs and the data they learned from; the same request begins anew then."""
    from wenfang.select.journal import steps_of

    try:
        yield
    except Invalid as e:
        runs = [run for step in steps_of(work, "run") for run in step["runs"]]
        document: dict[str, Any] = {
            "state": "failed", "task": version.task, "limits": dict(limits), "runs": runs, "given_up": [{"key": s["key"], **s["fields"]} for s in steps_of(work, "given-up")],
            "error": {"code": e.code, "fields": e.fields},
        }  # fmt: skip
        selection = Selection(
            id=new_id("sl"), project=version.project, dataset_version=version.id, limits=dict(limits), verdict={"error": e.code}, report="",
            document=studio.blobs.put(json.dumps(document, ensure_ascii=False, default=str).encode()), state="failed",
        )  # fmt: skip
        studio.leave(*studio.changes.puts, *_runs(runs, selection), selection)
        studio.progress.note("selection.kept", id=selection.id, runs_n=len(runs))
        shutil.rmtree(work, ignore_errors=True)
        raise


def document_of(studio: Studio, selection: Selection) -> dict[str, Any]:
    """The document of a selection that has a verdict.

    Raises:
        Conflict: `selection.failed`.
    """
    document: dict[str, Any] = json.loads(studio.blobs.get(selection.document))
    if selection.state == "failed":
        raise Conflict("selection.failed", id=selection.id, reason=document["error"]["code"])
    return document


def _runs(documents: Iterable[Mapping[str, Any]], selection: Selection) -> list[Run]:
    kept = ("family", "params", "metrics", "seed", "environment", "state")
    return [Run(id=new_id("rn"), project=selection.project, selection=selection.id, note=run.get("note", ""), **{k: run[k] for k in kept}) for run in documents]
