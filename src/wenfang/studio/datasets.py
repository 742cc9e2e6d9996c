"""Operations on datasets: import files as an immutable version, look at versions and their cards, receive uploads."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from wenfang.core.ids import new_id
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import Dataset, DatasetVersion, Task, Upload

from .app import Studio
from .names import Name, ProjectName, check_project, local_path, safe_name
from .references import find_dataset_version

__all__ = ["ImportDataset", "imported"]

FILE: dict[str, Any] = {"file": True}
"""Marks a field that names a file: a remote client uploads it and sends ``upload:…`` instead."""


class ImportDataset(Request):
    """Which files to import and how to read them."""

    train: str = Field(description="file: CSV, TSV, JSONL, JSON, Parquet, XLSX, CoNLL or plain lines", json_schema_extra={**FILE, "positional": True})
    valid: str | None = Field(None, description="file of the validation split", json_schema_extra=FILE)
    test: str | None = Field(None, description="file of the test split", json_schema_extra=FILE)
    task: Task | None = Field(None, description="guessed from the data unless given")
    text: str | None = Field(None, description="column of the text; guessed unless given")
    label: str | None = Field(None, description="column of the label; guessed unless given")
    id: str | None = Field(None, description="column of the example's id; must be unique")
    group: str | None = Field(None, description="column whose equal values stay on one side of a split")
    text_b: str | None = Field(None, description="column of the second text of pairs; guessed unless given")
    target: str | None = Field(None, description="column of the text that should be generated; guessed unless given")
    weight: str | None = Field(None, description="column of how much each example counts in learning")
    graded: bool | None = Field(None, description="labels of pairs are grades; guessed unless given")
    name: Name | None = Field(None, description="of the dataset; the file's name unless given")
    project: ProjectName = "default"


class Imported(Answer):
    """The version that stands now."""

    id: str
    dataset: str
    number: int
    task: Task
    rows: dict[str, int]
    labels: int
    content_hash: str
    reused: bool = Field(description="the same examples were already there: no new version")
    guessed: dict[str, str] = Field(default_factory=dict, description="what was guessed: task, columns, encoding")
    warnings: list[tuple[str, dict[str, Any]]] = Field(default_factory=list[tuple[str, dict[str, Any]]], description="keys of the catalogue with their fields")
    card: dict[str, Any] = Field(default_factory=dict)


class ListDatasets(Request):
    """Which dataset versions there are."""

    project: ProjectName = "default"
    limit: int = Field(100, ge=1, le=1000)


class DatasetVersions(Answer):
    """Versions, newest first."""

    versions: list[DatasetVersion]


class ShowDataset(Request):
    """One dataset version."""

    id: str = Field(description="dv_… or name:number or name (its newest)", json_schema_extra={"positional": True})
    project: ProjectName = "default"


class ShownDataset(Answer):
    """A version and its data card."""

    version: DatasetVersion
    card: dict[str, Any]


class ReceiveUpload(Request):
    """A file that has arrived as a blob (the HTTP door streams it in first)."""

    file_name: str
    blob: str
    size_bytes: int
    project: ProjectName = "default"


def import_version(studio: Studio, request: ImportDataset) -> Imported:
    """Read the files, keep their examples as blobs, and put the records of a version (or find the equal one)."""
    from wenfang.data.importing import import_splits

    check_project(studio, request.project)
    folder = studio.home.jobs / "uploads"
    given = {"train": request.train, "valid": request.valid, "test": request.test}
    files = {split: local_path(studio, reference, folder) for split, reference in given.items() if reference}
    if len(files) == 1:
        files = {"all": files["train"]}
    got = import_splits(
        files,
        text=request.text,
        label=request.label,
        task=request.task,
        id=request.id,
        group=request.group,
        text_b=request.text_b,
        target=request.target,
        weight=request.weight,
        graded=request.graded,
        blobs=studio.blobs,
        progress=studio.progress,
    )
    name = request.name or safe_name(next(iter(files.values())).name)
    dataset = studio.named(Dataset, request.project, name)
    if dataset is None:
        dataset = Dataset(id=new_id("ds"), project=request.project, name=name)
        studio.put(dataset)
    versions = studio.find(DatasetVersion, dataset=dataset.id)
    version = next((v for v in versions if v.content_hash == got.content_hash and v.task == got.task), None)
    reused = version is not None
    if version is None:
        version = DatasetVersion(
            id=new_id("dv"), project=request.project, dataset=dataset.id, number=1 + max((v.number for v in versions), default=0), task=got.task,
            labels=got.labels, rows=got.rows, manifest=got.manifest, content_hash=got.content_hash, card=got.card,
        )  # fmt: skip
        studio.put(version)
        studio.tell("dataset.imported", version.id, rows=got.rows, dataset=name)
    return Imported(
        id=version.id, dataset=name, number=version.number, task=version.task, rows=version.rows, labels=len(version.labels), content_hash=version.content_hash,
        reused=reused, guessed=got.guessed, warnings=got.warnings, card=got.card_document,
    )  # fmt: skip


def imported(studio: Studio, request: ImportDataset) -> tuple[DatasetVersion, Imported]:
    """``import_version`` with the record itself, which is not yet in the tables while the operation runs."""
    answer = import_version(studio, request)
    put = (r for r in studio.changes.puts if isinstance(r, DatasetVersion) and r.id == answer.id)
    return next(put, None) or studio.get(DatasetVersion, answer.id), answer


@operation("dataset.import", permission="dataset:write", http="POST /api/v1/datasets/import", long=True)
def import_dataset(studio: Studio, request: ImportDataset) -> Imported:
    """Import files as one immutable dataset version, with its data card."""
    return import_version(studio, request)


@operation("dataset.list", permission="dataset:read", http="GET /api/v1/datasets")
def list_datasets(studio: Studio, request: ListDatasets) -> DatasetVersions:
    """List the dataset versions of a project."""
    return DatasetVersions(versions=studio.find(DatasetVersion, project=request.project, limit=request.limit))


@operation("dataset.show", permission="dataset:read", http="GET /api/v1/datasets/{id}")
def show_dataset(studio: Studio, request: ShowDataset) -> ShownDataset:
    """Show a dataset version and its data card."""
    version = find_dataset_version(studio, request.id, request.project)
    return ShownDataset(version=version, card=json.loads(studio.blobs.get(version.card)))


@operation("dataset.upload", permission="dataset:write", http="POST /api/v1/uploads")
def receive_upload(studio: Studio, request: ReceiveUpload) -> Upload:
    """Keep a file for a later import; over HTTP the body is the file and its name the query parameter file_name."""
    check_project(studio, request.project)
    upload = Upload(id=new_id("up"), project=request.project, file_name=request.file_name, blob=request.blob, size_bytes=request.size_bytes)
    studio.put(upload)
    return upload
