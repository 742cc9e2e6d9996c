"""What the gateway answers itself, as OpenAPI path items for the document of the control plane."""

from __future__ import annotations

from typing import Any

__all__ = ["HOT_PATHS"]


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


PREDICT_IN: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "description": "texts"},
        "parameters": {"type": "object", "properties": {"top_k": {"type": "integer", "minimum": 1}}},
    },
}
PREDICT_OUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "outputs": {"type": "array", "items": {"type": "object"}, "description": "label and score, or spans, one per input in order"},
        "model": {"type": "string", "description": "name:version that answered"},
        "id": {"type": "string", "description": "request id"},
    },
}
NAME = [{"name": "service", "in": "path", "required": True, "schema": {"type": "string"}}]
MODEL = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
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
