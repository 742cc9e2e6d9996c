"""What a service says of itself is true: the generated client really calls it, its answers fit the generated schema, callers may fetch both from the gateway."""

import asyncio
import importlib.util
import json
import sys
from urllib.parse import quote

import msgspec
import pytest

from dataplane import AUDITOR, KEY, STRANGER, DataPlane
from wenfang.serve.interface import interface_of
from wenfang.serve.specs import specs

TASKS = {"intent": "classification", "spans": "tagging", "pairs": "matching", "vectors": "embedding", "talk": "chat", "texts": "generation", "客服-意图": "classification"}
LABELS = {"classification": ["a", "今", "天"], "tagging": ["NUM"], "matching": ["same", "other"]}


class Plane(DataPlane):
    """Whose models tell their labels."""

    def table(self):
        table = super().table()
        models = {id: msgspec.structs.replace(m, labels=LABELS.get(m.task, [])) for id, m in table.models.items()}
        return msgspec.structs.replace(table, models=models)


@pytest.fixture(scope="module")
def plane():
    tasks = sorted(set(TASKS.values()))
    models = {f"mv_{task}": (f"{task}:2", task, 1, {"task": task, "joins": 4 * (task in {"chat", "generation"})}) for task in tasks}
    plane = Plane(models, {name: ("pj_1", f"mv_{task}") for name, task in TASKS.items()})
    yield plane
    plane.close()


@pytest.fixture(scope="module")
def clients(plane, tmp_path_factory):
    """The generated module of every service, fetched from the gateway."""
    folder = tmp_path_factory.mktemp("clients")
    modules = {}
    for number, name in enumerate(TASKS):
        status, headers, body = plane.ask("GET", f"/predict/{quote(name)}/client.py")
        assert (status, headers["content-type"]) == (200, "text/x-python; charset=utf-8")
        path = folder / f"generated_{number}.py"
        path.write_bytes(body)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        modules[name] = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules


@pytest.fixture
def opened(plane, clients):
    made = []

    def open_(name, **more):
        made.append(clients[name].Client(f"http://127.0.0.1:{plane.port}", **{"api_key": KEY, **more}))
        return made[-1]

    yield open_
    for client in made:
        client.close()


def test_the_gateway_writes_what_the_studio_writes(plane):
    for name in specs.names():
        spec = specs.get(name)()
        status, body = plane.get(f"/predict/intent/{spec.file_name}")
        assert (status, body.decode()) == (200, spec.write(interface_of("intent", model="classification:2", task="classification", labels=LABELS["classification"])))
        assert plane.ask("HEAD", f"/predict/intent/{spec.file_name}")[0] == 200


def test_only_those_who_may_call_may_read_it_and_unknown_files_offer_what_there_is(plane):
    assert plane.get("/predict/intent/openapi.json", key=None)[0] == 401
    assert plane.get("/predict/intent/openapi.json", key=AUDITOR)[0] == 403
    assert plane.get("/predict/intent/openapi.json", key=STRANGER)[0] == 404  # what a key may not call it does not learn of
    assert plane.get("/predict/nobody/openapi.json")[0] == 404
    status, body = plane.get("/predict/intent/openapi.yaml")
    assert status == 404 and json.loads(body)["code"] == "gateway.no-such-document" and "openapi.json" in json.loads(body)["hint"]
    assert plane.ask("PUT", "/predict/intent/openapi.json", {})[0] == 405 and plane.ask("POST", "/predict/intent/openapi.json", {})[0] == 404
    for path in ("/predict/intent/", "/predict/intent/openapi.json/", "/predict//openapi.json", "/predict/intent/../openapi.json"):
        assert plane.get(path)[0] in {400, 404}, path


def test_labels_and_scores(clients, opened):
    module, client = clients["intent"], opened("intent")
    found = client.predict(["今天", "天气很好"])
    assert found.outputs == (module.Answer("今", 1 / 3), module.Answer("天", 1 / 5)) and found.model == "classification:2" and found.id.startswith("rq_")
    assert client.predict("今天").outputs == found.outputs[:1]
    assert client.predict(module.Question("今天"), module.Parameters(top_k=2)).outputs[0].scores == {"x": 1 / 3, "y": 1 / 6}
    assert opened("客服-意图").predict("今天").outputs[0].label == "今"


