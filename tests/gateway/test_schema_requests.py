"""Requests made from a service's own schema, right ones and nearly right ones: what the schema allows is answered as it promises, what it forbids is refused, nothing breaks."""

import http.client
import json
import random

import msgspec
import pytest

from dataplane import KEY, DataPlane

jsonschema = pytest.importorskip("jsonschema")
TASKS = ("classification", "multilabel", "tagging", "matching", "embedding", "generation", "chat")
LABELS = {"tagging": ["NUM"], "matching": ["same", "other"]}
STRINGS = ["", "a", "今天天气很好", "3\u0000\u2028\U0001f600", "x" * 300, '[{"role":', "\\", '"', " "]


class Plane(DataPlane):
    """Whose models tell their labels."""

    def table(self):
        table = super().table()
        return msgspec.structs.replace(table, models={id: msgspec.structs.replace(m, labels=LABELS.get(m.task, [])) for id, m in table.models.items()})


@pytest.fixture(scope="module")
def plane():
    tasks = [t for t in TASKS if t != "multilabel"]
    plane = Plane({f"mv_{t}": (f"{t}:1", t, 1, {"task": t, "joins": 4 * (t in {"generation", "chat"})}) for t in tasks}, {t: ("pj_1", f"mv_{t}") for t in tasks})
    yield plane
    plane.close()


class Maker:
    """Values of a schema, small ones, often at its bounds."""

    def __init__(self, schema, seed):
        self.definitions, self.rng = schema["$defs"], random.Random(seed)

    def value(self, schema):
        rng = self.rng
        if "$ref" in schema:
            return self.value(self.definitions[schema["$ref"].rsplit("/", 1)[1]])
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "oneOf" in schema and "properties" not in schema:
            return self.value(rng.choice(schema["oneOf"]))
        kind = schema.get("type")
        match rng.choice(kind) if isinstance(kind, list) else kind:
            case "object":
                return self.object(schema)
            case "array":
                return [self.value(schema["items"]) for _ in range(rng.randint(schema.get("minItems", 0), 3))]
            case "string":
                return rng.choice(STRINGS)
            case "integer":
                return rng.choice([schema.get("minimum", -3), schema.get("maximum", 9), max(1, schema.get("minimum", 1))])
            case "number":
                return rng.choice([schema.get("minimum", 0.5), schema.get("maximum", 2.0), 0.25])
            case "boolean":
                return rng.random() < 0.5
            case _:
                return None

    def object(self, schema):
        names = set(schema.get("required", ())) | {n for n in schema.get("properties", {}) if self.rng.random() < 0.3}
        if "oneOf" in schema:
            one = self.rng.choice(schema["oneOf"])["required"]
            names = {n for n in names if all(n not in other["required"] for other in schema["oneOf"])} | set(one)
        return {n: self.value(schema["properties"][n]) for n in schema.get("properties", {}) if n in names and n != "stream"}

    def nearly(self, value):
        """``value`` with one thing changed somewhere."""
        rng = self.rng
        if isinstance(value, dict) and value and rng.random() < 0.8:
            name = rng.choice(sorted(value))
            match rng.randrange(8):
                case 0:
                    return {n: v for n, v in value.items() if n != name}
                case 1:
                    return {**value, rng.choice(["more", "Text", "inputs", "top_k"]): rng.choice([1, "a"])}
                case _:
                    return {**value, name: self.nearly(value[name])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            return [*value[:at], self.nearly(value[at]), *value[at + 1 :]]
        return rng.choice([None, True, -1, 0, 1.5, 2**40, 10**30, "a", [], {}, [[]], ["a", 1], {"a": 1}])


def as_meant(document):
    """Null in a question counts as left out; the schema says the short form."""
    if not isinstance(document, dict) or "inputs" not in document:
        return document

    def question(asked):
        return {n: v for n, v in asked.items() if v is not None or n not in {"text", "text_b", "messages"}} if isinstance(asked, dict) else asked

    inputs = document["inputs"]
    return {**document, "inputs": [question(q) for q in inputs] if isinstance(inputs, list) else question(inputs)}


def mixed(document):
    """Pairs and texts in one request, which no schema can forbid."""
    inputs = document["inputs"] if isinstance(document["inputs"], list) else [document["inputs"]]
    return len({isinstance(q, dict) and "text_b" in q for q in inputs}) > 1


def ask(connection, path, document):
    connection.request("POST", path, json.dumps(document), {"X-API-Key": KEY, "Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def try_many(plane, service, n, seed):
    schema = json.loads(plane.get(f"/predict/{service}/schema.json")[1])
    request, reply = (jsonschema.Draft202012Validator({**schema["properties"][side], "$defs": schema["$defs"]}) for side in ("request", "reply"))
    maker = Maker(schema, seed)
    connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=30)
    counts = {True: 0, False: 0}
    for at in range(n):
        document = maker.value(schema["properties"]["request"])
        document = document if at % 3 == 0 else maker.nearly(document)
        meant = as_meant(document)
        allowed = request.is_valid(meant) and not mixed(meant)
        status, told = ask(connection, f"/predict/{service}", document)
        assert (status == 200) == allowed and (allowed or status == 422), (status, allowed, document, told)
        counts[allowed] += 1
        if allowed:
            reply.validate(told)
    connection.close()
    assert min(counts.values()) > n // 10, counts


@pytest.mark.parametrize("service", [t for t in TASKS if t != "multilabel"])
def test_what_the_schema_allows_is_answered_and_what_it_forbids_refused(plane, service):
    try_many(plane, service, 120, 1)


@pytest.mark.slow
@pytest.mark.parametrize("service", [t for t in TASKS if t != "multilabel"])
def test_many_more(plane, service):
    try_many(plane, service, 3000, 2)
