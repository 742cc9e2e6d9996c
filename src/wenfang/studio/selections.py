"""Operations on selections: from data to the chosen, evaluated, registered (and served) model version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field

from wenfang.core.errors import NotFound
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import Run, Selection, Task

from .app import Studio
from .champions import champion_of, duel_with_champion, promote, served
from .names import ProjectName, safe_name
from .selection_checks import checks_of
from .selection_parts import bundle_reader, bundle_writer, data_of, filled, fitting, leaks_of, plan_of, pretrained_of, request_hash, shown_name, splits_of, upstreams_of
from .selection_records import document_of, register, report_path, what_was_tried
from .selection_request import RunSelection
from .teaching import compare_with_teacher, guide_of, taught_by

__all__ = ["RunSelection"]


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
    champion: dict[str, Any] | None = Field(None, description="how it stands to the champion of its name, on the same test examples")
    promoted: bool = Field(True, description="whether it is the champion of its name now")
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
    from wenfang.select.selection import Ports, select

    request = filled(request)
    chosen = {n: families.get(n) for n in (request.families or families.names())}
    pretrained, upstreams = [pretrained_of(studio, p) for p in request.pretrained], upstreams_of(studio, request)
    checks = checks_of(studio, request.checks)
    version, card, notes = data_of(studio, request)
    splits = splits_of(studio, version, request.seed)
    if request.teacher is not None:
        splits["train"] = taught_by(
            studio, request.teacher, splits["train"], unlabelled=request.unlabelled, share=request.teacher_share, text=request.text, project=request.project
        )  # fmt: skip
    work = studio.home.jobs / f"selection-{request_hash(request, version)}"
    plan = plan_of(studio, request, splits["train"], checks)
    with fitting(studio, request.parallel) as fit, what_was_tried(studio, version, work, plan.limits.document()):
        outcome = select(
            splits["train"], splits["valid"], splits["test"], families=chosen, work=work, ports=Ports(studio.host, bundle_writer(studio, version), fit, studio.progress, bundle_reader(studio)),
            plan=plan, leaked_test_rows=leaks_of(splits), card=card, pretrained=pretrained, upstreams=upstreams,
            guide=guide_of(studio, request.teacher, request.project),
        )  # fmt: skip
    outcome.document["teacher"] = request.teacher
    if request.teacher is not None:
        sentence = compare_with_teacher(studio, request.teacher, splits["test"], outcome.verdict, project=request.project, seed=request.seed)
        outcome.sentences.append(sentence)
        outcome.document["verdict"].append(sentence)
    name = request.name or safe_name(Path(shown_name(studio, request)).name)
    duel = duel_with_champion(studio, version, name, splits["test"], outcome.counts, seed=request.seed)
    studio.progress.stage("register")
    model, selection = register(studio, outcome, version, name, served=request.serve)
    promoted, said = promote(studio, model, duel, request.promote, request.margin)
    report_path(studio, selection.id).write_text(outcome.html, encoding="utf-8")
    if request.serve:
        studio.progress.stage("deploy")
        said = [*said, *served(studio, name, model if promoted else champion_of(studio, version.project, name) or model)]
    shutil.rmtree(work, ignore_errors=True)
    return Verdict.model_validate(
        {
            **selection.verdict, "id": selection.id, "model": f"{model.name}:{model.number}", "task": version.task, "verdict": [*outcome.sentences, *said], "data_notes": notes,
            "champion": duel.document() if duel else None, "promoted": promoted,
        }
    )  # fmt: skip


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
    if selection.state == "failed":
        document_of(studio, selection)
    if not studio.blobs.has(selection.report):
        raise NotFound("blob.missing", name=selection.report)
    return Report(html=studio.blobs.get(selection.report).decode())
