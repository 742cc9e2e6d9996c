"""JSON Schema (2020-12) of what a service is asked and what it answers."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from wenfang.serve.interface import WRITING, ByName, Interface, Kind, Many, Part, Scalar, Shape

from .base import Spec, shapes

__all__ = ["JsonSchema", "definitions", "schema_of", "written"]


class JsonSchema(Spec):
    """``{"request": …, "reply": …}`` with everything by name under ``$defs``."""

    file_name: ClassVar[str] = "schema.json"
    media_type: ClassVar[str] = "application/schema+json"

    def write(self, interface: Interface) -> str:
        """The schema of an exchange."""
        where = "#/$defs/"
        return written(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": interface.service,
                "description": f"What the service {interface.service} is asked and answers ({interface.task}, {interface.model}).",
                "type": "object",
                "required": ["request", "reply"],
                "properties": {name: {"$ref": where + shape.name} for name, shape in (("request", interface.request), ("reply", interface.reply))},
                "examples": [{"request": interface.asked, "reply": interface.answered}],
                "$defs": definitions(interface, where),
            }
        )


def definitions(interface: Interface, where: str) -> dict[str, Any]:
    """A schema for every shape of an interface.

    Args:
        interface: of the service.
        where: they are found, such as ``#/$defs/``.
    """
    asked = {s.name for s in shapes(interface.request)} - {"Message"}  # a turn may carry what others need of it
    found = {s.name: _object(s, where, closed=s.name in asked) for s in shapes(interface.request, interface.reply)}
    question = interface.question
    if interface.task == "chat":
        found[question.name]["oneOf"] = [{"required": ["text"]}, {"required": ["messages"]}]
    either = {"oneOf": [{"type": "string", "maxLength": _text_max(question)}, {"$ref": where + question.name}]} if interface.bare else {"$ref": where + question.name}
    many = found["PredictRequest"]["properties"]["inputs"]
    many["items"] = either
    found["PredictRequest"]["properties"]["inputs"] = {"oneOf": [*_alone(either), many], "description": many.pop("description")}
    if interface.task in WRITING:  # null there counts as left out
        for schema in found[interface.parameters.name]["properties"].values():
            schema["type"] = [schema["type"], "null"]
    return found


def _alone(either: dict[str, Any]) -> list[dict[str, Any]]:
    """One question may come without a list around it."""
    return either.get("oneOf", [either])


def _text_max(question: Shape) -> int | None:
    kind = question.parts[0].kind
    return kind.length_max if isinstance(kind, Scalar) else None


def _object(shape: Shape, where: str, *, closed: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "description": shape.says}
    if required := [p.name for p in shape.parts if p.required]:
        schema["required"] = required
    schema["properties"] = {p.name: _part(p, where) for p in shape.parts}
    if closed:
        schema["additionalProperties"] = False
    return schema


def _part(part: Part, where: str) -> dict[str, Any]:
    schema = {**schema_of(part.kind, where), "description": part.says}
    return schema if part.default is None else {**schema, "default": part.default}


def schema_of(kind: Kind, where: str) -> dict[str, Any]:
    """The schema of one value."""
    match kind:
        case Shape():
            return {"$ref": where + kind.name}
        case Many():
            limits = {"minItems": kind.least or None, "maxItems": kind.most}
            return {"type": "array", "items": schema_of(kind.of, where), **{k: v for k, v in limits.items() if v is not None}}
        case ByName():
            return {"type": "object", "additionalProperties": schema_of(kind.of, where)}
        case Scalar():
            limits = {"minimum": kind.least, "maximum": kind.most, "exclusiveMinimum": kind.above, "maxLength": kind.length_max, "enum": list(kind.names) or None}
            return {"type": kind.kind, **{k: v for k, v in limits.items() if v is not None}}


def written(document: dict[str, Any]) -> str:
    """A document as text: its own order, two spaces, Han characters as they are."""
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
