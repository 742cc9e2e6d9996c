"""Operations on what a service is as a whole: applied from a file, changed by single fields, written back."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wenfang.core.errors import Conflict, Invalid, NotFound
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import Service
from wenfang.core.scaling import Scaling
from wenfang.serve.affording import check_scaling

from .app import Studio
from .deploying import deployed
from .machine import machine_of
from .names import ProjectName, check_project
from .references import find_target
from .service_file import TEXT_MAX, read_scaling, read_service_file, write_service_file
from .services import Deployed, OneService, deploy_version, find_service, serve_version, shown_service
from .targets import Target, target_of

__all__: list[str] = []

FLAGS = {
    "min": ("min",), "max": ("max",), "idle_s": ("idle_s",), "cold_start_s": ("cold_start_s",),
    "queue_ms": ("target", "queue_ms"), "busy": ("target", "busy"), "in_flight": ("target", "in_flight"),
    "up_s": ("cooldown", "up_s"), "down_s": ("cooldown", "down_s"), "money_per_hour": ("budget", "money_per_hour"),
    "cores": ("budget", "cores"), "memory_bytes": ("budget", "memory_bytes"),
}  # fmt: skip
"""Fields of the request and where they stand in a scaling."""


class ApplyService(Request):
    """A service as it shall be."""

    spec: str = Field(max_length=TEXT_MAX, description="the text of a service.toml; on the command line its name, or -", json_schema_extra={"positional": True, "read": True})
    project: ProjectName = "default"


class ScaleService(Request):
    """What shall change of a service's scaling; the rest stays."""

    service: str = Field(json_schema_extra={"positional": True})
    min: int | None = Field(None, description="replicas at least; 0: none while nobody asks")
    max: int | None = Field(None, description="replicas at most")
    queue_ms: float | None = Field(None, description="target: 95 of 100 texts wait no longer for a replica")
    busy: float | None = Field(None, description="target: share of its time a replica works")
    in_flight: float | None = Field(None, description="target: texts with or before a replica")
    idle_s: float | None = Field(None, description="where min is 0: none when nobody has asked for so long")
    cold_start_s: float | None = Field(None, description="where min is 0: one stays when starting takes longer")
    up_s: float | None = Field(None, description="between two steps up")
    down_s: float | None = Field(None, description="before a step down")
    money_per_hour: float | None = Field(None, description="budget of all replicas, by the prices of the settings")
    cores: float | None = Field(None, description="budget of all replicas")
    memory_bytes: int | None = Field(None, description="budget of all replicas")
    replicas: int | None = Field(None, ge=1, le=64, description="a number that stands; what was said of scaling is forgotten")


class Applied(Answer):
    """A service as it is now."""

    service: Deployed
    scaling: Scaling | None
    revision: int


class WrittenService(Answer):
    """A service as a file."""

    service: str
    revision: int
    toml: str


@operation("service.apply", permission="service:write", http="POST /api/v1/services/apply")
def apply_service(studio: Studio, request: ApplyService) -> Applied:
    """Make a service what its file says: model version, replicas or their bounds and target, rate; what the file leaves out has its default."""
    file, scaling = read_service_file(request.spec)
    check_project(studio, request.project)
    if scaling is not None:
        check_scaling(scaling, machine_of(studio.settings))
    found = studio.named(Service, request.project, file.service)
    fields: dict[str, Any] = {"scaling": scaling, "rate": file.rate.rate()}
    if file.replicas:
        fields["replicas"] = file.replicas
    if file.model is None and found is None:
        raise NotFound("scaling.no-model", service=file.service)
    version = find_target(studio, file.model, request.project) if file.model is not None else None
    if version is None or (found is not None and _answers_with(studio, found, version)):
        return _changed(studio, find_service(studio, file.service), fields)
    deployed = deploy_version(studio, file.service, version, **fields)
    written = next((r.revision for r, _ in studio.changes.updates if isinstance(r, Service)), 0 if found is None else found.revision)
    return Applied(service=deployed, scaling=scaling, revision=written)


@operation("service.scale", permission="service:write", http="POST /api/v1/services/{service}/scale")
def scale_service(studio: Studio, request: ScaleService) -> Applied:
    """Change single fields of how a service's replicas follow the load; without a scaling so far, min and max are needed."""
    service = find_service(studio, request.service)
    given = {name: value for name in FLAGS if (value := getattr(request, name)) is not None}
    if request.replicas is not None:
        if given:
            raise Invalid("scaling.two-ways", keys=sorted(given))
        return _changed(studio, service, {"scaling": None, "replicas": request.replicas})
    if not given:
        raise Invalid("scaling.nothing-given", known=[f"--{name.replace('_', '-')}" for name in (*FLAGS, "replicas")])
    tree: dict[str, Any] = service.scaling.model_dump(mode="json", exclude_defaults=True) if service.scaling is not None else {}
    for name, value in given.items():
        *tables, key = FLAGS[name]
        part = tree
        for table in tables:
            part = part.setdefault(table, {})
        part[key] = value
    if request.min and all(window["min"] for window in tree.get("windows", [])):  # what was said of none means nothing any more, unless it is said now
        for name in {"idle_s", "cold_start_s"} - given.keys():
            tree.pop(name, None)
    scaling = read_scaling(tree)
    check_scaling(scaling, machine_of(studio.settings))
    return _changed(studio, service, {"scaling": scaling})


@operation("service.spec", permission="service:read", http="GET /api/v1/services/{service}/spec")
def write_service(studio: Studio, request: OneService) -> WrittenService:
    """Write a service down as the file that `service apply` takes."""
    service = find_service(studio, request.service)
    shown = shown_service(studio, service)
    return WrittenService(service=service.name, revision=service.revision, toml=write_service_file(service, _written(shown)))


def _written(shown: Deployed | None) -> str:
    """What the file calls what a service answers with: a model version by name, a graph by id."""
    return "" if shown is None else shown.model_version if shown.model_version.startswith("gr_") else shown.model


def _answers_with(studio: Studio, service: Service, version: Target) -> bool:
    pointer = studio.tables.pointer("service", service.id)
    return pointer is not None and pointer.target == version.id


def _changed(studio: Studio, service: Service, fields: dict[str, Any]) -> Applied:
    """Change a service that keeps its model version; the replicas it then needs answer before the records are written."""
    changed = service.model_copy(update={**fields, "revision": service.revision + 1})
    pointer = studio.tables.pointer("service", service.id)
    version = target_of(studio.tables, pointer.target) if pointer else None
    if version is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    count = serve_version(studio, changed, version)
    studio.update(changed, service.revision)
    said = changed.scaling.model_dump(mode="json", exclude_defaults=True) if changed.scaling is not None else {}
    studio.tell("service.applied", service.id, revision=changed.revision, replicas=changed.replicas, scaling=said, rate=changed.rate)
    return Applied(service=deployed(changed, version, count), scaling=changed.scaling, revision=changed.revision)
