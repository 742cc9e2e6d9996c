"""The family upstream against a real server of the protocol, and against a gateway of our own."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dataplane import KEY, DataPlane
from openai_server import KnownServer
from wenfang.core.conversation import Generation, Message, written
from wenfang.core.errors import Broken, Busy, Invalid, Unsupported
from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Cancelled
from wenfang.models import DataShape, families

TRAIN = Examples("classification", [f"天{i}{'好' if i % 2 else '坏'}" for i in range(30)], ["good" if i % 2 else "bad" for i in range(30)])


@pytest.fixture
def server():
    server = KnownServer()
    yield server
    server.close()


def made(server, task, **more):
    family = families.get("upstream")
    return family(family.Hyper(base_url=getattr(server, "base_url", server), model="m", **more), task=task)


def closed(model):
    model._server().close()


def test_nothing_is_offered_unasked():
    family = families.get("upstream")
    assert list(family.candidates(DataShape("chat", 10, 0, 5, 9))) == []
    (one,) = family.candidates(DataShape("chat", 10, 0, 5, 9, upstreams=("http://127.0.0.1:1/v1",)))
    assert one.base_url == "http://127.0.0.1:1/v1"
    (one,) = family.candidates(DataShape("chat", 10, 0, 5, 9, upstreams=("https://host/v1#org/model:7b@THE_API_KEY",)))
    assert (one.base_url, one.model, one.api_key_variable) == ("https://host/v1", "org/model:7b", "THE_API_KEY")
    (one,) = family.candidates(DataShape("chat", 10, 0, 5, 9, upstreams=("https://host/v1#m@THE_API_KEY=2/8.5",)))
    assert (one.model, one.api_key_variable, one.price_in, one.price_out) == ("m", "THE_API_KEY", 2.0, 8.5)
    for wrong in (
        "host",
        "https://host/v1#m=-1",
        "https://host/v1#m=inf",
        "https://host/v1#m=dear",
        "https://host/v1#m@sk-123",
        "https://host/v1#m@HOME",
        "https://host/v1#m@WENFANG_API_KEY",
    ):
        with pytest.raises(Invalid, match=r"upstream\.bad-offer"):
            family.candidates(DataShape("chat", 10, 0, 5, 9, upstreams=(wrong,)))
    with pytest.raises(Invalid, match=r"upstream\.no-url"):
        family(task="classification").fit(TRAIN)
    for wrong in ({"base_url": "http://user:key@host/v1"}, {"base_url": "http://host/v1?key=x"}, {"base_url": "host"}, {"api_key_variable": "sk-123"}, {"api_key": "sk-123"}):
        with pytest.raises(ValueError, match="validation error"):
            family.Hyper.model_validate(wrong)


def test_labels_by_prompt(server, tmp_path, monkeypatch):
    monkeypatch.setenv("THE_API_KEY", "sk-very-secret")
    model = made(server, "classification", shots=2, api_key_variable="THE_API_KEY").fit(TRAIN)
    _, headers, body = server.asked[-1]
    assert headers["authorization"] == "Bearer sk-very-secret"
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert {m["content"] for m in body["messages"] if m["role"] == "assistant"} == {"good", "bad"}
    assert '["bad", "good"]' in body["messages"][0]["content"]
    answers = model.predict(["真好", "太坏", "?", "\ud800好"])
    assert [o.label for o in answers] == ["good", "bad", "bad", "good"]
    assert model.unparsable == 1
    assert answers[0].score > 0.9 > answers[2].score
    assert answers[0].tokens_in == 7
    model.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["upstream.json"]
    assert "secret" not in (tmp_path / "upstream.json").read_text() + model.hyper.model_dump_json()
    again = type(model).load(tmp_path, task="classification", hyper=model.hyper, labels=model.labels_)
    assert again.predict(["真好", "?"]) == model.predict(["真好", "?"])
    monkeypatch.delenv("THE_API_KEY")
    with pytest.raises(Broken, match=r"upstream\.no-key"):
        type(model).load(tmp_path, task="classification", hyper=model.hyper, labels=model.labels_).predict(["x"])
    code = (
        "import sys, pathlib; sys.modules['torch'] = None; from wenfang.models import families; f = families.get('upstream');"
        "m = f.load(pathlib.Path(sys.argv[1]), task='classification', hyper=f.Hyper.model_validate_json(sys.argv[2]), labels=['bad', 'good']);"
        "print([o.label for o in m.predict(['好'])])"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path), made(server, "classification").hyper.model_dump_json()], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['good']"
    closed(model)
    closed(again)


def test_spans_label_sets_and_pairs(server, tmp_path):
    texts = [f"{i}好坏" if i % 3 else f"{i}无" for i in range(30)]
    tagged = Examples("tagging", texts, spans=[tuple(Span(i, i + 1, "good" if c == "好" else "bad") for i, c in enumerate(t) if c in "好坏") for t in texts])
    model = made(server, "tagging", shots=3).fit(tagged)
    assert model.right_ > 0.9
    body = server.asked[-1][2]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["spans"]["items"]["properties"]["label"]["enum"] == ["bad", "good"]
    assert json.loads(body["messages"][2]["content"])["spans"], "an example with spans is shown first"
    answers = model.predict(["好好坏", "?", "无"])
    assert [[(s.start, s.label) for s in o.spans] for o in answers] == [[(0, "good"), (1, "good"), (2, "bad")], [], []]
    assert answers[0].score > 0.9 > answers[1].score
    assert model.told() == {"requests": model.spent_.requests, "unparsable": 1, "lost": 0}
    model.save(tmp_path)
    again = type(model).load(tmp_path, task="tagging", hyper=model.hyper, labels=model.labels_)
    assert again.predict(["好好坏", "?"]) == answers[:2]

    sets = made(server, "multilabel").fit(Examples("multilabel", texts, label_sets=[("bad", "good") if "好" in t else () for t in texts]))
    assert [o.labels for o in sets.predict(["坏", "好坏", "?"])] == [("bad",), ("good", "bad"), ()]

    pairs = {"texts": ["a", "b", "c", "a"] * 9, "texts_b": ["a", "x", "c", "y"] * 9}
    same = made(server, "matching").fit(Examples("matching", **pairs, labels=["same", "other", "same", "other"] * 9))
    assert [o.label for o in same.match(["q", "q"], ["q", "r"])] == ["same", "other"]
    with pytest.raises(Invalid, match=r"model\.pairs-wanted"):
        same.predict(["q"])
    graded = made(server, "matching").fit(Examples("matching", **pairs, grades=[1.0, 0.25, 1.0, 0.25] * 9))
    assert [o.score for o in graded.match(["q", "q", "?"], ["q", "r", ""])] == [1.0, 0.25, pytest.approx(0.625)]
    for one in (model, again, sets, same, graded):
        closed(one)


def test_a_server_without_schemas_is_asked_without(server, tmp_path):
    server.schemas = False
    train = Examples("multilabel", ["好", "坏", "好坏"] * 4, label_sets=[("good",), ("bad",), ("bad", "good")] * 4)
    model = made(server, "multilabel", concurrency=1).fit(train)
    refused = sum("response_format" in body for _, _, body in server.asked)
    assert [o.labels for o in model.predict(["好"])] == [("good",)]
    assert 1 <= refused <= 2, "those that were on the way"
    assert "response_format" not in server.asked[-1][2]
    model.save(tmp_path)
    again = type(model).load(tmp_path, task="multilabel", hyper=model.hyper, labels=model.labels_)
    server.schemas = True
    again.predict(["坏"])
    assert "response_format" not in server.asked[-1][2]
    closed(model)
    closed(again)


def test_writing_and_talking(server):
    model = made(server, "generation", shots=1).fit(Examples("generation", ["abc"], targets=["cba"]))
    heard = {0: "", 1: ""}

    def emit(index, piece):
        heard[index] += piece

    options = Generation(max_tokens=5, temperature=0.5, stop=("x",), json_schema={"type": "object"})
    outputs = model.generate(["abcd", "xyz"], [options] * 2, emit=emit)
    assert [o.text for o in outputs] == ["dcba", "zyx"] == [heard[0], heard[1]]
    assert [(o.finish, o.tokens_in, o.tokens_out) for o in outputs] == [("stop", 7, 4), ("stop", 7, 3)]
    body = server.asked[-1][2]
    assert (body["max_tokens"], body["temperature"], body["stop"], body["model"]) == (5, 0.5, ["x"], "m")
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert model.predict(["ab"])[0].text == "ba"
    with pytest.raises(Invalid, match=r"upstream\.no-option"):
        model.generate(["a"], [Generation(beams=4)])
    closed(model)
    chat = made(server, "chat", instruction="Be kind.", shots=0)
    talk = [Message("user", "a"), Message("assistant", "b"), Message("user", "cd")]
    assert chat.predict([written(talk)])[0].text == "dc"
    assert [m["content"] for m in server.asked[-1][2]["messages"]] == ["Be kind.", "a", "b", "cd"]
    with pytest.raises(Unsupported):
        chat.match(["a"], ["b"])

    def stop(index, piece):
        raise Cancelled

    with pytest.raises(Cancelled):
        chat.generate(["abc"], [Generation()], emit=stop)
    closed(chat)


def test_what_it_charges_is_tokens_times_prices(server, tmp_path):
    model = made(server, "generation", shots=0, price_in=2.0, price_out=10.0).fit(Examples("generation", ["abc"], targets=["cba"]))
    assert model.charge_per_million() is None  # the check of fit is shorter than a real answer
    model.predict(["abcd", "ab"])
    assert model.charge_per_million() == 7 * 2.0 + 3 * 10.0  # the server tells 7 tokens for every question, one for each character it writes
    model.save(tmp_path)
    assert type(model).load(tmp_path, task="generation", hyper=model.hyper, labels=[]).charge_per_million() == 44.0
    closed(model)
    vectors = made(server, "embedding", price_in=2.0)
    vectors.predict(["a", "abc"])
    assert vectors.charge_per_million() == 2 * 2.0  # no tokens told: characters
    closed(vectors)
    free = made(server, "embedding")
    free.predict(["a"])
    assert free.charge_per_million() is None
    closed(free)


def test_vectors(server):
    model = made(server, "embedding").fit(Examples("embedding", ["a"]))
    a, b = (np.frombuffer(o.vector, "<f4") for o in model.predict(["a", "abc"]))
    assert np.allclose(a, [0.6, 0.8])
    assert np.allclose(np.linalg.norm(b), 1.0)
    assert model.match(["a"], ["a"])[0].score == pytest.approx(1.0)
    closed(model)


def test_a_server_that_fails(server):
    model = made(server, "chat", retries=0)
    server.failing[:] = [404]
    with pytest.raises(Broken, match=r"net\.refused"):
        model.predict(["x"])
    server.failing[:] = [503] * 5
    for _ in range(5):
        with pytest.raises(Busy, match=r"net\.overloaded"):
            model.predict(["x"])
    n = len(server.asked)
    with pytest.raises(Busy, match=r"net\.resting"):
        model.predict(["x"])
    assert len(server.asked) == n
    closed(model)


def test_a_gateway_of_ours_is_an_upstream(monkeypatch):
    plane = DataPlane({"mv_c": ("talker:1", "chat", 1, {}), "mv_v": ("vectors:1", "embedding", 1, {})}, {"talker": ("pj_1", "mv_c"), "vectors": ("pj_1", "mv_v")})
    try:
        monkeypatch.setenv("OTHER_WENFANG_API_KEY", KEY)
        family = families.get("upstream")
        base = {"base_url": f"http://127.0.0.1:{plane.port}/v1", "api_key_variable": "OTHER_WENFANG_API_KEY"}
        model = family(family.Hyper(**base, model="talker"), task="chat")
        heard = []
        (output,) = model.generate(["天地玄黄"], [Generation(max_tokens=3)], emit=lambda _, piece: heard.append(piece))
        assert (output.text, output.finish, output.tokens_out) == ("天地玄", "length", 3)
        assert "".join(heard) == output.text
        assert json.loads(model.generate(["OPTIONS"], [Generation(seed=3)])[0].text) == {"seed": 3}
        closed(model)
        vectors = family(family.Hyper(**base, model="vectors"), task="embedding")
        assert np.frombuffer(vectors.predict(["好"])[0].vector, "<f4") == pytest.approx(np.array([1, 0.5, -1]) / 1.5)
        closed(vectors)
    finally:
        plane.close()
