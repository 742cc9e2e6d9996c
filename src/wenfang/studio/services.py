"""Operations on services: named endpoints and the model version each answers with."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wenfang.core.conversation import Generation
from wenfang.core.errors import Conflict, Denied, Invalid, NotFound
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.plain import plain
from wenfang.core.records import Pointer, Service
from wenfang.core.registry import nearest
from wenfang.core.scaling import Scaling

from .app import Studio
from .counts import present_table, replicas_now
from .deploying import Deployed, Strategy, Way, deploy_version, deployed, serve_version
from .names import Name, ProjectName, check_project
from .references import find_graph_version, find_target
from .targets import Target, ask_target, main_model, target_of

__all__ = ["Deployed", "deploy_version", "find_service", "serve_version", "shown_service"]


class DeployService(Request):
    """Which model version or graph a service shall answer with."""

    service: Name = Field(json_schema_extra={"positional": True})
    model_version: str | None = Field(None, description="mv_… or name:number or name (its newest)")
    graph: str | None = Field(None, description="instead: gr_… or name:number or name (its newest) of what `service compose` made")
    replicas: int = Field(0, ge=0, le=64, description="0: one per core")
    strategy: Strategy | None = Field(None, description="surge: new replicas beside the old ones; rolling: one by one; blue-green: tried first, the old set stays warm")
    keep_warm_s: float | None = Field(None, ge=0, le=604_800, description="how long the version before keeps its replicas, so that rollback is instant")
    probes: list[str] = Field(default_factory=list, max_length=100, description="texts that every new replica must answer before anything changes")
    project: ProjectName = "default"
    allow_breaking: bool = Field(False, description="deploy it although it breaks those who call the service now")


class OneService(Request):
    """One service."""

    service: str = Field(json_schema_extra={"positional": True})


class ListServices(Request):
    """Which services there are."""

    project: ProjectName = "default"


class Services(Answer):
    """Services and what they answer with."""

    services: list[Deployed]


class ShownService(Answer):
    """A service, what it answers with and what it answered with before."""

    service: Deployed
    history: list[Pointer]
    scaling: Scaling | None = Field(None, description="how its replicas follow the load; nothing: their number stands")
    revision: int = 0


class Predict(Request):
    """Texts for a service."""

    service: str = Field(json_schema_extra={"positional": True})
    inputs: list[str] = Field(min_length=1, max_length=1000, json_schema_extra={"positional": True})
    texts_b: list[str] = Field(default_factory=list, description="second texts of pairs, one for each input")
    top_k: int = Field(1, ge=1, le=100, description="labels with probabilities")
    max_tokens: int | None = Field(None, ge=1, le=32_768, description="generation: tokens at most")
    temperature: float | None = Field(None, ge=0, le=10, description="generation: 0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="generation: share of the probability that is drawn from")
    stop: list[str] = Field(default_factory=list, max_length=16, description="generation: ends before any of these")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="generation: equal seed, equal text")


class Predicted(Answer):
    """One answer per text, in order."""

    outputs: list[dict[str, Any]]
    model: str


def find_service(studio: Studio, name: str) -> Service:
    """The service of that name, if the actor may see it.

    Raises:
        NotFound: `record.not-found`.
    """
    found = studio.tables.find(Service, where={"name": name}, limit=1)
    if not found or not studio.may_see(found[0].project):
        known = [s.name for s in studio.find(Service)]
        raise NotFound("record.not-found", kind="Service", name=name, near=nearest(name, known) if known else "—")
    return found[0]


@operation("service.deploy", permission="service:write", http="POST /api/v1/services/deploy")
def deploy_service(studio: Studio, request: DeployService) -> Deployed:
    """Have a service answer with a model version or a graph; when this returns, no request goes to the version before."""
    check_project(studio, request.project)
    found = studio.tables.find(Service, where={"name": request.service, "project": request.project}, limit=1)
    if request.replicas and found and found[0].scaling is not None:
        raise Conflict("scaling.replicas-of-elastic", service=request.service, min=found[0].scaling.min, max=found[0].scaling.max)
    if (request.model_version is None) == (request.graph is None):
        raise Invalid("service.one-target", service=request.service)
    if request.graph is not None:
        target: Target = find_graph_version(studio, request.graph, request.project)
    else:
        target = find_target(studio, request.model_version or "", request.project)
    way = Way(request.strategy, request.keep_warm_s, request.probes, request.allow_breaking)
    return deploy_version(studio, request.service, target, request.replicas, way=way)


@operation("service.rollback", permission="service:write", http="POST /api/v1/services/{service}/rollback")
def roll_back_service(studio: Studio, request: OneService) -> Deployed:
    """Have a service answer with the version it had before the present one."""
    service = find_service(studio, request.service)
    history = studio.tables.pointers("service", service.id)
    earlier = next((p for p in history if history and p.target != history[0].target), None)
    if earlier is None:
        raise Conflict("service.nothing-before", service=service.name)
    target = target_of(studio.tables, earlier.target)
    if target is None:
        raise NotFound("record.not-found", kind="ModelVersion", name=earlier.target, near="—")
    return deploy_version(studio, service.name, target, way=Way(allow_breaking=True))  # what answered before must be able to answer again


@operation("service.list", permission="service:read", http="GET /api/v1/services")
def list_services(studio: Studio, request: ListServices) -> Services:
    """List services and what they answer with."""
    return Services(services=[d for s in studio.find(Service, project=request.project) if (d := shown_service(studio, s)) is not None])


@operation("service.show", permission="service:read", http="GET /api/v1/services/{service}")
def show_service(studio: Studio, request: OneService) -> ShownService:
    """Show a service, what it answers with now and what it answered with before."""
    service = find_service(studio, request.service)
    shown = shown_service(studio, service)
    if shown is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    return ShownService(service=shown, history=studio.tables.pointers("service", service.id), scaling=service.scaling, revision=service.revision)


def shown_service(studio: Studio, service: Service) -> Deployed | None:
    """A service and what it answers with; None before its first model version."""
    pointer = studio.tables.pointer("service", service.id)
    version = target_of(studio.tables, pointer.target) if pointer else None
    if version is None:
        return None
    return deployed(service, version, replicas_now(service, main_model(version), present_table(studio)))


@operation("service.predict", permission="service:call", http="POST /api/v1/services/{service}/predict")
def predict(studio: Studio, request: Predict) -> Predicted:
    """Ask a service from the control plane; ``POST /predict/{service}`` is the fast way."""
    service = find_service(studio, request.service)
    if studio.actor is not None and studio.actor.project not in {None, service.project}:
        raise Denied("auth.denied", actor=studio.actor.id, permission="service:call")
    if any(len(t) > 1_000_000 for t in request.inputs):
        raise Invalid("service.text-too-long", max_code_points=1_000_000)
    shown = shown_service(studio, service)
    if shown is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    if request.texts_b and len(request.texts_b) != len(request.inputs):
        raise Invalid("gateway.pairs-mixed", pairs=len(request.texts_b), inputs=len(request.inputs))
    target = target_of(studio.tables, shown.model_version)
    options = Generation(max_tokens=request.max_tokens, temperature=request.temperature, top_p=request.top_p, stop=tuple(request.stop), seed=request.seed)
    answers = [] if target is None else ask_target(studio, target, request.inputs, request.texts_b, request.top_k, options)
    return Predicted(outputs=[plain(output, text, request.top_k) for output, text in answers], model=shown.model)
