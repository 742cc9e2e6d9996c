"""Operations on selections: from data to the chosen, evaluated, registered (and served) model version."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from wenfang.core.errors import Invalid, NotFound
from wenfang.core.examples import Examples
from wenfang.core.ids import new_id
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import DatasetVersion, ModelVersion, Run, Selection, Task

from .app import Studio
from .datasets import FILE, ImportDataset, import_version
from .names import Name, ProjectName, safe_name
from .selection_checks import checks_of
from .services import deploy_version
from .serving import store_bundle
from .teaching import compare_with_teacher, taught_by

__all__ = ["RunSelection"]

VALID_SHARE = TEST_SHARE = 0.1
EARLIER_MAX = 50
"""Earlier selections whose recipes are looked at."""


class RunSelection(Request):
    """Data, limits, and what to do with the winner."""

    train: str = Field(description="file, or dv_… of a version that is there already", json_schema_extra={**FILE, "positional": True})
    valid: str | None = Field(None, description="file of the validation split; a tenth of the data unless given", json_schema_extra=FILE)
    test: str | None = Field(None, description="file of the test split; a tenth of the data unless given", json_schema_extra=FILE)
    task: Task | None = Field(None, description="guessed from the data unless given")
    text: str | None = Field(None, description="column of the text; guessed unless given")
    label: str | None = Field(None, description="column of the label; guessed unless given")
    id: str | None = Field(None, description="column of the example's id")
    group: str | None = Field(None, description="column whose equal values stay on one side of a split")
    text_b: str | None = Field(None, description="column of the second text of pairs; guessed unless given")
    target: str | None = Field(None, description="column of the text that should be generated; guessed unless given")
    weight: str | None = Field(None, description="column of how much each example counts in learning")
    graded: bool | None = Field(None, description="labels of pairs are grades; guessed unless given")
    name: Name | None = Field(None, description="of the dataset, the model and the service; the file's name unless given")
    budget_s: float = Field(300, gt=0, le=7 * 86400, description="seconds for search, refit and measuring")
    max_latency_ms: float | None = Field(None, gt=0, description="limit of the p99 of a single text")
    max_size_bytes: int | None = Field(None, gt=0, description="limit of the bundle")
    max_memory_bytes: int | None = Field(None, gt=0, description="limit of a replica's memory")
    families: list[str] | None = Field(None, description="only these")
    objectives: list[str] = Field(["score"], description="score, or with latency, size, memory: what the front should span")
    parallel: int = Field(1, ge=1, le=64, description="fits at once, each in a process of its own; latency is always measured alone")
    pretrained: list[str] = Field(default_factory=list, description="local directories of the transformers library to try")
    checks: str | None = Field(None, description="TOML file of your own slices, robustness tests, a price; see docs/checks.md", json_schema_extra=FILE)
    teacher: str | None = Field(None, description="model version whose opinion the candidates learn from, mv_… or name:number")
    teacher_share: float = Field(0.5, ge=0, le=1, description="share of the teacher's probabilities in the targets of labelled examples")
    unlabelled: list[str] = Field(default_factory=list, description="files or dv_… of texts that the teacher labels", json_schema_extra=FILE)
    seed: int = Field(0, ge=0, lt=2**31)
    serve: bool = Field(False, description="deploy the winner as a service of that name")
    project: ProjectName = "default"


class Verdict(Answer):
    """What was chosen, how good it is and how to call it."""

    id: str
    dataset_version: str
    model_version: str
    model: str
    family: str
    task: Task
    metric: str
    valid: dict[str, float]
    test: dict[str, float]
    latency_ms: dict[str, float]
    size_bytes: int
    service: str | None
    report: str = Field(description="path of the HTML report on the machine that made it")
    candidates: list[dict[str, Any]]
    verdict: list[tuple[str, dict[str, Any]]] = Field(description="why, as keys of the catalogue with their fields")
    data_notes: list[tuple[str, dict[str, Any]]] = Field(default_factory=list[tuple[str, dict[str, Any]]], description="what the data card warns of")


class ListSelections(Request):
    """Which selections there are."""

    project: ProjectName = "default"
    limit: int = Field(100, ge=1, le=1000)


class Selections(Answer):
    """Selections, newest first."""

    selections: list[Selection]


class OneSelection(Request):
    """One selection."""

    id: str = Field(description="sl_…", json_schema_extra={"positional": True})


class ShownSelection(Answer):
    """A selection and its whole document."""

    selection: Selection
    document: dict[str, Any]


class Runs(Answer):
    """The runs of a selection."""

    runs: list[Run]


class Report(Answer):
    """The report as one HTML page."""

    html: str


@operation("selection.run", permission="selection:write", http="POST /api/v1/selections/run", long=True)
def run_selection(studio: Studio, request: RunSelection) -> Verdict:
    """Import, check, split, compare families inside the limits, refit, test, register and (if asked) serve the best model."""
    from wenfang.models import families
    from wenfang.select.selection import Limits, Ports, select

    chosen = {n: families.get(n) for n in (request.families or families.names())}
    checks = checks_of(studio, request.checks)
    version, card, notes = _data(studio, request)
    splits = _splits(studio, version, request)
    if request.teacher is not None:
        splits["train"] = taught_by(
            studio, request.teacher, splits["train"], unlabelled=request.unlabelled, share=request.teacher_share, text=request.text, project=request.project
        )  # fmt: skip
    work = studio.home.jobs / f"selection-{_request_hash(request, version)}"
    limits = Limits(max_latency_ms=request.max_latency_ms, max_size_bytes=request.max_size_bytes, max_memory_bytes=request.max_memory_bytes)
    with _fitting(studio, request) as fit:
        outcome = select(
            splits["train"], splits["valid"], splits["test"], families=chosen, work=work, ports=Ports(studio.host, _bundle_writer(studio, version), fit, studio.progress, _bundle_reader(studio)),
            plan=replace(_plan(studio, request, limits, splits["train"]), checks=checks), leaked_test_rows=_leaks(splits), card=card, pretrained=[_pretrained(studio, p) for p in request.pretrained],
        )  # fmt: skip
    if request.teacher is not None:
        sentence = compare_with_teacher(studio, request.teacher, splits["test"], outcome.verdict, project=request.project, seed=request.seed)
        outcome.sentences.append(sentence)
        outcome.document["verdict"].append(sentence)
    name = request.name or safe_name(Path(_shown_name(studio, request)).name)
    studio.progress.stage("register")
    model, selection = _register(studio, outcome, version, name)
    report = work.with_name(f"{selection.id}.html")
    report.write_text(outcome.html, encoding="utf-8")
    if request.serve:
        studio.progress.stage("deploy")
        deploy_version(studio, name, model)
    shutil.rmtree(work, ignore_errors=True)
    return Verdict.model_validate(
        {
            **outcome.verdict, "id": selection.id, "dataset_version": version.id, "model_version": model.id, "model": f"{model.name}:{model.number}", "task": version.task,
            "service": name if request.serve else None, "report": str(report), "verdict": outcome.sentences, "data_notes": notes,
        }
    )  # fmt: skip


def _pretrained(studio: Studio, reference: str) -> Path:
    """A directory made here, by name, or any path."""
    own = studio.home.pretrained / reference
    return own if "/" not in reference and own.is_dir() else Path(reference)


def _fitting(studio: Studio, request: RunSelection) -> AbstractContextManager[Any]:
    """Where fits run."""
    from wenfang.select.apart import FitApart
    from wenfang.select.trial import fit_here

    return FitApart(studio.workers, parallel=request.parallel, logs=studio.home.logs) if studio.workers is not None else nullcontext(fit_here)


def _plan(studio: Studio, request: RunSelection, limits: Any, train: Examples) -> Any:
    """What is asked for, with the recipes that did well on data like these before."""
    from wenfang.select.earlier import describe, earlier_from, nearest_recipes
    from wenfang.select.selection import Plan

    documents = [json.loads(studio.blobs.get(s.document)) for s in studio.find(Selection, limit=EARLIER_MAX) if studio.blobs.has(s.document)]
    earlier = [e for d in documents if (e := earlier_from(d)) is not None]
    recipes = nearest_recipes(describe(train), earlier) if len(train) else []
    return Plan(request.budget_s, limits, objectives=tuple(request.objectives), seed=request.seed, parallel=request.parallel, earlier=recipes)


def _data(studio: Studio, request: RunSelection) -> tuple[DatasetVersion, dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The dataset version to learn from, its card, and the card's warnings."""
    if request.train.startswith("dv_"):
        version = studio.get(DatasetVersion, request.train)
        return version, json.loads(studio.blobs.get(version.card)), []
    fields = {k: getattr(request, k) for k in ImportDataset.model_fields if hasattr(request, k)}
    got = import_version(studio, ImportDataset(**fields))
    for key, value in {**got.guessed}.items():
        studio.progress.note("run.guessed", what=key, value=value)
    put = next((r for r in studio.changes.puts if r.id == got.id), None)
    version = put if isinstance(put, DatasetVersion) else studio.get(DatasetVersion, got.id)
    return version, got.card, got.warnings


