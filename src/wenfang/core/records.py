"""Frozen records: what the studio keeps. A record is a row; ``indexed`` fields are columns one can search, the rest is JSON.

Lineage points from newer to older: service → model version → selection → dataset version. "Current" is a pointer with a history.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from .ids import now
from .scaling import Scaling

__all__ = [
    "RECORDS",
    "ApiKey",
    "AuditEntry",
    "Dataset",
    "DatasetVersion",
    "Event",
    "GraphVersion",
    "Job",
    "ModelVersion",
    "Pointer",
    "Project",
    "QueueBinding",
    "Record",
    "Run",
    "Selection",
    "Service",
    "Task",
    "Upload",
]

Task = Literal["classification", "multilabel", "tagging", "matching", "embedding", "generation", "chat"]


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: ClassVar[str]
    prefix: ClassVar[str]
    indexed: ClassVar[tuple[str, ...]] = ()
    unique: ClassVar[tuple[str, ...]] = ()
    """Fields that together name one record."""

    id: str
    created_at: datetime = Field(default_factory=now)


class Project(Record):
    """A room of its own for data, models and people."""

    table = "projects"
    prefix = "pj"
    indexed = ("name",)
    unique = ("name",)
    name: str
    rate: dict[str, float] = {}
    """As of a service, of all its services together."""
    revision: int = 0


class Dataset(Record):
    """A named series of dataset versions."""

    table = "datasets"
    prefix = "ds"
    indexed = ("project", "name")
    unique = ("project", "name")
    project: str
    name: str


class DatasetVersion(Record):
    """One immutable state of a dataset: Parquet parts and a manifest."""

    table = "dataset_versions"
    prefix = "dv"
    indexed = ("project", "dataset", "number", "content_hash")
    unique = ("dataset", "number")
    project: str
    dataset: str
    number: int
    task: Task
    labels: list[str]
    rows: dict[str, int]
    """Rows by split: ``train``, ``valid``, ``test`` or ``all``."""
    manifest: str
    """Blob of the manifest, SHA-256."""
    content_hash: str
    """Of the examples, independent of how they are stored."""
    card: str
    """Blob of the data card (JSON)."""


class Selection(Record):
    """Runs compared under limits, with a verdict."""

    table = "selections"
    prefix = "sl"
    indexed = ("project", "dataset_version")
    project: str
    dataset_version: str
    limits: dict[str, Any]
    verdict: dict[str, Any]
    """What ``run --json`` prints."""
    report: str
    """Blob of the HTML report."""
    document: str
    """Blob of ``selection.json``."""
    state: Literal["done", "failed"] = "done"
    """``failed``: it ended without a verdict; its document holds the runs, the families given up and the error, ``report`` is empty."""


class Run(Record):
    """One fit of one family."""

    table = "runs"
    prefix = "rn"
    indexed = ("project", "selection", "family")
    project: str
    selection: str
    family: str
    params: dict[str, Any]
    metrics: dict[str, Any]
    seed: int
    environment: dict[str, str]
    state: Literal["done", "failed", "stopped"]
    note: str = ""


class ModelVersion(Record):
    """One signed bundle in the registry."""

    table = "model_versions"
    prefix = "mv"
    indexed = ("project", "name", "number", "bundle")
    unique = ("project", "name", "number")
    project: str
    name: str
    number: int
    family: str
    task: Task
    labels: list[str]
    bundle: str
    """Blob of the signed manifest (its SHA-256); its files are blobs named in it."""
    signature: str
    """Blob of the signature over the manifest."""
    size_bytes: int
    dataset_version: str | None = None
    selection: str | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)


class GraphVersion(Record):
    """Several model versions composed into one; immutable as they are."""

    table = "graph_versions"
    prefix = "gr"
    indexed = ("project", "name", "number", "content_hash")
    unique = ("project", "name", "number")
    project: str
    name: str
    number: int
    task: Task
    """Of its answers."""
    labels: list[str]
    graph: dict[str, Any]
    """Steps and answer, models by id; ``serve/graphs.py`` reads it."""
    models: list[str]
    """Ids of the model versions it asks."""
    content_hash: str


class Service(Record):
    """A named endpoint; which model version or graph it answers with is the pointer ``service/<id>``."""

    table = "services"
    prefix = "sv"
    indexed = ("name", "project")
    unique = ("name",)
    project: str
    name: str
    replicas: int
    """How many, where ``scaling`` does not say it."""
    scaling: Scaling | None = None
    rate: dict[str, float] = {}
    """What may be asked each second: ``requests_per_s``, ``texts_per_s``, ``tokens_per_s``; one that is not there has no limit."""
    strategy: Literal["surge", "rolling", "blue-green"] = "surge"
    """How it changes to another version."""
    keep_warm_s: float = 0.0
    """The version before keeps its replicas for so long after a change: going back is instant."""
    revision: int = 0


class Job(Record):
    """Long work in a process of its own. Records that change (jobs, keys, services) raise ``revision`` each time."""

    table = "jobs"
    prefix = "jb"
    indexed = ("project", "state", "operation")
    project: str
    operation: str
    request: dict[str, Any]
    actor: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    revision: int = 0
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    answer: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class ApiKey(Record):
    """An API key; the key itself is shown once and never kept."""

    table = "api_keys"
    prefix = "ky"
    indexed = ("digest", "project", "name")
    unique = ("digest",)
    digest: str
    """SHA-256 of the key (256 random bits, so a fast hash is right)."""
    name: str
    role: str
    project: str | None
    """None: every project."""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rate: dict[str, float] = {}
    """As of a service."""
    revision: int = 0


class Upload(Record):
    """A file somebody sent, waiting to be imported."""

    table = "uploads"
    prefix = "up"
    indexed = ("project",)
    project: str
    file_name: str
    blob: str
    size_bytes: int


class QueueBinding(Record):
    """A request queue that a service answers; bus and request queue name it."""

    table = "queue_bindings"
    prefix = "qb"
    indexed = ("project", "service", "bus", "requests")
    unique = ("bus", "requests")
    project: str
    service: str
    """Its name."""
    bus: str
    """URL without a password; empty: the one of the settings."""
    requests: str
    replies: str
    dead_letters: str
    concurrency: int
    attempts: int
    detached: bool = False
    revision: int = 0

    @property
    def socket(self) -> str:
        """File name of its worker's socket under ``run/``."""
        return f"queue-{self.id[-10:]}.sock"


