"""OpenAPI 3.1 of one service: every path that fits its task, in Wenfang's own protocol, the Open Inference Protocol and OpenAI's."""

from __future__ import annotations

from typing import Any, ClassVar

from wenfang.core.problem import PROBLEM
from wenfang.serve.interface import INPUTS_MAX, TEXT_MAX_CHARS, WRITING, Interface

from ._protocols import inference_paths, openai_paths
from .base import Spec
from .json_schema import definitions, written

__all__ = ["OpenAPI"]

WHERE = "#/components/schemas/"
_PIECE: dict[str, Any] = {
    "type": "object",
    "description": "A line of a stream: a piece of the text of one question. The last line is the whole reply, or a problem.",
    "properties": {"index": {"type": "integer", "minimum": 0}, "piece": {"type": "string"}},
}
_PROBLEMS = {
    "400": "the request is no HTTP of ours",
    "401": "no key, or one that is not known",
    "403": "the key may not call the service",
    "404": "there is no such service",
    "405": "another method is meant",
    "408": "the request came too slowly",
    "413": "the body is too large",
    "415": "the body is not JSON, or compressed in an unknown way",
    "422": "the request is not as described",
    "429": "a limit is reached, or there is more to do than can be done; Retry-After says when to come back",
    "431": "the headers are too large",
    "500": "the model failed",
    "503": "no replica answers, or the gateway is stopping",
    "504": "the deadline passed",
}


class OpenAPI(Spec):
    """The document of one service."""

    file_name: ClassVar[str] = "openapi.json"

    def write(self, interface: Interface) -> str:
        """The document."""
        summary = f"The service {interface.service}: {interface.task}, as {interface.model} answers it. Every path gives the same answers."
        schemas = {**definitions(interface, WHERE), "Problem": PROBLEM, **({"Piece": _PIECE} if interface.task in WRITING else {})}
        v2, v2_schemas = inference_paths(interface, WHERE)
        v1, v1_schemas = openai_paths(interface, WHERE)
        return written(
            {
                "openapi": "3.1.0",
                "info": {"title": interface.service, "version": interface.model, "description": summary},
                "security": [{"bearer": []}, {"key": []}],
                "paths": {f"/predict/{interface.service}": {"post": _predict(interface)}, **v2, **v1},
                "components": {
                    "schemas": {**schemas, **v2_schemas, **v1_schemas},
                    "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
                },
            }
        )


def _predict(interface: Interface) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": WHERE + "PredictReply"}, "example": interface.answered}}
    if interface.task in WRITING:
        content["application/x-ndjson"] = {"schema": {"oneOf": [{"$ref": WHERE + "Piece"}, {"$ref": WHERE + "PredictReply"}, {"$ref": WHERE + "Problem"}]}}
    problem = {"application/problem+json": {"schema": {"$ref": WHERE + "Problem"}}}
    return {
        "operationId": "predict",
        "summary": "Ask about one or more texts.",
        "description": f"At most {INPUTS_MAX} questions of {TEXT_MAX_CHARS} code points in one request; the installation may allow less.",
        "parameters": [
            {
                "name": "X-Priority",
                "in": "header",
                "description": "what goes first when there is much to do",
                "schema": {"type": "string", "enum": ["interactive", "online", "batch"], "default": "online"},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": WHERE + "PredictRequest"}, "example": interface.asked}}},
        "responses": {
            "200": {"description": "answers, in the order of the questions", "content": content},
            **{status: {"description": says, "content": problem} for status, says in _PROBLEMS.items()},
        },
    }