def _splits(studio: Studio, version: DatasetVersion, request: RunSelection) -> dict[str, Examples]:
    """Train, valid and test: as given, the missing ones cut from the data with the leak guard."""
    from wenfang.data.split import split_rows
    from wenfang.data.version import load_examples

    studio.progress.stage("split")
    parts = {split: load_examples(version.manifest, studio.blobs, split) for split in version.rows}
    pool = parts.pop("all", None) or parts.pop("train", None)
    if pool is None:
        raise Invalid("data.no-train-split", splits=list(version.rows))
    missing = {"valid": VALID_SHARE, "test": TEST_SHARE}
    shares = {s: share for s, share in missing.items() if s not in parts}
    if shares:
        rows = split_rows(pool, shares={"train": 1 - sum(shares.values()), **shares}, seed=request.seed)
        parts.update({split: pool.take(rows[split]) for split in ("train", *shares)})
    else:
        parts["train"] = pool
    for split, examples in parts.items():
        if len(examples) == 0:
            raise Invalid("data.split-empty", split=split, rows=len(pool))
    return parts


def _leaks(splits: dict[str, Examples]) -> list[int]:
    from wenfang.data.leaks import leaked_rows

    return leaked_rows(splits["train"] + splits["valid"], splits["test"])


def _bundle_writer(studio: Studio, version: DatasetVersion) -> Callable[..., Any]:
    from wenfang.models.bundle import write_bundle

    lineage = {"dataset_version": version.id, "content_hash": version.content_hash, "operation": "selection.run", "request": studio.request_id}

    def write(folder: Path, model: Any, card: dict[str, Any]) -> Any:
        return write_bundle(folder, model, signer=studio.signer, card=card, lineage=lineage)

    return write