class Pointer(BaseModel):
    """What ``key`` of ``kind`` stands for since ``at``; older rows are its history."""

    model_config = ConfigDict(frozen=True)
    kind: str
    key: str
    target: str
    seq: int = 0
    at: datetime = Field(default_factory=now)
    actor: str = ""


class Event(BaseModel):
    """Something that happened, written in the same transaction as the records it tells of (outbox)."""

    model_config = ConfigDict(frozen=True)
    id: str
    seq: int = 0
    at: datetime = Field(default_factory=now)
    kind: str
    """``noun.past``: ``dataset.imported``."""
    actor: str
    subject: str
    data: dict[str, Any] = Field(default_factory=dict)


class AuditEntry(BaseModel):
    """One line of the audit: who asked for what, and what came of it. ``hash = SHA-256(previous ‖ canonical JSON of the rest)``."""

    model_config = ConfigDict(frozen=True)
    seq: int
    at: datetime
    actor: str
    operation: str
    subject: str
    outcome: Literal["done", "refused", "failed"]
    code: str = ""
    request_id: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)
    previous: str = ""
    hash: str = ""


RECORDS: tuple[type[Record], ...] = (Project, Dataset, DatasetVersion, Selection, Run, ModelVersion, GraphVersion, Service, Job, ApiKey, Upload, QueueBinding)
