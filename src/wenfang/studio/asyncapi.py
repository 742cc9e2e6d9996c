"""The AsyncAPI 3 document of the request queues that services answer, as plain values: channels, operations, messages, schemas. Equal bindings and versions give equal documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from wenfang.core.records import QueueBinding
from wenfang.serve.interface import Interface
from wenfang.serve.specs.base import identifier
from wenfang.serve.specs.json_schema import definitions
from wenfang.serve.turns import RANKS

__all__ = ["Line", "asyncapi_document"]

KINDS = ("application/json", "application/msgpack")
PROTOCOLS = {"nats": "nats", "rabbitmq": "amqp", "redis": "redis", "kafka": "kafka", "local": "sqlite"}
HEADERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "as in the body"},
        "correlation-id": {"type": "string"},
        "content-type": {"enum": list(KINDS)},
        "reply-to": {"type": "string"},
    },
}
"""Of requests; AMQP carries them as message_id, correlation_id, content_type and reply_to."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request queue, where it is, and what its service takes and gives."""

    binding: QueueBinding
    bus: str
    """URL without a password."""
    interface: Interface


def asyncapi_document(lines: Sequence[Line], *, version: str) -> dict[str, Any]:
    """The document, told from the side of the services: they receive requests and send replies.

    Args:
        lines: the queues.
        version: of the program.
    """
    count = Counter(line.binding.requests for line in lines)
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {"title": "Wenfang 文房", "version": version, "description": "Request queues in front of services: the same answers as POST /predict/{service}."},
        "defaultContentType": KINDS[0],
        "servers": {},
        "channels": {},
        "operations": {},
        "components": {"messages": {}, "schemas": {"DeadLetterHeaders": _dead_headers(), "RequestHeaders": HEADERS}},
    }
    for line in lines:
        requests = line.binding.requests
        _add(document, line, requests if count[requests] == 1 else f"{requests}.{line.binding.id[-8:]}")
    return document


def _add(document: dict[str, Any], line: Line, key: str) -> None:
    binding, interface = line.binding, line.interface
    name = identifier(interface.service)
    server = _server(document["servers"], line.bus)
    schemas, messages = document["components"]["schemas"], document["components"]["messages"]
    schemas.update({f"{name}.{shape}": schema for shape, schema in definitions(interface, f"#/components/schemas/{name}.").items()})
    schemas[f"{name}.Request"], schemas[f"{name}.Reply"] = _request(schemas, name), _reply(schemas, name)
    asked = {"id": "m-1", **interface.asked}
    messages[f"{name}.Request"] = {
        "name": f"{name}.Request", "title": f"Questions for {interface.service}", "contentType": KINDS[0], "headers": {"$ref": "#/components/schemas/RequestHeaders"},
        "payload": {"$ref": f"#/components/schemas/{name}.Request"}, "correlationId": {"location": "$message.payload#/correlation_id"}, "examples": [{"payload": asked}],
    }  # fmt: skip
    messages[f"{name}.Reply"] = {
        "name": f"{name}.Reply", "title": f"Answers of {interface.service}", "contentType": KINDS[0], "payload": {"$ref": f"#/components/schemas/{name}.Reply"},
        "correlationId": {"location": "$message.payload#/correlation_id"}, "examples": [{"payload": {**interface.answered, "id": "m-1", "correlation_id": "m-1"}}],
    }  # fmt: skip
    messages[f"{name}.DeadLetter"] = {
        "name": f"{name}.DeadLetter", "title": "A request that could not be answered, as it came", "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"}, "payload": {},
    }  # fmt: skip
    ends = (
        ("requests", binding.requests, "Request", f"Questions in JSON or msgpack (content-type); answered by {interface.model}."),
        ("replies", binding.replies, "Reply", f"Answers; a request may name a queue of its own that begins with {binding.replies}. (reply_to)."),
        ("dead", binding.dead_letters, "DeadLetter", "What could not be answered, with the reason."),
    )
    for end, address, message, says in ends:
        document["channels"][f"{key}.{end}"] = {
            "address": address, "description": says, "servers": [{"$ref": f"#/servers/{server}"}], "messages": {message: {"$ref": f"#/components/messages/{name}.{message}"}},
        }  # fmt: skip
    document["operations"][f"{key}.answer"] = {
        "action": "receive", "summary": f"Answer questions for {interface.service}.", **_at(key, "requests", "Request"), "reply": _at(key, "replies", "Reply"),
    }  # fmt: skip
    document["operations"][f"{key}.bury"] = {"action": "send", "summary": "Tell what could not be answered, and why.", **_at(key, "dead", "DeadLetter")}


def _at(key: str, end: str, message: str) -> dict[str, Any]:
    return {"channel": {"$ref": f"#/channels/{key}.{end}"}, "messages": [{"$ref": f"#/channels/{key}.{end}/messages/{message}"}]}


def _server(servers: dict[str, Any], url: str) -> str:
    """The name of the broker's server, made if it is not there."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "localhost"
    found: dict[str, Any] = {"host": host, "protocol": PROTOCOLS.get(parts.scheme, parts.scheme)}
    if parts.path.strip("/") and parts.scheme != "local":
        found["pathname"] = parts.path
    for name, known in servers.items():
        if known == found:
            return name
    name = parts.scheme if parts.scheme not in servers else f"{parts.scheme}-{len(servers)}"
    servers[name] = found
    return name


def _request(schemas: dict[str, Any], name: str) -> dict[str, Any]:
    asked: dict[str, Any] = schemas[f"{name}.PredictRequest"]["properties"]
    return {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$", "description": "known again by it; may stand in the header id instead"},
            **{field: schema for field, schema in asked.items() if field in {"inputs", "parameters"}},
            "reply_to": {"type": "string", "description": "the queue of replies, or one whose name goes on behind it and a dot"},
            "correlation_id": {"type": "string", "maxLength": 200, "description": "comes back with the reply; the id unless given"},
            "deadline": {"type": "string", "format": "date-time", "description": "after it the message is dead"},
            "priority": {"enum": list(RANKS), "default": "batch", "description": "what goes first when the service is full"},
        },
    }


def _reply(schemas: dict[str, Any], name: str) -> dict[str, Any]:
    """An answer, or why there is none."""
    answer: dict[str, Any] = schemas[f"{name}.PredictReply"]
    problem = {
        "type": "object", "required": ["status", "code", "detail"],
        "properties": {"status": {"type": "integer"}, "code": {"type": "string"}, "title": {"type": "string"}, "detail": {"type": "string"}, "hint": {"type": "string"}},
    }  # fmt: skip
    both = {"id": {"type": "string", "description": "of the request"}, "correlation_id": {"type": "string"}}
    return {
        "type": "object",
        "required": ["id", "correlation_id"],
        "properties": {**answer["properties"], **both, "error": problem},
        "oneOf": [{"required": ["outputs", "model"]}, {"required": ["error"]}],
    }


def _dead_headers() -> dict[str, Any]:
    told = {"reason": "code of the error", "detail": "its sentence", "queue": "where the request came from", "attempts": "how often it was tried", "died-at": "when, UTC"}
    return {"type": "object", "required": ["reason", "queue"], "properties": {name: {"type": "string", "description": says} for name, says in told.items()}}
