"""Operations on the message queues in front of services: which queue a service answers, over which broker, and how that goes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from wenfang.core.errors import Conflict, Invalid, NotFound
from wenfang.core.ids import new_id
from wenfang.core.messages import checked_queue
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import ModelVersion, QueueBinding, Service
from wenfang.core.registry import nearest
from wenfang.core.version import __version__
from wenfang.serve.interface import interface_with
from wenfang.serve.specs.json_schema import written
from wenfang.stores import check_bus_url

from .app import Studio
from .asyncapi import Line, asyncapi_document
from .names import ProjectName
from .queue_workers import worker_state
from .services import find_service

__all__ = ["Attached"]


class AttachQueue(Request):
    """A request queue for a service, and how it is answered."""

    service: str = Field(json_schema_extra={"positional": True})
    requests: str = Field(description="queue of request messages")
    replies: str = Field("", description="queue of replies; REQUESTS.replies unless given; a message may name it or REPLIES.anything")
    dead_letters: str = Field("", description="queue of what cannot be answered; REQUESTS.dead unless given")
    bus: str = Field("", max_length=300, description="broker, such as nats://host:4222, without a password; queue.bus of the settings unless given")
    concurrency: int = Field(64, ge=1, le=4096, description="messages that are answered at once; no more are taken from the broker")
    attempts: int = Field(5, ge=1, le=100, description="failures of a message before it goes to the dead letters")


class DetachQueue(Request):
    """A request queue of a service."""

    service: str = Field(json_schema_extra={"positional": True})
    requests: str
    bus: str = Field("", description="as it was attached")


class ListQueues(Request):
    """Which queues are answered."""

    project: ProjectName = "default"


class Attached(Answer):
    """A request queue and what its worker counts."""

    id: str
    service: str
    bus: str
    requests: str
    replies: str
    dead_letters: str
    concurrency: int
    attempts: int
    detached: bool
    worker: dict[str, Any] = Field(description="empty: no worker answers")


class Described(Answer):
    """A document."""

    file_name: str
    document: str


class Queues(Answer):
    """Request queues that are answered."""

    queues: list[Attached]


def _shown(studio: Studio, binding: QueueBinding) -> Attached:
    fields = {name: getattr(binding, name) for name in Attached.model_fields if name not in {"worker", "bus"}}
    return Attached(**fields, bus=binding.bus or f"{studio.settings.queue.bus.partition(':')[0]}:", worker={} if binding.detached else worker_state(studio, binding))


def _bound(studio: Studio, bus: str, requests: str) -> QueueBinding | None:
    found = studio.tables.find(QueueBinding, where={"bus": bus, "requests": requests}, limit=1)
    return found[0] if found else None


def _checked(request: AttachQueue) -> dict[str, str]:
    """The three queues.

    Raises:
        Invalid: `bus.bad-queue`, `queue.same-queue`, `queue.password-in-url`, `bus.bad-url`; Unsupported: `plugin.needs-package`.
    """
    queues = {"requests": request.requests, "replies": request.replies or f"{request.requests}.replies", "dead_letters": request.dead_letters or f"{request.requests}.dead"}
    for queue in queues.values():
        checked_queue(queue)
    if len(set(queues.values())) < 3 or request.requests.startswith(f"{queues['replies']}."):
        raise Invalid("queue.same-queue", requests=request.requests)
    if request.bus:
        scheme = check_bus_url(request.bus)
        if urlsplit(request.bus).password is not None:
            raise Invalid("queue.password-in-url", scheme=scheme)
    return queues


@operation("service.attach", permission="service:admin", http="POST /api/v1/services/{service}/queues/attach")
def attach_queue(studio: Studio, request: AttachQueue) -> Attached:
    """Have a service answer the messages of a request queue; again with other numbers, it changes."""
    service, queues = find_service(studio, request.service), _checked(request)
    if check_bus_url(request.bus or studio.settings.queue.bus) == "memory":  # ends with the process that has it
        raise Invalid("bus.bad-url", url="memory:", known="local:")
    wanted: dict[str, Any] = {**queues, "project": service.project, "service": service.name, "bus": request.bus, "concurrency": request.concurrency, "attempts": request.attempts}
    found = _bound(studio, request.bus, request.requests)
    if found is None:
        binding = QueueBinding(id=new_id("qb"), **wanted)
        studio.put(binding)
    elif not found.detached and found.service != service.name:
        raise Conflict("queue.taken", requests=request.requests)
    else:
        binding = found.model_copy(update={**wanted, "detached": False, "revision": found.revision + 1})
        studio.update(binding, found.revision)
    studio.tell("service.queue-attached", binding.id, service=service.name, requests=binding.requests)
    return _shown(studio, binding)


@operation("service.detach", permission="service:admin", http="POST /api/v1/services/{service}/queues/detach")
def detach_queue(studio: Studio, request: DetachQueue) -> Attached:
    """Have a service no longer answer a request queue; what waits in it stays there."""
    service = find_service(studio, request.service)
    found = _bound(studio, request.bus, request.requests)
    if found is None or found.detached or found.service != service.name:
        known = [b.requests for b in studio.find(QueueBinding, service=service.name) if not b.detached]
        raise NotFound("record.not-found", kind="QueueBinding", name=request.requests[:80], near=nearest(request.requests[:80], known) if known else "—")
    binding = found.model_copy(update={"detached": True, "revision": found.revision + 1})
    studio.update(binding, found.revision)
    studio.tell("service.queue-detached", binding.id, service=service.name, requests=binding.requests)
    return _shown(studio, binding)


@operation("service.queues", permission="service:read", http="GET /api/v1/queues")
def list_queues(studio: Studio, request: ListQueues) -> Queues:
    """List the request queues that services answer, with what their workers count."""
    return Queues(queues=[_shown(studio, b) for b in studio.find(QueueBinding, project=request.project) if not b.detached])


@operation("service.asyncapi", permission="service:read", http="GET /api/v1/asyncapi")
def write_asyncapi(studio: Studio, request: ListQueues) -> Described:
    """Write down the request queues of a project's services as an AsyncAPI 3 document."""
    lines: list[Line] = []
    for binding in sorted(studio.find(QueueBinding, project=request.project), key=lambda b: b.id):
        version = None if binding.detached else _answering(studio, binding)
        if version is not None:
            url = binding.bus or _without_password(studio.settings.queue.bus)
            lines.append(Line(binding, url, interface_with(binding.service, version)))
    return Described(file_name="asyncapi.json", document=written(asyncapi_document(lines, version=__version__)))


def _answering(studio: Studio, binding: QueueBinding) -> ModelVersion | None:
    """The version that answers; None: nothing is deployed."""
    service = studio.named(Service, binding.project, binding.service)
    pointer = studio.tables.pointer("service", service.id) if service is not None else None
    return studio.tables.get(ModelVersion, pointer.target) if pointer is not None else None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else url
