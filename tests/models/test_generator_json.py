"""The JSON automaton: any walk along what it allows, ended the shortest way, is JSON of the schema."""

import json
import random

import pytest

from wenfang.models.generation.json_schema import Schema

SCHEMAS = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5, "minLength": 1},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"enum": ["a", "b", "好"]}, "minItems": 1, "maxItems": 3},
            "inner": {"type": "object", "properties": {"x": {"type": ["number", "null"]}, "y": {"type": "boolean"}}, "required": ["y"]},
        },
        "required": ["name", "tags", "inner"],
    },
    {"type": "number"},
    {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    {"const": {"a": [1, 2]}},
    {"type": "object", "properties": {"a": {"type": "string"}, "ab": {"type": "string"}}},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "required": ["b"]},
]


def fits(value, schema):
    """Whether a value keeps a schema of the supported part."""
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    if not any(isinstance(value, types[k]) for k in kinds):
        return False
    if isinstance(value, dict):
        return set(schema.get("required", [])) <= set(value) <= set(schema["properties"]) and all(fits(v, schema["properties"][k]) for k, v in value.items())
    if isinstance(value, list):
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 99) and all(fits(v, schema["items"]) for v in value)
    return not isinstance(value, str) or schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_every_walk_ends_as_json_of_the_schema(number):
    schema, rng = Schema(SCHEMAS[number]), random.Random(number)
    for _ in range(200):
        state, said = schema.start, b""
        for _ in range(rng.randint(0, 50)):
            able = sorted(schema.first_bytes(state))
            likely = [b for b in b'"}],:0' if b in able]
            if not able:
                break
            said += bytes([rng.choice(likely if likely and rng.random() < 0.5 else able)])
            state = schema.after(state, said[-1:])
        ending = schema.ending(state)
        whole = schema.after(state, ending)
        assert whole is not None
        assert schema.ended(whole)
        assert fits(json.loads((said + ending).decode()), SCHEMAS[number])


def test_what_does_not_fit_is_not_allowed():
    schema = Schema(SCHEMAS[0])
    for wrong in (
        b"[",
        b'{"age"',
        b'{"name":1',
        b'{"name":"abcdef',
        b'{"name":""',
        b'{"name":"a","inner"',
        b'{"name":"a","tags":[]',
        b'{"name":"a","tags":["c',
        b"{ ",
        b'{"name":"\n',
    ):
        assert schema.after(schema.start, wrong) is None, wrong
    assert schema.after(schema.start, '{"name":"好","tags":["好"],"inner":{"y":true}}'.encode()) == ()
