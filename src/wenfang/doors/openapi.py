"""The OpenAPI 3.1 document, made from the operation table, and a page that shows it without any outside resource."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import models_json_schema

from wenfang.core.operation import Operation
from wenfang.core.problem import PROBLEM

__all__ = ["docs_page", "openapi_document"]


def openapi_document(operations: Iterable[Operation], version: str, hot_paths: dict[str, Any]) -> dict[str, Any]:
    """The document: one path per operation, plus ``hot_paths`` (the gateway's own, ready-made path items)."""
    operations = list(operations)
    models = [(op.request, "validation") for op in operations] + [(op.answer, "serialization") for op in operations]
    by_model, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # pyright: ignore[reportArgumentType]
    paths: dict[str, Any] = {}
    for op in operations:
        method, path = op.http.split()
        item: dict[str, Any] = {
            "operationId": op.name,
            "summary": op.summary,
            "tags": [op.noun],
            "x-permission": op.permission,
            "responses": {
                "202" if op.long else "200": {
                    "description": "a job to wait for" if op.long else "done",
                    "content": {"application/json": {"schema": _job() if op.long else by_model[(op.answer, "serialization")]}},
                },
                "default": {"description": "problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
            },
        }
        inside = re.findall(r"\{(\w+)\}", path)
        fields = op.request.model_json_schema(ref_template="#/components/schemas/{model}").get("properties", {})
        parameters = [{"name": n, "in": "path", "required": True, "schema": fields.get(n, {"type": "string"})} for n in inside]
        rest = {n: s for n, s in fields.items() if n not in inside}
        if method == "GET":
            required = op.request.model_json_schema().get("required", [])
            parameters += [{"name": n, "in": "query", "required": n in required, "schema": s} for n, s in rest.items()]
        elif op.name == "dataset.upload":
            parameters += [{"name": "file_name", "in": "query", "required": True, "schema": {"type": "string"}}, {"name": "project", "in": "query", "schema": {"type": "string"}}]
            item["requestBody"] = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        elif rest:
            item["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_model[(op.request, "validation")]}}}
        item["parameters"] = parameters
        paths.setdefault(path, {})[method.lower()] = item
    definitions = schemas.get("$defs", {})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Wenfang 文房", "version": version, "description": "From text to a language model in production."},
        "security": [{"bearer": []}, {"key": []}],
        "paths": {**paths, **hot_paths},
        "components": {
            "schemas": {**definitions, "Problem": PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }


def _job() -> dict[str, Any]:
    return {"$ref": "#/components/schemas/Job"}


STYLE = """body{font:15px/1.6 system-ui,"Noto Sans SC",sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fbfaf7}
h1{font-weight:600}h2{margin-top:2.4rem;border-bottom:1px solid #ddd6c8;padding-bottom:.2rem}details{margin:.4rem 0;padding:.4rem .8rem;background:#fff;border:1px solid #e6e0d4;border-radius:6px}
summary{cursor:pointer}a{color:#8a3b1e}code{font:13px ui-monospace,monospace}.m{display:inline-block;min-width:4.2em;font:600 12px ui-monospace,monospace;color:#8a3b1e}
table{border-collapse:collapse;margin:.5rem 0;width:100%}td,th{text-align:left;padding:.25rem .6rem;border-top:1px solid #eee7da;font-size:14px;vertical-align:top}.d{color:#6b6459}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#dfe3ea}details{background:#1e2127;border-color:#333842}h2{border-color:#333842}td,th{border-color:#2c313a}.m,a{color:#e59a76}.d{color:#98a0ad}}"""


def docs_page(document: dict[str, Any]) -> str:
    """The document as one self-contained HTML page: works on sites without the internet."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in sorted(document["paths"].items()):
        for method, item in methods.items():
            by_tag.setdefault((item.get("tags") or ["predict"])[0], []).append(_entry(method, path, item, document))
    body = "".join(f"<h2 id='{html.escape(tag)}'>{html.escape(tag)}</h2>{''.join(entries)}" for tag, entries in by_tag.items())
    nav = " · ".join(f"<a href='#{html.escape(t)}'>{html.escape(t)}</a>" for t in by_tag)
    title = html.escape(document["info"]["title"])
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{title} API</title><style>{STYLE}</style>"
    return f"{head}<h1>{title} API</h1><p class='d'>{html.escape(document['info']['version'])} · <a href='openapi.json'>openapi.json</a></p><p>{nav}</p>{body}</html>"


def _entry(method: str, path: str, item: dict[str, Any], document: dict[str, Any]) -> str:
    rows = [(p["name"], p["in"], p.get("schema", {}), p.get("required", False)) for p in item.get("parameters", [])]
    for content in item.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        inside = {r[0] for r in rows}
        rows += [(n, "body", s, n in schema.get("required", [])) for n, s in schema.get("properties", {}).items() if n not in inside]
    cells = "".join(
        f"<tr><td><code>{html.escape(n)}</code>{'' if not need else ' *'}</td><td>{where}</td><td>{html.escape(_type(s))}</td><td class='d'>{html.escape(str(s.get('description', '')))}</td></tr>"
        for n, where, s, need in rows
    )
    table = f"<table>{cells}</table>" if cells else ""
    return f"<details><summary><span class='m'>{method.upper()}</span> <code>{html.escape(path)}</code> <span class='d'>{html.escape(item.get('summary', ''))}</span></summary><p class='d'>{html.escape(item.get('x-permission', ''))}</p>{table}</details>"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_type(s) for s in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type", schema.get("$ref", "any"))).rsplit("/", 1)[-1]
