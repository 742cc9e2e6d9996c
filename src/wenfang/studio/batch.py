"""The operation that answers a whole file or dataset version with a service, into a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from pydantic import Field

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import Conflict, Denied, Invalid, Unsupported
from wenfang.core.ids import sha256_hex
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.plain import plain
from wenfang.core.records import DatasetVersion, ModelVersion, Service, Task
from wenfang.data.answers import AnswerFile, check_output
from wenfang.data.asked import Asked, Row, asked_of_file, asked_of_version
from wenfang.serve.asking import WRITING, Outcome, ask_model, ask_replicas
from wenfang.serve.pool import Limits
from wenfang.serve.routing import ROUTES_FILE, read_table

from .app import Studio
from .bundles import unpack_bundle
from .names import ProjectName, local_path
from .references import find_dataset_version
from .services import find_service

__all__: list[str] = []

PATH: dict[str, Any] = {"path": True}
"""Marks a field that names a place on the studio's machine: a client beside it sends the whole path."""
TELL_S = 0.2
READY_S = 20.0
FILLED: dict[Task, tuple[str, ...]] = {
    "classification": ("label", "score", "scores"), "multilabel": ("labels", "score", "scores"), "tagging": ("spans", "score", "alternatives"),
    "matching": ("label", "score", "scores"), "embedding": ("score", "vector", "tokens_in"), "generation": ("text", "finish", "score", "tokens_in", "tokens_out", "replies"),
    "chat": ("text", "finish", "score", "tokens_in", "tokens_out", "replies"),
}  # fmt: skip
"""What an answer of each task may hold: the columns of CSV."""


class Batch(Request):
    """Which texts a service shall answer, and where the answers go."""

    service: str = Field(json_schema_extra={"positional": True})
    file: str | None = Field(None, description="file: CSV, TSV, JSONL, JSON, Parquet, XLSX, CoNLL or plain lines", json_schema_extra=PATH)
    dataset: str | None = Field(None, description="instead of a file: dv_… or name:number or name (its newest)")
    split: str | None = Field(None, description="of the dataset version; every split unless given")
    output: str = Field(description="file of the answers: .jsonl or .csv", json_schema_extra=PATH)
    overwrite: bool = Field(False, description="replace the output if it is there")
    text: str | None = Field(None, description="column of the text; guessed unless given")
    text_b: str | None = Field(None, description="column of the second text of pairs; guessed unless given")
    id: str | None = Field(None, description="column that is written beside each answer")
    top_k: int = Field(1, ge=1, le=100, description="labels with probabilities")
    max_tokens: int | None = Field(None, ge=1, le=32_768, description="generation: tokens at most")
    temperature: float | None = Field(None, ge=0, le=10, description="generation: 0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="generation: share of the probability that is drawn from")
    stop: list[str] = Field(default_factory=list, max_length=16, description="generation: ends before any of these")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="generation: equal seed, equal text")
    project: ProjectName = "default"


class Batched(Answer):
    """What was answered."""

    output: str
    rows: int
    failed: int
    errors: dict[str, int] = Field(description="failed rows by error code")
    seconds: float
    texts_per_s: float
    resumed: int = Field(description="rows that an interrupted run had answered")
    model: str
    guessed: dict[str, str] = Field(description="what was guessed of the file: columns, encoding, format")


@operation("service.batch", permission="service:write", http="POST /api/v1/services/{service}/batch", long=True)
def answer_batch(studio: Studio, request: Batch) -> Batched:
    """Answer every row of a file or dataset version with a service; interrupted, it continues where it stopped."""
    if studio.actor is None or not studio.actor.local:
        raise Denied("batch.output-is-local")
    told = studio.home.jobs / studio.job.id / "answered.json" if studio.job is not None else None
    if told is not None and told.is_file():  # the process died after its last step
        return Batched.model_validate_json(told.read_bytes())
    answer, answers = _batched(studio, request)
    if told is not None:
        write_file(told, answer.model_dump_json().encode())
    answers.forget()
    return answer


def _batched(studio: Studio, request: Batch) -> tuple[Batched, AnswerFile]:
    """The whole batch; its output stands when this returns."""
    service = find_service(studio, request.service)
    version = _version(studio, service)
    asked = _asked(studio, request, version)
    output = Path(request.output).expanduser()
    columns = ["row", *(["id"] if _has_id(request) else []), "error", *_columns(version.task, request.top_k)]
    answers = AnswerFile(output, _digest(request, asked, version), columns, overwrite=request.overwrite)
    resumed, began = answers.rows, time.monotonic()
    try:
        if not answers.finished:
            _answer(studio, service, version, asked, answers, request)
            answers.finish()
    finally:
        answers.close()
    took = max(time.monotonic() - began, 1e-6)
    studio.tell("service.batched", service.id, model_version=version.id, rows=answers.rows, failed=answers.failed.total())
    return Batched(
        output=str(output), rows=answers.rows, failed=answers.failed.total(), errors=dict(answers.failed), seconds=round(took, 3),
        texts_per_s=round((answers.rows - resumed) / took, 1), resumed=resumed, model=f"{version.name}:{version.number}", guessed=asked.guessed,
    ), answers  # fmt: skip


