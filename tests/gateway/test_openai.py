"""``/v1`` asked by the real client of the OpenAI protocol, and by hand where the client would not dare."""

import asyncio
import base64
import json
import struct
import time

import openai
import pytest

from dataplane import AUDITOR, KEY, STRANGER, DataPlane, until

MODELS = {
    "mv_chat": ("talker:2", "chat", 1, {"token_ms": 5}),
    "mv_head": ("headlines:1", "generation", 1, {}),
    "mv_fast": ("writer:1", "chat", 1, {}),
    "mv_vec": ("vectors:1", "embedding", 1, {}),
    "mv_cls": ("intent:3", "classification", 1, {}),
}
SERVICES = {"talker": ("pj_1", "mv_chat"), "标题": ("pj_1", "mv_head"), "vectors": ("pj_1", "mv_vec"), "writer": ("pj_1", "mv_fast"), "intent": ("pj_1", "mv_cls")}
SCHEMA = {"type": "object", "properties": {"said": {"type": "string"}}}


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(MODELS, SERVICES, {"deadline_s": 3.0, "idle_timeout_s": 2.0})
    yield plane
    plane.close()


@pytest.fixture(scope="module")
def client(plane):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{plane.port}/v1", api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


def user(text):
    return [{"role": "system", "content": "be kind"}, {"role": "user", "content": text}]


def asked(client, **more):
    """What reached the model."""
    return json.loads(client.chat.completions.create(**{"model": "talker", "messages": user("OPTIONS"), **more}).choices[0].message.content)


# ------------------------------------------------------------ chat
def test_models_are_the_services_a_key_may_call(plane, client):
    assert [m.id for m in client.models.list()] == sorted(SERVICES)
    assert client.models.retrieve("标题").id == "标题"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"
    for key in (AUDITOR, STRANGER):
        assert json.loads(plane.get("/v1/models", key=key)[1]) == {"object": "list", "data": []}


def test_chat(client):
    answer = client.chat.completions.create(model="talker", messages=user("今天天气很好"))
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "今天天气很好", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 6, 12)
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "talker", "talker:2")


