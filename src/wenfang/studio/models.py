"""Operations on the registry: model families, model versions, lineage."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import DatasetVersion, ModelVersion, Selection

from .app import Studio
from .names import ProjectName
from .references import find_version

__all__: list[str] = []


class ListFamilies(Request):
    """Which model families are installed."""


class Families(Answer):
    """Names of families."""

    families: list[str]


class ListModels(Request):
    """Which model versions there are."""

    project: ProjectName = "default"
    limit: int = Field(100, ge=1, le=1000)


class ModelVersions(Answer):
    """Versions, newest first."""

    versions: list[ModelVersion]


class ShowModel(Request):
    """One model version."""

    id: str = Field(description="mv_… or name:number or name (its newest)", json_schema_extra={"positional": True})
    project: ProjectName = "default"


class ShownModel(Answer):
    """A model version with what it comes from."""

    version: ModelVersion
    lineage: dict[str, Any] = Field(description="selection and dataset version it was made by and from")
    manifest: dict[str, Any] = Field(description="of its signed bundle")


@operation("family.list", permission="family:read", http="GET /api/v1/families")
def list_families(studio: Studio, request: ListFamilies) -> Families:  # noqa: ARG001 every operation takes the studio and its request
    """List the model families that are installed."""
    from wenfang.models import families

    return Families(families=families.names())


@operation("model.list", permission="model:read", http="GET /api/v1/models")
def list_models(studio: Studio, request: ListModels) -> ModelVersions:
    """List the model versions of a project."""
    return ModelVersions(versions=studio.find(ModelVersion, project=request.project, limit=request.limit))


@operation("model.show", permission="model:read", http="GET /api/v1/models/{id}")
def show_model(studio: Studio, request: ShowModel) -> ShownModel:
    """Show a model version, its bundle and its lineage."""
    import json

    version = find_version(studio, request.id, request.project)
    selection = studio.tables.get(Selection, version.selection) if version.selection else None
    data = studio.tables.get(DatasetVersion, version.dataset_version) if version.dataset_version else None
    lineage = {"selection": selection.model_dump(mode="json", exclude={"verdict"}) if selection else None, "dataset_version": data.model_dump(mode="json") if data else None}
    return ShownModel(version=version, lineage=lineage, manifest=json.loads(studio.blobs.get(version.bundle)))
