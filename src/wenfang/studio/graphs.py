"""Operations on graphs: several model versions composed into one that a service answers with."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
from pydantic import Field

from wenfang.core.errors import Conflict, Invalid
from wenfang.core.ids import new_id, sha256_hex
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import GraphVersion, ModelVersion
from wenfang.serve.graph_checks import SIZE_MAX_BYTES, STEPS_MAX, Facts, check_graph
from wenfang.serve.graphs import Graph

from .app import Studio
from .names import Name, ProjectName, check_project
from .references import find_graph_version, find_version
from .services import find_service
from .targets import models_of, target_of

__all__: list[str] = []


class ComposeGraph(Request):
    """Steps that shall answer as one."""

    name: Name = Field(json_schema_extra={"positional": True})
    graph: dict[str, Any] | str = Field(
        description="an object, or TOML or JSON as text; on the command line the name of its file, or -", json_schema_extra={"positional": True, "read": True}
    )
    project: ProjectName = "default"


class Composed(Answer):
    """A version of a graph."""

    id: str
    graph: str = Field(description="name:number")
    task: str = Field(description="of its answers")
    labels: list[str]
    models: dict[str, str] = Field(description="by step: the model version it asks")
    fresh: bool = Field(description="false: a version of these very steps was there already")


class ListGraphs(Request):
    """Which graphs there are."""

    project: ProjectName = "default"
    limit: int = Field(100, ge=1, le=1000)


class Graphs(Answer):
    """Versions, newest first."""

    graphs: list[GraphVersion]


class ShowGraph(Request):
    """One graph."""

    id: str = Field(description="gr_… or name:number or name (its newest)", json_schema_extra={"positional": True})
    project: ProjectName = "default"


class ShownGraph(Answer):
    """A graph with what it comes from."""

    version: GraphVersion
    lineage: dict[str, Any] = Field(description="by step: its model version, and the selection and dataset version that was made by and from")


@operation("service.compose", permission="service:write", http="POST /api/v1/graphs/compose")
def compose_graph(studio: Studio, request: ComposeGraph) -> Composed:
    """Compose model versions into a graph that a service can answer with; nothing is deployed."""
    check_project(studio, request.project)
    graph, versions = _resolved(studio, _read(request.graph), request.project)
    whole = check_graph(graph, {id: Facts(v.task, v.labels) for id, v in versions.items()})
    content = msgspec.json.encode(graph, order="sorted")
    before = studio.find(GraphVersion, project=request.project, name=request.name)
    found = next((g for g in before if g.content_hash == sha256_hex(content)), None)
    number = max((g.number for g in before), default=0) + 1
    made = found or GraphVersion(
        id=new_id("gr"), project=request.project, name=request.name, number=number, task=whole.task, labels=list(whole.labels), graph=json.loads(content),
        models=sorted(versions), content_hash=sha256_hex(content),
    )  # fmt: skip
    if found is None:
        studio.put(made)
        studio.tell("graph.composed", made.id, models=made.models)
    names = {id: f"{v.name}:{v.number}" for id, v in versions.items()}
    shown = {name: names[step.model] for name, step in graph.steps.items()}
    return Composed(id=made.id, graph=f"{made.name}:{made.number}", task=made.task, labels=made.labels, models=shown, fresh=found is None)


@operation("service.graphs", permission="service:read", http="GET /api/v1/graphs")
def list_graphs(studio: Studio, request: ListGraphs) -> Graphs:
    """List the graphs of a project."""
    return Graphs(graphs=studio.find(GraphVersion, project=request.project, limit=request.limit))


@operation("service.graph", permission="service:read", http="GET /api/v1/graphs/{id}")
def show_graph(studio: Studio, request: ShowGraph) -> ShownGraph:
    """Show a graph, its steps and the model versions, selections and data they come from."""
    version = find_graph_version(studio, request.id, request.project)
    models = {m.id: m for m in models_of(studio.tables, version)}
    lineage: dict[str, Any] = {}
    for name, step in version.graph["steps"].items():
        model = models[step["model"]]
        lineage[name] = {
            "model_version": model.id,
            "model": f"{model.name}:{model.number}",
            "task": model.task,
            "selection": model.selection,
            "dataset_version": model.dataset_version,
        }
    return ShownGraph(version=version, lineage=lineage)


# ------------------------------------------------------------ what somebody wrote
def _read(given: dict[str, Any] | str) -> dict[str, Any]:
    """The graph as it was given, its models by name.

    Raises:
        Invalid: `graph.bad-file`.
    """
    if isinstance(given, dict):
        return given
    if len(given) > SIZE_MAX_BYTES:
        raise Invalid("graph.bad-file", reason=f"it has more than {SIZE_MAX_BYTES} characters")
    try:
        return json.loads(given) if given.lstrip().startswith("{") else tomllib.loads(given)
    except (ValueError, RecursionError) as e:
        raise Invalid("graph.bad-file", reason=str(e)[:200]) from e


def _resolved(studio: Studio, given: dict[str, Any], project: str) -> tuple[Graph, dict[str, ModelVersion]]:
    """The graph with its models by id, and those models. A step names a model version, or a service, which stands for what it answers with now.

    Raises:
        Invalid: `graph.bad-file`, `graph.bad-step`, `graph.too-large`, `graph.nested`; NotFound: `record.not-found`; Conflict: `service.nothing-deployed`.
    """
    steps = given.get("steps")
    if not isinstance(steps, dict) or not all(isinstance(s, dict) for s in steps.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        raise Invalid("graph.bad-file", reason="it has no table steps")
    if not 1 <= len(steps) <= STEPS_MAX:  # pyright: ignore[reportUnknownArgumentType]
        raise Invalid("graph.too-large", steps=len(steps), max=STEPS_MAX, max_bytes=SIZE_MAX_BYTES)  # pyright: ignore[reportUnknownArgumentType]
    versions: dict[str, ModelVersion] = {}
    resolved: dict[str, Any] = {}
    for name, step in steps.items():  # pyright: ignore[reportUnknownVariableType]
        rest: dict[str, Any] = dict(step)  # pyright: ignore[reportUnknownArgumentType]
        model, service = rest.pop("model", None), rest.pop("service", None)
        if not isinstance(named := model or service, str) or (model and service):
            raise Invalid("graph.bad-step", step=str(name)[:60], reason="it names one model or one service")  # pyright: ignore[reportUnknownArgumentType]
        version = find_version(studio, named, project) if model else _of_service(studio, named)
        if version.project != project:
            raise Invalid("graph.bad-step", step=str(name)[:60], reason="its model belongs to another project")  # pyright: ignore[reportUnknownArgumentType]
        versions[version.id] = version
        resolved[str(name)] = {**rest, "model": version.id}  # pyright: ignore[reportUnknownArgumentType]
    answer = given.get("answer")
    whole = {**given, "steps": resolved, "answer": [answer] if isinstance(answer, str) else answer}
    try:
        graph = msgspec.convert(whole, Graph)
        msgspec.json.encode(graph)
        return graph, versions
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError, TypeError) as e:  # a surrogate, a number of more than 64 bits, a nest
        raise Invalid("graph.bad-file", reason=str(e)[:200]) from e


def _of_service(studio: Studio, name: str) -> ModelVersion:
    service = find_service(studio, name)
    pointer = studio.tables.pointer("service", service.id)
    target = target_of(studio.tables, pointer.target) if pointer else None
    if target is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    if isinstance(target, GraphVersion):
        raise Invalid("graph.nested", service=service.name)
    return target
