"""What the gateway answers itself, as OpenAPI path items for the document of the control plane."""

from __future__ import annotations

from typing import Any

__all__ = ["HOT_PATHS"]


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


GENERATION: dict[str, Any] = {
    "max_tokens": {"type": "integer", "minimum": 1},
    "temperature": {"type": "number", "minimum": 0, "description": "0: greedy"},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "stop": {"type": "array", "items": {"type": "string"}},
    "seed": {"type": "integer"},
}
"""What all doors understand of generation; ``core/conversation.py`` has the rest."""
MESSAGES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "required": ["role", "content"], "properties": {"role": {"enum": ["system", "user", "assistant", "tool"]}, "content": {"type": "string"}}},
}
QUESTION: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}, "text_b": {"type": "string", "description": "for pairs"}, "messages": MESSAGES}}
PREDICT_IN: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {"oneOf": [{"type": "string"}, QUESTION, {"type": "array", "items": {"oneOf": [{"type": "string"}, QUESTION]}}], "description": "texts, pairs or conversations"},
        "parameters": {"type": "object", "properties": {"top_k": {"type": "integer", "minimum": 1, "description": "labels with probabilities"}, **GENERATION}},
        "steps": {"type": "boolean", "description": "of a graph: beside each output what every step answered"},
        "stream": {"type": "boolean", "description": "generation: lines of {index, piece}, then the whole answer"},
    },
}
PREDICT_OUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "outputs": {"type": "array", "items": {"type": "object"}, "description": "what the task answers, one per input in order"},
        "model": {"type": "string", "description": "name:version that answered"},
        "id": {"type": "string", "description": "request id"},
    },
}
MODEL_ID: dict[str, Any] = {"type": "string", "description": "name of a service"}
STREAM: dict[str, Any] = {"type": "boolean", "description": "server-sent events"}
CHAT_IN: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {"model": MODEL_ID, "messages": MESSAGES, "stream": STREAM, "response_format": {"type": "object"}, **GENERATION},
}
COMPLETION_IN: dict[str, Any] = {
    "type": "object",
    "required": ["model", "prompt"],
    "properties": {"model": MODEL_ID, "prompt": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, "stream": STREAM, **GENERATION},
}
EMBEDDING_IN: dict[str, Any] = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {"model": MODEL_ID, "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, "encoding_format": {"enum": ["float", "base64"]}},
}
NAME = [{"name": "service", "in": "path", "required": True, "schema": {"type": "string"}}]
MODEL = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]


def _asked(operation_id: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"post": {"operationId": operation_id, "tags": ["predict"], "summary": summary, "requestBody": body, "responses": {"200": _json({"type": "object"}, "the answer")}}}


HOT_PATHS: dict[str, Any] = {
    "/predict/{service}": {
        "post": {
            "operationId": "predict",
            "tags": ["predict"],
            "summary": "Ask a service about one or more texts.",
            "parameters": NAME,
            "requestBody": {"required": True, "content": {"application/json": {"schema": PREDICT_IN}}},
            "responses": {"200": _json(PREDICT_OUT, "answers")},
        }
    },
    "/predict/{service}/{document}": {
        "get": {
            "operationId": "predict.document",
            "tags": ["predict"],
            "summary": "What a service takes and gives, made for its model version.",
            "parameters": [*NAME, {"name": "document", "in": "path", "required": True, "schema": {"enum": ["openapi.json", "service.proto", "schema.json", "client.py"]}}],
            "responses": {"200": {"description": "the file"}},
        }
    },
    "/v2": {
        "get": {
            "operationId": "v2.server",
            "tags": ["predict"],
            "summary": "Open Inference Protocol: server metadata.",
            "responses": {"200": _json({"type": "object"}, "metadata")},
        }
    },
    "/v2/models/{name}": {
        "get": {
            "operationId": "v2.model",
            "tags": ["predict"],
            "summary": "Open Inference Protocol: model metadata.",
            "parameters": MODEL,
            "responses": {"200": _json({"type": "object"}, "metadata")},
        }
    },
    "/v2/models/{name}/infer": {
        "post": {
            "operationId": "v2.infer",
            "tags": ["predict"],
            "summary": "Open Inference Protocol: inference.",
            "parameters": MODEL,
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
            "responses": {"200": _json({"type": "object"}, "tensors")},
        }
    },
    "/v1/models": {"get": {"operationId": "v1.models", "tags": ["predict"], "summary": "OpenAI protocol: services.", "responses": {"200": _json({"type": "object"}, "services")}}},
    "/v1/models/{name}": {
        "get": {
            "operationId": "v1.model",
            "tags": ["predict"],
            "summary": "OpenAI protocol: a service.",
            "parameters": MODEL,
            "responses": {"200": _json({"type": "object"}, "one")},
        }
    },
    "/v1/chat/completions": _asked("v1.chat", "OpenAI protocol: a conversation goes on.", CHAT_IN),
    "/v1/completions": _asked("v1.completions", "OpenAI protocol: a text goes on.", COMPLETION_IN),
    "/v1/embeddings": _asked("v1.embeddings", "OpenAI protocol: vectors of texts.", EMBEDDING_IN),
    "/healthz": {"get": {"operationId": "healthz", "tags": ["probes"], "summary": "Whether the gateway lives.", "security": [], "responses": {"200": {"description": "alive"}}}},
    "/readyz": {
        "get": {
            "operationId": "readyz",
            "tags": ["probes"],
            "summary": "Whether the gateway can answer.",
            "security": [],
            "responses": {"200": {"description": "ready"}, "503": {"description": "not ready"}},
        }
    },
    "/metrics": {"get": {"operationId": "metrics", "tags": ["probes"], "summary": "Prometheus metrics.", "security": [], "responses": {"200": {"description": "text exposition"}}}},
}
