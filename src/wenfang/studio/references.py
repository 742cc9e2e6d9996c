"""What people call a version: its id, ``name:number``, or ``name`` for the newest."""

from __future__ import annotations

from typing import TypeVar

from wenfang.core.errors import NotFound
from wenfang.core.records import Dataset, DatasetVersion, GraphVersion, ModelVersion
from wenfang.core.registry import nearest

from .app import Studio

__all__ = ["find_dataset_version", "find_graph_version", "find_target", "find_version"]

V = TypeVar("V", ModelVersion, GraphVersion)


def find_version(studio: Studio, reference: str, project: str) -> ModelVersion:
    """A model version by id, ``name:number`` or ``name``.

    Raises:
        NotFound: `record.not-found`, with the nearest.
    """
    return _find_numbered(studio, ModelVersion, reference, project)


def find_graph_version(studio: Studio, reference: str, project: str) -> GraphVersion:
    """A graph by id, ``name:number`` or ``name``; raises what ``find_version`` does."""
    return _find_numbered(studio, GraphVersion, reference, project)


def _find_numbered(studio: Studio, kind: type[V], reference: str, project: str) -> V:
    if reference.startswith(f"{kind.prefix}_"):
        return studio.get(kind, reference)
    name, number = _parts(reference)
    found = [v for v in studio.find(kind, project=project, name=name) if number in {"", str(v.number)}]
    if not found:
        raise _unknown(kind.__name__, reference, [f"{v.name}:{v.number}" for v in studio.find(kind, project=project, limit=50)])
    return max(found, key=lambda v: v.number)


def find_target(studio: Studio, reference: str, project: str) -> ModelVersion | GraphVersion:
    """A model version, or a graph by its id; raises what the others do."""
    return find_graph_version(studio, reference, project) if reference.startswith("gr_") else find_version(studio, reference, project)


def find_dataset_version(studio: Studio, reference: str, project: str) -> DatasetVersion:
    """A dataset version by id, ``name:number`` or ``name``.

    Raises:
        NotFound: `record.not-found`, with the nearest.
    """
    if reference.startswith("dv_"):
        return studio.get(DatasetVersion, reference)
    name, number = _parts(reference)
    names = {d.id: d.name for d in studio.find(Dataset, project=project)}
    versions = studio.find(DatasetVersion, project=project)
    found = [v for v in versions if names.get(v.dataset) == name and number in {"", str(v.number)}]
    if not found:
        raise _unknown("DatasetVersion", reference, [f"{names[v.dataset]}:{v.number}" for v in versions if v.dataset in names])
    return max(found, key=lambda v: v.number)


def _parts(reference: str) -> tuple[str, str]:
    """Name and number; a colon without a number behind it names nothing."""
    name, colon, number = reference.partition(":")
    return name, number if number or not colon else "?"


def _unknown(kind: str, reference: str, known: list[str]) -> NotFound:
    return NotFound("record.not-found", kind=kind, name=reference, near=nearest(reference, known) if known else "—")
