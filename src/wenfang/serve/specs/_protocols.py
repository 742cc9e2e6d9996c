"""Paths of one service in the protocols that others thought of, for its OpenAPI document: the Open Inference Protocol and OpenAI's."""

from __future__ import annotations

from typing import Any

from wenfang.serve.interface import WRITING, Interface, Shape

from .json_schema import schema_of

__all__ = ["inference_paths", "openai_paths"]

Paths = dict[str, Any]
Schemas = dict[str, Any]
_BYTES = {"text", "label", "labels", "spans", "finish"}
_STATUSES = {
    "400": "the request is not as described",
    "401": "no key, or one that is not known",
    "403": "the key may not call the service",
    "404": "there is no such service",
    "405": "another method is meant",
    "408": "the request came too slowly",
    "413": "the body is too large",
    "415": "the body is not JSON, or compressed in an unknown way",
    "429": "a limit is reached, or there is more to do than can be done",
    "431": "the headers are too large",
    "500": "the model failed",
    "501": "not built",
    "503": "no replica answers, or the gateway is stopping",
    "504": "the deadline passed",
}


def _answers(ok: dict[str, Any], error: dict[str, Any], says: str) -> dict[str, Any]:
    return {
        "200": {"description": says, "content": {"application/json": {"schema": ok}}},
        **{status: {"description": told, "content": {"application/json": {"schema": error}}} for status, told in _STATUSES.items()},
    }


def _get(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _post(name: str, summary: str, schema: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    return {"post": {"operationId": name, "summary": summary, "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}, "responses": responses}}


# ------------------------------------------------------------ Open Inference Protocol
def _outputs(interface: Interface) -> list[str]:
    names = [p.name for p in interface.answer.parts]
    match interface.task:
        case "embedding":
            return ["vector"]
        case "generation" | "chat":
            return ["text", "finish"]
        case _:
            return [name for name in ("label", "labels", "spans", "score") if name in names]


def inference_paths(interface: Interface, where: str) -> tuple[Paths, Schemas]:
    """``/v2/models/{name}`` and what is below it, without versions: a document that names one would end with it."""
    base = f"/v2/models/{interface.service}"
    error = {"$ref": where + "InferError"}
    said = {"type": "object"}
    paths = {
        base: _get("v2Model", "Inputs and outputs.", _answers(said, error, "metadata")),
        f"{base}/ready": _get("v2Ready", "Whether a replica answers.", _answers({"$ref": where + "InferReady"}, error, "ready")),
        f"{base}/config": _get("v2Config", "Configuration.", _answers(said, error, "configuration")),
        f"{base}/stats": _get("v2Stats", "Counts and times since the gateway started.", _answers(said, error, "statistics")),
        f"{base}/infer": _post("v2Infer", "Ask about one or more texts, as tensors.", {"$ref": where + "InferRequest"}, _answers({"$ref": where + "InferReply"}, error, "tensors")),
    }
    paths[f"{base}/ready"]["get"]["responses"]["503"] = {"description": "not ready", "content": {"application/json": {"schema": {"$ref": where + "InferReady"}}}}
    return paths, _inference_schemas(interface, where)


def _inference_schemas(interface: Interface, where: str) -> Schemas:
    inputs = ["text", "text_b"] if interface.task == "matching" else ["text"]
    wanted = _outputs(interface)
    own = {p.name: {**schema_of(p.kind, where), "description": p.says} for p in interface.parameters.parts}
    parameters = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **own,
            "timeout": {"type": "integer", "minimum": 0, "description": "microseconds until 504"},
            "priority": {"type": "integer", "minimum": 0, "description": "1 interactive, 2 online, 3 batch"},
            "binary_data_output": {"type": "boolean", "description": "answers as raw bytes behind the JSON"},
        },
    }
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"enum": inputs},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2, "description": "[n] or [n, 1] for n texts"},
            "datatype": {"const": "BYTES"},
            "data": {"type": "array", "items": {"type": "string"}},
        },
    }
    output = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string", "description": f"one of {', '.join(wanted)}; scores and alternatives where top_k asks for several"},
            "datatype": {"enum": sorted({"BYTES" if name in _BYTES else "FP32" for name in wanted} | {"BYTES"})},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {"type": "array", "items": {"type": ["string", "number"]}},
        },
    }
    told = {"model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"}, "outputs": {"type": "array", "items": output}}
    return {
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": parameters,
                "inputs": {"type": "array", "items": tensor, "minItems": len(inputs), "maxItems": len(inputs)},
                "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"enum": wanted}}}, "maxItems": len(wanted)},
            },
        },
        "InferReply": {"type": "object", "required": ["model_name", "model_version", "outputs"], "properties": told},
        "InferReady": {"type": "object", "required": ["name", "ready"], "properties": {"name": {"type": "string"}, "version": {"type": "string"}, "ready": {"type": "boolean"}}},
        "InferError": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


# ------------------------------------------------------------ OpenAI
def openai_paths(interface: Interface, where: str) -> tuple[Paths, Schemas]:
    """``/v1/…`` as far as it fits the task; elsewhere only the service as a model."""
    error = {"$ref": where + "OpenAIError"}
    paths = {f"/v1/models/{interface.service}": _get("v1Model", "The service as a model.", _answers({"type": "object"}, error, "the model"))}
    schemas = {"OpenAIError": _OPENAI_ERROR}
    own = {"model": {"const": interface.service}}
    if interface.task in WRITING:
        asked = _openai_parameters(interface.parameters, where)
        texts = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        message = {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"enum": ["system", "developer", "user", "assistant", "tool"]}, "content": {"type": "string"}},
        }
        chat = {**own, "messages": {"type": "array", "items": message, "minItems": 1}, **asked}
        schemas["ChatRequest"] = {"type": "object", "required": ["model", "messages"], "properties": chat}
        schemas["CompletionRequest"] = {"type": "object", "required": ["model", "prompt"], "properties": {**own, "prompt": texts, **asked}}
        for name, path, summary in (("ChatRequest", "/v1/chat/completions", "A conversation goes on."), ("CompletionRequest", "/v1/completions", "A text goes on.")):
            answers = _answers({"type": "object", "required": ["id", "choices"], "properties": {"id": {"type": "string"}, "choices": {"type": "array"}}}, error, "the answer")
            answers["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
            paths[path] = _post(f"v1{name}", summary, {"$ref": where + name}, answers)
    if interface.task == "embedding":
        texts = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        schemas["EmbeddingRequest"] = {"type": "object", "required": ["model", "input"], "properties": {**own, "input": texts, "encoding_format": {"enum": ["float", "base64"]}}}
        answers = _answers({"type": "object", "required": ["data"], "properties": {"data": {"type": "array", "items": {"type": "object"}}}}, error, "vectors")
        paths["/v1/embeddings"] = _post("v1Embeddings", "Vectors of texts.", {"$ref": where + "EmbeddingRequest"}, answers)
    return paths, schemas


_OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}},
        }
    },
}


def _openai_parameters(parameters: Shape, where: str) -> dict[str, Any]:
    spoken = ("max_tokens", "min_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "logprobs")
    found = {p.name: {**schema_of(p.kind, where), "description": p.says} for p in parameters.parts if p.name in spoken}
    stop = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 16}]}
    return {**found, "stop": stop, "stream": {"type": "boolean", "description": "server-sent events"}}
