"""Operation that browses the errors of a selection's final model on test: by label, answer or slice, with the texts for those who may read data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wenfang.core.errors import NotFound
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import DatasetVersion, Selection
from wenfang.core.registry import nearest

from .app import Studio
from .selection_records import document_of

__all__ = ["SelectionErrors"]


class BrowseErrors(Request):
    """Which errors of which selection."""

    id: str = Field(description="sl_…", json_schema_extra={"positional": True})
    gold: str | None = Field(None, description="only these in the data; for spans: text that stands in it, such as :ORG")
    predicted: str | None = Field(None, description="only these answers")
    slice: str | None = Field(None, description="only examples of this slice: its name, or short, long, chinese, tail …")
    limit: int = Field(50, ge=1, le=1000)
    offset: int = Field(0, ge=0)


class Error(BaseModel):
    """One wrong answer."""

    model_config = ConfigDict(frozen=True)

    id: str
    gold: str
    predicted: str
    score: float | None
    slices: list[str]
    text: str | None = Field(None, description="only for those who may read the data")
    text_b: str | None = None


class SelectionErrors(Answer):
    """Errors, the most confident (written texts and grades: the furthest off) first."""

    errors: list[Error]
    matching: int = Field(description="errors that the filters leave")
    kept: int = Field(description="errors that were kept, at most 1000")
    total: int = Field(description="errors in all")
    n: int = Field(description="test examples")
    slices: list[str]


@operation("selection.errors", permission="selection:read", http="GET /api/v1/selections/{id}/errors")
def browse_errors(studio: Studio, request: BrowseErrors) -> SelectionErrors:
    """Browse the errors of a selection's model on the test set, filtered by label, answer or slice."""
    selection = studio.get(Selection, request.id)
    document = document_of(studio, selection)
    final, told = document["final"], document["final"]["evaluation"]
    slices = [slice_name(s["name"]) for s in final.get("slices", [])]
    if request.slice is not None and request.slice not in slices:
        raise NotFound("selection.no-slice", slice=request.slice, known=slices, near=nearest(request.slice, slices))
    members: list[list[int]] = final.get("error_slices") or [[] for _ in told["errors"]]
    rows: list[dict[str, Any]] = [{**row, "place": place, "slices": [slices[i] for i in inside]} for place, (row, inside) in enumerate(zip(told["errors"], members, strict=True))]
    rows = [r for r in rows if _wanted(r, request)]
    page = rows[request.offset : request.offset + request.limit]
    texts = _texts(studio, selection, {r["id"] for r in page}) if _may_read(studio) else {}
    written = _written(studio, document) if texts else []
    return SelectionErrors(
        errors=[_error(r, texts, written) for r in page], matching=len(rows), kept=len(told["errors"]), total=told["errors_n"], n=told["n"], slices=slices,
    )  # fmt: skip


def slice_name(name: Mapping[str, Any]) -> str:
    """What a slice is called in a filter: the name its user gave it, column=value, or the end of its key.

    >>> slice_name({"key": "slice.short", "fields": {"upto": 9}}), slice_name({"key": "slice.column", "fields": {"column": "group", "value": "vip"}})
    ('short', 'group=vip')
    """
    fields = name["fields"]
    if name["key"] == "slice.own":
        return str(fields["name"])
    return f"{fields['column']}={fields['value']}" if name["key"] == "slice.column" else str(name["key"]).partition(".")[2]


def _wanted(row: Mapping[str, Any], request: BrowseErrors) -> bool:
    def fits(wanted: str | None, value: str) -> bool:
        return wanted is None or wanted == value or (":" in wanted and wanted in value)

    return fits(request.gold, row["gold"]) and fits(request.predicted, row["predicted"]) and (request.slice is None or request.slice in row["slices"])


def _may_read(studio: Studio) -> bool:
    return studio.actor is not None and "dataset:read" in studio.actor.permissions


def _texts(studio: Studio, selection: Selection, ids: set[str]) -> dict[str, dict[str, str]]:
    """Texts of the examples with these ids, from the dataset version the selection learned from; read part by part until all are found."""
    from wenfang.data.version import iter_examples

    version = studio.get(DatasetVersion, selection.dataset_version)
    found: dict[str, dict[str, str]] = {}
    for part in iter_examples(version.manifest, studio.blobs, "test" if "test" in version.rows else None):
        for i, id in enumerate(part.ids):
            if id in ids:
                found[id] = {name: getattr(part, column)[i] for name, column in (("text", "texts"), ("text_b", "texts_b"), ("gold", "targets")) if getattr(part, column)}
        if len(found) == len(ids):
            break
    return found


def _written(studio: Studio, document: Mapping[str, Any]) -> list[str]:
    """Generated texts of the errors; they are kept apart from the document, which holds no texts."""
    blob: str | None = document.get("written")
    written: list[str] = json.loads(studio.blobs.get(blob)) if blob else []
    return written


def _error(row: Mapping[str, Any], texts: Mapping[str, Mapping[str, str]], written: list[str]) -> Error:
    own = texts.get(row["id"], {})
    place: int = row["place"]
    said = written[place] if written else str(row["predicted"])
    return Error(
        id=row["id"], gold=row["gold"] or own.get("gold", ""), predicted=said, score=row["score"], slices=row["slices"], text=own.get("text"), text_b=own.get("text_b"),
    )  # fmt: skip
