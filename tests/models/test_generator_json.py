"""The JSON automaton: any walk along what it allows, ended the shortest way, is JSON of the schema."""

import json
import math
import random
import re
import time

import pytest

from wenfang.core.errors import Invalid
from wenfang.models.generation.json_schema import Schema


def KIND(name, value):  # noqa: N802
    return {"type": "object", "properties": {"kind": {"const": name}, "value": value}, "required": ["kind", "value"]}


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
    {"enum": [1, 12, "1", "12", -3]},
    {"type": "integer", "minimum": -12, "exclusiveMaximum": 1005},
    {"type": "integer", "minimum": 37, "maximum": 41},
    {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.3},
    {"type": "number", "minimum": -0.05, "exclusiveMaximum": 0},
    {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"enum": [1, 2, "a"]}, {"type": "string", "pattern": "^[b-d]{2,3}$"}, {"type": "null"}]}, "maxItems": 4},
    {"oneOf": [KIND("a", {"type": "integer"}), KIND("b", {"type": "string", "maxLength": 2})]},
    {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "object", "properties": {"v": {"type": "boolean"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["kids"]}},
    },
    {"type": "string", "pattern": "^(?:1[3-9]\\d{9}|0\\d{2,3}-\\d{7,8})$"},
    {"type": "string", "pattern": "^[\u4e00-\u9fff]{2,4}(?:公司|局)?$"},
    {"type": "string", "pattern": "b+c"},
    {"type": "string", "pattern": '^["\\\\\n]+é?$|^好'},
]