def test_a_stream_is_the_text_in_pieces(client):
    with client.chat.completions.create(model="talker", messages=user("天地玄黄宇宙洪荒" * 4), stream=True, stream_options={"include_usage": True}) as stream:
        chunks, at = [], []
        for chunk in stream:
            chunks.append(chunk)
            at.append(time.monotonic())
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == "天地玄黄宇宙洪荒" * 4
    assert len([p for p in pieces if p]) > 4
    assert at[-1] - at[0] > 0.08  # 32 characters at 5 ms
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 32)
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_what_is_asked_reaches_the_model(client):
    given = {"max_tokens": 5000, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["\n\n"], "frequency_penalty": 0, "presence_penalty": 0.0, "n": 1, "user": "somebody"}
    assert asked(client, **given) == {"max_tokens": 5000, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["\n\n"]}
    assert asked(client, max_completion_tokens=300, stop="x", extra_body={"top_k": 4, "repetition_penalty": 1.5}) == {
        "max_tokens": 300,
        "top_k": 4,
        "repetition_penalty": 1.5,
        "stop": ["x"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    assert asked(client, response_format=form)["json_schema"] == SCHEMA
    assert asked(client, response_format={"type": "json_object"})["json_schema"] == {"type": "object"}
    assert asked(client, response_format={"type": "text"}) == {}
    parts = [{"role": "user", "content": [{"type": "text", "text": "OPTIONS"}]}]
    assert asked(client, messages=parts) == {}


def test_length_stop_logprobs_and_the_other_kind_of_service(client):
    choice = client.chat.completions.create(model="talker", messages=user("abcdef"), max_tokens=3, logprobs=True).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("abc", "length")
    assert [t.logprob for t in choice.logprobs.content] == [-0.5] * 3
    assert client.chat.completions.create(model="talker", messages=user("abcdef"), stop="d").choices[0].message.content == "abc"
    assert client.chat.completions.create(model="标题", messages=user("一篇新闻")).choices[0].message.content == "一篇新闻"


def test_completions(client):
    answer = client.completions.create(model="标题", prompt=["一二三", "四五"], max_tokens=2, logprobs=1)
    assert [(c.index, c.text, c.finish_reason) for c in answer.choices] == [(0, "一二", "length"), (1, "四五", "stop")]
    assert answer.choices[0].logprobs.token_logprobs == [-0.5, -0.5]
    assert (answer.object, answer.usage.completion_tokens) == ("text_completion", 4)
    with client.completions.create(model="标题", prompt=["一二三", "四五"], stream=True) as stream:
        told = {0: "", 1: ""}
        for chunk in stream:
            for c in chunk.choices:
                told[c.index] += c.text
    assert told == {0: "一二三", 1: "四五"}


def test_embeddings(client):
    answer = client.embeddings.create(model="vectors", input=["好", "你好"])  # the client asks for base64 and unpacks it
    assert [e.embedding for e in answer.data] == [[1.0, 0.5, -1.0], [2.0, 0.5, -1.0]]
    assert (answer.usage.prompt_tokens, [e.index for e in answer.data]) == (3, [0, 1])
    assert client.embeddings.create(model="vectors", input="好", encoding_format="float", dimensions=3).data[0].embedding == [1.0, 0.5, -1.0]
    raw = client.embeddings.with_raw_response.create(model="vectors", input="好", encoding_format="base64")
    assert base64.b64decode(json.loads(raw.content)["data"][0]["embedding"]) == struct.pack("<3f", 1.0, 0.5, -1.0)


# ------------------------------------------------------------ refusals
def test_refusals_are_of_the_protocols_classes(plane, client):
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wf_nobody").chat.completions.create(model="talker", messages=user("x"))
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=AUDITOR).chat.completions.create(model="talker", messages=user("x"))
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="talkr", messages=user("x"))
    assert "talker" in str(caught.value)
    for model in ("intent", "vectors"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=user("x"))
        assert caught.value.code == "gateway.wrong-task"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="talker", input="x")
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="talker", messages=user("RAISE"))
    assert caught.value.code == "serve.model-failed"
    assert "in this message" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"n": 2}, "n"),
        ({"n": [1]}, "n"),
        ({"n": {"a": 1}}, "n"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": 2**64}}}}, "json_schema"),
        ({"seed": 2**64}, "seed"),
        ({"top_k": 2**64}, "top_k"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": []}, None),
        ({"messages": "x"}, None),
        ({"messages": [{"role": "user"}], "stream": "yes"}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_spoken_is_refused_by_name(plane, changes, parameter, stream):
    body = {"model": "talker", "messages": user("x"), "stream": stream, **changes}
    status, headers, text = plane.ask("POST", "/v1/chat/completions", body)
    error = json.loads(text)["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", parameter), error
    assert headers["content-type"] == "application/json"
    assert set(error) == {"message", "type", "param", "code"}


def test_other_wrong_bodies(plane):
    for path, body in [
        ("completions", {"model": "talker", "prompt": [1, 2]}),
        ("completions", {"model": "talker", "prompt": None}),
        ("completions", {"model": "talker", "prompt": "x", "echo": True}),
        ("completions", {"model": "talker", "prompt": "x", "logprobs": [1]}),
        ("completions", {"model": "talker", "prompt": "x", "logprobs": {}}),
        ("completions", {"model": "talker", "prompt": "x", "best_of": 3}),
        ("completions", {"model": "talker", "prompt": "x", "suffix": "y"}),
        ("completions", {"model": "intent", "prompt": "x"}),
        ("completions", {"model": "intent", "prompt": "x", "stream": True}),
        ("embeddings", {"model": "vectors", "input": [[1, 2]]}),
        ("embeddings", {"model": "vectors", "input": []}),
        ("embeddings", {"model": "vectors", "input": "x", "dimensions": 2}),
        ("embeddings", {"model": "vectors", "input": "x", "encoding_format": "int8"}),
        ("chat/completions", {"messages": user("x")}),
        ("chat/completions", b"{"),
    ]:
        status, _, text = plane.ask("POST", f"/v1/{path}", body)
        assert (status, list(json.loads(text))) == (400, ["error"]), (path, body)
    assert plane.ask("GET", "/v1/chat/completions")[0] == 405
    assert plane.ask("GET", "/v1/nothing")[0] == 404


# ------------------------------------------------------------ streams that end badly
def test_an_error_in_the_middle_is_told_in_the_stream(plane, client):
    pieces = []
    with pytest.raises(openai.APIError, match="failed on a text"), client.chat.completions.create(model="talker", messages=user("RAISE it"), stream=True) as stream:
        for chunk in stream:
            pieces.append(chunk.choices[0].delta.content)
    assert "".join(pieces) == "RAI"
    assert client.chat.completions.create(model="talker", messages=user("on")).choices[0].message.content == "on"


def in_flight(plane):
    return sum(p["in_flight"] + p["waiting"] for p in plane.call("stats")["pools"].values())


def body_of(text, stream):
    body = json.dumps({"model": "talker", "messages": user(text), "stream": stream}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_writing(plane, stream):
    sock = plane.raw(body_of("x" * 4000, stream))  # 20 s of work
    if stream:
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    else:
        until(lambda: in_flight(plane) == 1, what="work begins")
    start = time.monotonic()
    sock.close()
    until(lambda: in_flight(plane) == 0, what="work stops")
    assert time.monotonic() - start < 3.0


def test_a_client_that_does_not_read_is_given_up(plane):
    """Ten megabytes of events are more than the sockets hold: the gateway waits for the client, then hangs up."""
    before = plane.call("stats")["connections"]
    with plane.raw(body_of("x" * 45_000, True).replace(b"talker", b"writer")):
        until(lambda: plane.call("stats")["connections"] > before, what="connection")
        start = time.monotonic()
        until(lambda: plane.call("stats")["connections"] == before, what="connection given up")
        assert time.monotonic() - start > 1.5
    assert in_flight(plane) == 0


def test_a_stream_on_a_kept_connection_and_another_request_behind_it(plane):
    sock = plane.raw(body_of("天地", True) + body_of("玄黄", False))
    data = b""
    while data.count(b"HTTP/1.1 200") < 2 or "玄黄".encode() not in data:
        data += sock.recv(1 << 16)
    sock.close()
    first, _, second = data.partition(b"0\r\n\r\n")
    assert b"text/event-stream" in first
    assert first.count(b"data: ") >= 4
    assert b"chat.completion" in second


def test_http_1_0_gets_a_stream_that_ends_with_its_connection(plane):
    sock = plane.raw(body_of("天地", True).replace(b"HTTP/1.1", b"HTTP/1.0"))
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    sock.close()
    assert b"transfer-encoding" not in data
    assert data.endswith(b"data: [DONE]\n\n")


def test_many_streams_at_once_do_not_mix(plane):
    async def one(client, i):
        text = chr(0x4E00 + i) * 20
        stream = await client.chat.completions.create(model="talker", messages=user(text), stream=True)
        return text == "".join([c.choices[0].delta.content or "" async for c in stream])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{plane.port}/v1", api_key=KEY, timeout=60) as client:
            return await asyncio.gather(*(one(client, i) for i in range(24)))

    assert all(asyncio.run(all_of_them()))


# ------------------------------------------------------------ the other doors
def test_predict_writes_with_parameters_and_in_lines(plane):
    _, document = plane.predict([{"messages": [{"role": "user", "content": "OPTIONS"}]}], "talker", {"max_tokens": 99, "temperature": 0.25, "top_k": 3})
    assert json.loads(document["outputs"][0]["text"]) == {"max_tokens": 99, "temperature": 0.25, "top_k": 3}
    status, headers, text = plane.ask("POST", "/predict/talker", {"inputs": ["天地", "玄"], "stream": True})
    lines = [json.loads(line) for line in text.splitlines()]
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert ["".join(line["piece"] for line in lines[:-1] if line["index"] == i) for i in (0, 1)] == ["天地", "玄"]
    assert [o["text"] for o in lines[-1]["outputs"]] == ["天地", "玄"]
    assert lines[-1]["model"] == "talker:2"
    *_, last = map(json.loads, plane.ask("POST", "/predict/talker", {"inputs": "RAISE it", "stream": True})[2].splitlines())
    assert last["code"] == "serve.model-failed"
    status, document = plane.predict("x", "talker", {"max_tokens": "many"})
    assert (status, document["code"]) == (422, "gateway.bad-parameter")
    assert plane.predict("x", "talker", {"colour": 1})[1]["code"] == "gateway.bad-parameter"
    assert json.loads(plane.ask("POST", "/predict/intent", {"inputs": "x", "stream": True})[2])["code"] == "gateway.wrong-task"
    assert plane.predict("好", "vectors")[1]["outputs"] == [{"vector": [1.0, 0.5, -1.0], "tokens_in": 1}]


def test_inference_protocol_has_tensors_for_them(plane):
    def infer(service, texts, **more):
        tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
        status, _, body = plane.ask("POST", f"/v2/models/{service}/infer", {"inputs": [tensor], **more})
        return status, json.loads(body)

    assert infer("vectors", ["好", "你好"])[1]["outputs"] == [{"name": "vector", "datatype": "FP32", "shape": [2, 3], "data": [1.0, 0.5, -1.0, 2.0, 0.5, -1.0]}]
    text, finish = infer("talker", ["abc"], parameters={"max_tokens": 2})[1]["outputs"]
    assert (text["datatype"], text["data"], finish["data"]) == ("BYTES", ["ab"], ["length"])
    assert infer("talker", ["abc"], parameters={"max_tokens": "two"})[0] == 400
    about = json.loads(plane.get("/v2/models/vectors")[1])
    assert about["outputs"] == [{"name": "vector", "datatype": "FP32", "shape": [-1, -1]}]
