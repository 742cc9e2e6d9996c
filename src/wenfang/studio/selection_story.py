"""Operations on a selection that has ended: why it chose so, and whether it would again. And the scenarios a new one may start from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wenfang.core.errors import Unsupported
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import DatasetVersion, Selection, Task
from wenfang.core.words import language

from .app import Studio
from .selection_parts import fitting, splits_of
from .selection_records import document_of

__all__: list[str] = []


class ExplainSelection(Request):
    """Which selection, and in which language."""

    id: str = Field(description="sl_…", json_schema_extra={"positional": True})
    lang: Literal["zh", "en"] | None = Field(None, description="the surroundings' unless given")


class Explanation(Answer):
    """Why this model."""

    text: str
    sections: dict[str, list[tuple[str, dict[str, Any]]]] = Field(description="the same as keys of the catalogue with their fields")


class RerunSelection(Request):
    """Which selection."""

    id: str = Field(description="sl_…", json_schema_extra={"positional": True})


class Rerun(Answer):
    """Whether the chosen recipe gives the same figures again."""

    run: str
    same: bool
    figures: list[dict[str, Any]] = Field(description="split, then, now: scores before and now")
    versions: dict[str, list[str]] = Field(description="libraries whose version has changed: then, now")
    note: str = Field(description="what limits the comparison; empty: nothing")


class ListPresets(Request):
    """Which scenarios there are."""

    lang: Literal["zh", "en"] | None = Field(None, description="of the titles; the surroundings' unless given")


class ShownPreset(Answer):
    """One scenario."""

    name: str
    title: str
    task: Task
    metric: str
    max_latency_ms: float | None
    families: list[str]
    robustness: list[str]
    why: str


class Presets(Answer):
    """Scenarios by name."""

    presets: list[ShownPreset]


@operation("selection.explain", permission="selection:read", http="GET /api/v1/selections/{id}/explain")
def explain_selection(studio: Studio, request: ExplainSelection) -> Explanation:
    """Say why this model was chosen, what the limits kept out, what was tried and what more time would bring."""
    from wenfang.select.explain import explain, explain_text

    document = document_of(studio, studio.get(Selection, request.id))
    return Explanation(text=explain_text(document, request.lang), sections=explain(document))


@operation("selection.presets", permission="selection:read", http="GET /api/v1/presets")
def list_presets(studio: Studio, request: ListPresets) -> Presets:  # noqa: ARG001 every operation takes the studio and its request
    """List the scenarios that fill a selection's request: task, metric, limits, families, robustness tests."""
    from wenfang.select.presets import presets

    lang = language(request.lang)
    fields = ("name", "task", "metric", "max_latency_ms", "families", "robustness")
    return Presets(presets=[ShownPreset(title=p.title[lang], why=p.why[lang], **{f: getattr(p, f) for f in fields}) for p in presets().values()])


@operation("selection.rerun", permission="selection:write", http="POST /api/v1/selections/{id}/rerun", long=True)
def rerun_selection(studio: Studio, request: RerunSelection) -> Rerun:
    """Fit the chosen recipe again on the same data with the same seed and compare its scores with the recorded ones."""
    from wenfang.models import families
    from wenfang.select.rerun import rerun

    selection = studio.get(Selection, request.id)
    document = document_of(studio, selection)
    if document.get("teacher"):
        raise Unsupported("select.rerun-taught", teacher=document["teacher"])
    splits = splits_of(studio, studio.get(DatasetVersion, selection.dataset_version), document["seed"])
    studio.progress.stage("fit", 1, "runs")
    with fitting(studio) as fit:
        found = rerun(document, splits, family=families.get(document["final"]["family"]), fit=fit, progress=studio.progress)
    return Rerun(**found.document())