def test_every_other_task(clients, opened):
    spans = clients["spans"]
    assert opened("spans").predict("a1").outputs == (spans.Answer((spans.Span(1, 2, "NUM", "1"),), 0.5),)
    pairs = clients["pairs"]
    assert [a.label for a in opened("pairs").predict([pairs.Question("a", "a"), pairs.Question("a", "b")]).outputs] == ["same", "other"]
    assert opened("vectors").predict("ab").outputs[0].vector == (2.0, 0.5, -1.0)
    talk = clients["talk"]
    said = opened("talk").predict(talk.Question(messages=[talk.Message("user", "你好吗")]), talk.Parameters(max_tokens=2)).outputs[0]
    assert (said.text, said.finish) == ("你好", "length")
    assert opened("texts").predict("天气", clients["texts"].Parameters(stop=["气"])).outputs[0].text == "天"


def test_streams(plane, clients, opened):
    module = clients["talk"]
    *pieces, whole = opened("talk").stream(["你好", "ab"])
    assert {i: "".join(p.piece for p in pieces if p.index == i) for i in (0, 1)} == {0: "你好", 1: "ab"}
    assert [o.text for o in whole.outputs] == ["你好", "ab"]
    with pytest.raises(module.InvalidRequestError, match=r"gateway\.bad-parameter"):
        next(iter(opened("talk").stream("a", module.Parameters(top_p=2.0))))

    async def ask():
        async with module.AsyncClient(f"http://127.0.0.1:{plane.port}", api_key=KEY) as client:
            return [told async for told in client.stream("你好")], await client.predict("a")

    told, alone = asyncio.run(ask())
    assert "".join(p.piece for p in told[:-1]) == told[-1].outputs[0].text == "你好" and alone.outputs[0].text == "a"


def test_many_at_once_from_asyncio(plane, clients):
    async def ask():
        async with clients["intent"].AsyncClient(f"http://127.0.0.1:{plane.port}", api_key=KEY) as client:
            return await asyncio.gather(*(client.predict("x" * n) for n in range(1, 40)))

    assert [r.outputs[0].score for r in asyncio.run(ask())] == [1 / (1 + n) for n in range(1, 40)]


def test_errors_are_exceptions_with_what_the_service_said(plane, clients, opened):
    module = clients["intent"]
    cases = [
        (opened("intent", api_key=""), "a", module.UnauthenticatedError, 401, "auth.no-key"),
        (opened("intent", api_key=AUDITOR), "a", module.DeniedError, 403, "auth.denied"),
        (opened("intent", api_key=STRANGER), "a", module.NotFoundError, 404, "serve.unknown-service"),
        (opened("intent"), [], module.InvalidRequestError, 422, "gateway.no-inputs"),
        (opened("intent"), "a" * 50_001, module.InvalidRequestError, 422, "gateway.text-too-long"),
        (opened("intent"), "RAISE", module.ServiceError, 500, "serve.model-failed"),
    ]
    for client, asked, error, status, code in cases:
        with pytest.raises(error) as e:
            client.predict(asked)
        assert (e.value.status, e.value.code) == (status, code) and e.value.detail and e.value.request_id and code in str(e.value)
    with pytest.raises(module.NoAnswerError) as e:
        module.Client("http://127.0.0.1:9", api_key=KEY, timeout_s=2.0).predict("a")
    assert e.value.status == 0


def test_answers_fit_the_schema_of_the_service(plane):
    jsonschema = pytest.importorskip("jsonschema")
    questions = {"matching": [{"text": "a", "text_b": "b"}], "chat": [{"messages": [{"role": "user", "content": "你好"}]}], "embedding": ["a"]}
    for name, task in TASKS.items():
        if not name.isascii():
            continue
        schema = json.loads(plane.get(f"/predict/{name}/schema.json")[1])
        validator = jsonschema.Draft202012Validator(schema)
        for parameters in ({}, {"max_tokens": 3} if task in {"chat", "generation"} else {"top_k": 1}):
            request = {"inputs": questions.get(task, ["a1", "今"]), "parameters": parameters}
            status, _, body = plane.ask("POST", f"/predict/{name}", request)
            assert status == 200
            validator.validate({"request": request, "reply": json.loads(body)})
