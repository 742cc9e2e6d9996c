"""Operations on the interface of a service: what it takes and gives, written down in the formats others read."""

from __future__ import annotations

from pydantic import Field

from wenfang.core.errors import Conflict, Unsupported
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import GraphVersion, Service
from wenfang.serve.graphs import Plan
from wenfang.serve.interface import interface_with
from wenfang.serve.specs import specs

from .app import Studio
from .services import find_service
from .targets import Target, graph_of, target_of

__all__ = ["Written"]


class AskInterface(Request):
    """Of which service, and in which format."""

    service: str = Field(json_schema_extra={"positional": True})
    format: str = Field("openapi", description="openapi, proto, json-schema or python; a plug-in may add others")


class Written(Answer):
    """The interface of a service in one format. Equal model versions give equal documents."""

    service: str
    model: str
    format: str
    file_name: str
    document: str


@operation("service.interface", permission="service:read", http="GET /api/v1/services/{service}/interface")
def write_interface(studio: Studio, request: AskInterface) -> Written:
    """Write down what a service takes and gives: OpenAPI, Protocol Buffers, JSON Schema or a typed Python client."""
    spec = specs.get(request.format.replace("-", "_"))
    service = find_service(studio, request.service)
    version = _answering(studio, service)
    document = spec().write(interface_with(service.name, version))
    return Written(service=service.name, model=f"{version.name}:{version.number}", format=request.format, file_name=spec.file_name, document=document)


def _answering(studio: Studio, service: Service) -> Target:
    pointer = studio.tables.pointer("service", service.id)
    target = target_of(studio.tables, pointer.target) if pointer else None
    if target is None:
        raise Conflict("service.nothing-deployed", service=service.name)
    if isinstance(target, GraphVersion) and Plan(graph_of(target)).pairs != (target.task == "matching"):
        raise Unsupported("graph.no-interface", service=service.name)
    return target