def _bundle_reader(studio: Studio) -> Callable[[Path], Any]:
    from wenfang.models.bundle import open_bundle

    return lambda folder: open_bundle(folder, verifier=studio.verifier)[1]


def _register(studio: Studio, outcome: Any, version: DatasetVersion, name: str) -> tuple[ModelVersion, Selection]:
    """Put the selection, its runs and the model version."""
    manifest, signature = store_bundle(outcome.bundle, studio.blobs)
    if outcome.written:
        outcome.document["written"] = studio.blobs.put(json.dumps(outcome.written, ensure_ascii=False).encode())
    number = 1 + max((m.number for m in studio.find(ModelVersion, project=version.project, name=name)), default=0)
    selection = Selection(
        id=new_id("sl"), project=version.project, dataset_version=version.id, limits=outcome.document["limits"], verdict=outcome.verdict,
        report=studio.blobs.put(outcome.html.encode()), document=studio.blobs.put(json.dumps(outcome.document, ensure_ascii=False, default=str).encode()),
    )  # fmt: skip
    model = ModelVersion(
        id=new_id("mv"), project=version.project, name=name, number=number, family=outcome.verdict["family"], task=version.task, labels=version.labels, bundle=manifest,
        signature=signature, size_bytes=outcome.verdict["size_bytes"], dataset_version=version.id, selection=selection.id, metrics={k: outcome.verdict[k] for k in ("metric", "valid", "test", "latency_ms")},
    )  # fmt: skip
    for run in outcome.document["runs"]:
        fields = {k: run[k] for k in ("family", "params", "metrics", "seed", "environment", "state")}
        studio.put(Run(id=new_id("rn"), project=version.project, selection=selection.id, note=run.get("note", ""), **fields))
    studio.put(selection)
    studio.put(model)
    studio.point("model", f"{version.project}/{name}/champion", model.id)
    studio.tell("model.registered", model.id, family=model.family, selection=selection.id)
    return model, selection


def _request_hash(request: RunSelection, version: DatasetVersion) -> str:
    text = request.model_dump_json(exclude={"serve", "name"}) + version.content_hash
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown_name(studio: Studio, request: RunSelection) -> str:
    from wenfang.core.records import Dataset, Upload

    if request.train.startswith("upload:"):
        return studio.get(Upload, request.train.removeprefix("upload:")).file_name
    if request.train.startswith("dv_"):
        return studio.get(Dataset, studio.get(DatasetVersion, request.train).dataset).name
    return request.train


@operation("selection.list", permission="selection:read", http="GET /api/v1/selections")
def list_selections(studio: Studio, request: ListSelections) -> Selections:
    """List selections."""
    return Selections(selections=studio.find(Selection, project=request.project, limit=request.limit))


@operation("selection.show", permission="selection:read", http="GET /api/v1/selections/{id}")
def show_selection(studio: Studio, request: OneSelection) -> ShownSelection:
    """Show a selection with everything that was measured."""
    selection = studio.get(Selection, request.id)
    return ShownSelection(selection=selection, document=json.loads(studio.blobs.get(selection.document)))


@operation("selection.runs", permission="selection:read", http="GET /api/v1/selections/{id}/runs")
def list_runs(studio: Studio, request: OneSelection) -> Runs:
    """List the runs a selection compared."""
    return Runs(runs=studio.find(Run, selection=studio.get(Selection, request.id).id))


@operation("selection.report", permission="selection:read", http="GET /api/v1/selections/{id}/report")
def read_report(studio: Studio, request: OneSelection) -> Report:
    """Read the HTML report of a selection."""
    selection = studio.get(Selection, request.id)
    if not studio.blobs.has(selection.report):
        raise NotFound("blob.missing", name=selection.report)
    return Report(html=studio.blobs.get(selection.report).decode())