def _has_id(request: Batch) -> bool:
    return bool(request.id or request.dataset)


def _version(studio: Studio, service: Service) -> ModelVersion:
    pointer = studio.tables.pointer("service", service.id)
    if pointer is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    if pointer.target.startswith("gr_"):
        raise Unsupported("graph.no-batch", service=service.name)
    return studio.get(ModelVersion, pointer.target)


def _asked(studio: Studio, request: Batch, version: ModelVersion) -> Asked:
    """The rows that the request names.

    Raises:
        Invalid: `batch.one-input`, `batch.columns-of-files`, `gateway.no-pairs`, and whatever is wrong with the file; what ``check_output`` raises.
    """
    output = Path(request.output).expanduser()
    if (request.file is None) == (request.dataset is None):
        raise Invalid("batch.one-input")
    if request.text_b and version.task not in {"matching", "embedding"}:
        raise Invalid("gateway.no-pairs", service=request.service)
    if request.file is not None:
        if request.split:
            raise Invalid("batch.split-of-dataset", split=request.split)
        path = local_path(studio, request.file, studio.home.jobs / "uploads")
        check_output(output, inputs=path)
        return asked_of_file(path, version.task, text=request.text, text_b=request.text_b, id=request.id)
    check_output(output)
    if request.text or request.text_b or request.id:
        raise Invalid("batch.columns-of-files")
    data: DatasetVersion = find_dataset_version(studio, request.dataset or "", request.project)
    pairs = version.task == "matching"
    return asked_of_version(data.manifest, studio.blobs, content_hash=data.content_hash, rows=data.rows, pairs=pairs, split=request.split)


def _options(request: Batch) -> Generation:
    return Generation(max_tokens=request.max_tokens, temperature=request.temperature, top_p=request.top_p, stop=tuple(request.stop), seed=request.seed)


def _digest(request: Batch, asked: Asked, version: ModelVersion) -> str:
    """Of everything that the answers depend on."""
    parts = (1, version.id, asked.sha256, asked.fields, request.top_k, _options(request), Path(request.output).suffix.lower())
    return sha256_hex(msgspec.json.encode(parts))


def _columns(task: Task, top_k: int) -> list[str]:
    return [name for name in FILLED[task] if top_k > 1 or name not in {"scores", "alternatives", "replies"}]


def _answer(studio: Studio, service: Service, version: ModelVersion, asked: Asked, answers: AnswerFile, request: Batch) -> None:
    """Answer what is left of ``asked``: through the running replicas, or with the model loaded here when none run."""
    progress = studio.progress
    if answers.anew:
        progress.note("batch.began-anew", path=str(answers.path))
    progress.stage("batch", total=asked.total, unit="rows")
    progress.advance(answers.rows)
    counted, said_at = answers.rows, time.monotonic()

    def take(row: Row, outcome: Outcome) -> None:
        nonlocal counted, said_at
        about = {"row": row.number} | ({"id": row.id} if _has_id(request) else {})
        answers.add(about | ({"error": outcome} if isinstance(outcome, str) else plain(outcome, row.text, request.top_k)))
        if time.monotonic() - said_at > TELL_S:
            progress.advance(answers.rows - counted, failed=answers.failed.total() or None)
            counted, said_at = answers.rows, time.monotonic()

    def still() -> None:
        if _version(studio, service).id != version.id:
            raise Conflict("batch.version-changed", service=service.name, model=f"{version.name}:{version.number}")

    rows, options = asked.rows, _options(request) if version.task in WRITING else None
    for _ in range(answers.rows):
        next(rows, None)
    sockets, ready_s = _replicas(studio, version)
    limits = Limits(batch_max=studio.settings.serve.batch_max, deadline_s=studio.settings.serve.deadline_s)
    label = f"{version.name}:{version.number}"
    served = bool(sockets) and ask_replicas(version.id, label, sockets, rows, take, limits=limits, top_k=request.top_k, options=options, ready_s=ready_s, still=still)
    if not served:
        from wenfang.models.bundle import open_bundle

        progress.note("batch.in-place", model=label)
        _, model = open_bundle(unpack_bundle(version, studio.blobs, studio.home.cache), verifier=studio.verifier)
        ask_model(model, rows, take, top_k=request.top_k, options=options)
    progress.advance(answers.rows - counted)


def _replicas(studio: Studio, version: ModelVersion) -> tuple[list[str], float]:
    """(sockets of the replicas that a routing table names, how long to wait for the first); none that are there when nothing runs."""
    path = studio.home.run / ROUTES_FILE
    routed = read_table(path).models.get(version.id) if path.is_file() else None
    sockets = routed.sockets if routed is not None else []
    if studio.runtime is not None:
        return sockets, READY_S
    return [s for s in sockets if Path(s).exists()], 1.0