def fits(value, schema, root):
    """Whether a value keeps a schema of the supported part."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].split("/")[-1]], root)
    if "anyOf" in schema or "oneOf" in schema:
        kept = sum(fits(value, option, root) for option in schema.get("anyOf", schema.get("oneOf")))
        return kept == 1 if "oneOf" in schema else kept >= 1
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    if not any(isinstance(value, types[k]) for k in kinds):
        return False
    if isinstance(value, dict):
        return set(schema.get("required", [])) <= set(value) <= set(schema["properties"]) and all(fits(v, schema["properties"][k], root) for k, v in value.items())
    if isinstance(value, list):
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 99) and all(fits(v, schema["items"], root) for v in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return low <= value <= high and schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)
    if isinstance(value, str) and "pattern" in schema:
        return re.search(schema["pattern"].replace("$", r"\Z"), value) is not None
    return not isinstance(value, str) or schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)


def ending(schema, state):
    """The shortest end: each byte brings it one nearer."""
    said = b""
    while needed := schema.needs(state):
        byte, state = min(((b, schema.after(state, bytes([b]))) for b in sorted(schema.first_bytes(state))), key=lambda f: schema.needs(f[1]))
        assert schema.needs(state) < needed
        said += bytes([byte])
    return said


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_every_walk_ends_as_json_of_the_schema(number):
    schema, rng = Schema(SCHEMAS[number]), random.Random(number)
    for _ in range(60):
        state, said = schema.start, b""
        for _ in range(rng.randint(0, 50)):
            able = sorted(schema.first_bytes(state))
            likely = [b for b in b'"}],:0' if b in able]
            if not able:
                break
            said += bytes([rng.choice(likely if likely and rng.random() < 0.5 else able)])
            state = schema.after(state, said[-1:])
        end = ending(schema, state)
        assert len(end) <= 200
        whole = schema.after(state, end)
        assert whole is not None
        assert schema.ended(whole)
        assert fits(json.loads((said + end).decode()), SCHEMAS[number], SCHEMAS[number])


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


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer", "minimum": 37, "maximum": 410}, ["37", "99", "410"], ["36", "411", "5", "-3", "0", "4100"]),
        ({"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.3}, ["0.26", "0.3", "0.30"], ["0.25", "0.31", "1", "-0.26"]),
        ({"type": "string", "pattern": "^(ab|a.)*?c$"}, ['"abc"', '"c"', '"a好c"'], ['"ab"', '"bc"', '"a\\nc"']),
        ({"type": "string", "pattern": "[^a]b"}, ['"xxbx"', '"\\"b"'], ['"ab"', '"b"']),
        ({"anyOf": [{"enum": [12]}, {"type": "integer", "minimum": 120}]}, ["12", "120"], ["1", "119"]),
        ({"enum": [1, 12]}, ["1", "12"], ["2", "123"]),
    ],
)
def test_what_is_a_value_and_what_is_not(schema, right, wrong):
    schema = Schema(schema)
    for text in (*right, *wrong):
        state = schema.after(schema.start, text.encode())
        assert (state is not None and schema.ended(state)) == (text in right), text


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)b",
        "(a)\\1",
        "\\bword",
        "a**",
        "[b-a]",
        "(a",
        "a)",
        "a{3,1}",
        "\\p{L}",
        "a$b",
        "(^a)",
        "(((((((a{20}){20}){20}){20}){20}){20}){20})",
        "a{9999}",
        "x" * 1001,
        "(" * 500 + ")" * 500,
    ],
)
def test_patterns_that_are_not_kept_are_refused_at_once(pattern):
    start = time.process_time()
    with pytest.raises(Invalid, match="schema-unsupported"):
        Schema({"type": "string", "pattern": pattern})
    assert time.process_time() - start < 1.0


def doubled(n, keyword):
    """Each of n definitions needs the next twice."""
    refs = [{"$ref": f"#/$defs/d{i + 1}"} for i in range(n)]
    both = {
        "anyOf": lambda r: {"anyOf": [{"type": "array", "items": r}, {"type": "array", "items": r, "maxItems": 3}]},
        "all": lambda r: {"type": "object", "properties": {"a": r, "b": r}, "required": ["a", "b"]},
    }
    return {"$ref": "#/$defs/d0", "$defs": {f"d{i}": both[keyword](r) for i, r in enumerate(refs)} | {f"d{n}": {"type": "null"}}}


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"$ref": "#"}, "schema-wrong"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "schema-wrong"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}}, "schema-wrong"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#"}}}}, None),
        ({"$ref": 3}, "schema-unsupported"),
        ({"$ref": "http://elsewhere/x"}, "schema-unsupported"),
        ({"$ref": "#/$defs/gone", "$defs": {}}, "schema-wrong"),
        ({"anyOf": []}, "schema-wrong"),
        ({"anyOf": [{"type": "null"}] * 65}, "schema-wrong"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "schema-unsupported"),
        ({"oneOf": [KIND("a", {"type": "null"}), KIND("a", {"type": "integer"})], "title": "t"}, None),
        ({"oneOf": [{"const": 1}, {"const": 1.0}]}, "schema-unsupported"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "schema-wrong"),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6}, "schema-wrong"),
        ({"type": "number", "minimum": 1e300}, "schema-wrong"),
        ({"type": "integer", "multipleOf": 3}, "schema-unsupported"),
        ({"type": "string", "pattern": "^a", "minLength": 3}, "schema-unsupported"),
        ({"type": "string", "pattern": "[]"}, "schema-wrong"),
    ],
)
def test_schemas_that_cannot_be_kept_are_refused(schema, code):
    if code is None:
        Schema(schema)
        return
    with pytest.raises(Invalid, match=code):
        Schema(schema)


def test_hostile_schemas_cost_little():
    start = time.process_time()
    for size in (30, 45):
        try:
            wide = Schema(doubled(size, "anyOf"))
        except Invalid:
            continue
        state = wide.start
        for _ in range(25):
            state = wide.after(state, b"[")
            assert 0 < len(state) <= 32
        assert json.loads(b"[" * 25 + ending(wide, state)) is not None
    assert Schema(doubled(14, "all")).needs(Schema(doubled(14, "all")).start) > 2**14
    long = Schema({"type": "string", "minLength": 1 << 30})
    assert long.needs(long.start) > 1 << 30
    with pytest.raises(Invalid, match="schema-wrong"):
        Schema({"type": "array", "items": {"type": "string", "minLength": 1 << 30}, "minItems": 1 << 30})
    loop = Schema({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}})
    state = loop.after(loop.start, b"[" * 96)
    assert loop.after(loop.start, b"[" * 200) is None
    assert loop.needs(state) == 96
    slow = Schema({"type": "string", "pattern": "^(a|a|a?)*(a*)*b$"})
    state = slow.after(slow.start, b'"' + b"a" * 5000)
    assert slow.needs(state) == 2
    assert time.process_time() - start < 5.0
