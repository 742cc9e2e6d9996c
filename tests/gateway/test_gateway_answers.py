"""What the gateway answers: predictions, the Open Inference Protocol, probes, keys, bad input."""

import json
import re

import pytest

from dataplane import AUDITOR, EXPIRED, KEY, STRANGER, DataPlane

MODELS = {"mv_cls": ("intent:3", "classification", 2, {}), "mv_tag": ("entities:1", "tagging", 1, {}), "mv_pair": ("pairs:1", "matching", 1, {})}
SERVICES = {"intent": ("pj_1", "mv_cls"), "实体": ("pj_1", "mv_tag"), "pairs": ("pj_1", "mv_pair")}


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(MODELS, SERVICES, {"body_max_bytes": 1 << 20})
    yield plane
    plane.close()


def problem(plane, status, code, method="POST", path="/predict/intent", body=None, **more):
    got, headers, text = plane.ask(method, path, body, **more)
    document = json.loads(text)
    assert (got, document["code"]) == (status, code), document
    assert headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert set(document) >= {"type", "title", "status", "detail", "code", "hint", "request_id", "errors"}
    assert document["request_id"] == headers["x-request-id"]
    return document, headers


# ------------------------------------------------------------ predict
def test_one_text_and_many(plane):
    status, one = plane.predict("你好")
    assert (status, one["outputs"], one["model"]) == (200, [{"label": "你", "score": 1 / 3}], "intent:3")
    status, many = plane.predict([f"{i}{'x' * i}" for i in range(50)])
    assert [o["label"] for o in many["outputs"]] == [str(i)[0] for i in range(50)]
    assert many["id"].startswith("rq_")


def test_top_k_is_each_requests_own(plane):
    assert plane.predict(["ab"], parameters={"top_k": 2})[1]["outputs"][0]["scores"] == {"x": 1 / 3, "y": 1 / 6}
    assert len(plane.predict(["ab"], parameters={"top_k": 3})[1]["outputs"][0]["scores"]) == 3
    assert "scores" not in plane.predict(["ab"])[1]["outputs"][0]


def test_spans_carry_their_text(plane):
    outputs = plane.predict(["房间3号😀7", "无"], service="%E5%AE%9E%E4%BD%93")[1]["outputs"]
    assert outputs == [
        {"spans": [{"start": 2, "end": 3, "label": "NUM", "text": "3"}, {"start": 5, "end": 6, "label": "NUM", "text": "7"}], "score": 0.5},
        {"spans": [], "score": 0.5},
    ]


def test_pairs_are_asked_as_objects(plane):
    status, told = plane.predict([{"text": "a", "text_b": "a"}, {"text": "a", "text_b": "b"}], service="pairs")
    assert (status, told["outputs"]) == (200, [{"label": "same", "score": 1.0}, {"label": "other", "score": 1.0}])
    problem(plane, 422, "gateway.pairs-wanted", path="/predict/pairs", body={"inputs": ["a"]})
    problem(plane, 422, "gateway.no-pairs", body={"inputs": [{"text": "a", "text_b": "b"}]})
    problem(plane, 422, "gateway.pairs-mixed", path="/predict/pairs", body={"inputs": [{"text": "a", "text_b": "b"}, "c"]})
    problem(plane, 422, "gateway.bad-input", path="/predict/pairs", body={"inputs": [{"text_b": "b"}]})


def test_request_ids_travel(plane):
    assert plane.ask("POST", "/predict/intent", {"inputs": "x"}, {"X-Request-Id": "mine-1"})[1]["x-request-id"] == "mine-1"
    assert plane.ask("POST", "/predict/intent", {"inputs": "x"}, {"X-Request-Id": "bad id\t!"})[1]["x-request-id"].startswith("rq_")


def test_odd_but_legal_texts(plane):
    texts = ["", "\0", "a\0b", "𝄞😀", "\u202eabc", "\ufeff", "x" * 50_000]
    status, document = plane.predict(texts)
    assert status == 200
    assert [o["score"] for o in document["outputs"]] == [1 / (1 + len(t)) for t in texts]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "gateway.bad-json"),
        (b"{", "gateway.bad-json"),
        (b'{"inputs": NaN}', "gateway.bad-json"),
        (b'{"inputs": ["a"], "inputs2": 1}', "gateway.bad-json"),
        (b'{"inputs": [1]}', "gateway.bad-json"),
        (b'{"inputs": null}', "gateway.bad-json"),
        (b'{"inputs": {"a": "b"}}', "gateway.bad-json"),
        (b'["a"]', "gateway.bad-json"),
        (b'{"inputs": ["\xff"]}', "gateway.bad-json"),
        (b'{"inputs": ["\xed\xa0\x80"]}', "gateway.bad-json"),
        (b'{"inputs": ["\\ud800"]}', "gateway.bad-json"),
        (b'{"inputs": ["\\udc00x"]}', "gateway.bad-json"),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "gateway.bad-json"),
        (b'{"inputs": "x", "parameters": {"top_k": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "gateway.bad-json"),
        (b'{"inputs": "x", "parameters": {"a": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}", "gateway.bad-json"),
        (b'{"inputs": ["a"]} trailing', "gateway.bad-json"),
        ('{"inputs": ["a"]}'.encode("utf-16"), "gateway.bad-json"),
        (b'{"inputs": []}', "gateway.no-inputs"),
        (json.dumps({"inputs": ["a"] * 1025}).encode(), "gateway.too-many-inputs"),
        (json.dumps({"inputs": ["a", "x" * 50_001]}).encode(), "gateway.text-too-long"),
        (b'{"inputs": "a", "parameters": {"top_k": 0}}', "gateway.bad-parameter"),
        (b'{"inputs": "a", "parameters": {"top_k": 1e308}}', "gateway.bad-parameter"),
        (b'{"inputs": "a", "parameters": {"top_k": true}}', "gateway.bad-parameter"),
        (b'{"inputs": "a", "parameters": {"top_k": 99999999999999999999999}}', "gateway.bad-parameter"),
        (b'{"inputs": "a", "parameters": {"temperature": 1}}', "gateway.bad-parameter"),
    ],
)
def test_bad_bodies_are_422_and_say_why(plane, body, code):
    document, _ = problem(plane, 422, code, body=body, headers={"Content-Type": "application/json"})
    assert document["hint"]
    assert len(document["detail"]) < 400


def test_the_other_refusals(plane):
    problem(plane, 415, "gateway.wrong-content-type", body=b"inputs=a", headers={"Content-Type": "application/x-www-form-urlencoded"})
    document, _ = problem(plane, 404, "serve.unknown-service", path="/predict/intnt", body={"inputs": "a"})
    assert "intent" in document["hint"]
    problem(plane, 404, "gateway.no-such-path", path="/predict/", body={"inputs": "a"})
    problem(plane, 404, "gateway.no-such-path", path="/predict/intent/more", body={"inputs": "a"})
    _, headers = problem(plane, 405, "gateway.method-not-allowed", method="GET")
    assert headers["allow"] == "POST"
    problem(plane, 413, "gateway.body-too-large", body=json.dumps({"inputs": "x" * (1 << 20)}).encode())
    document, _ = problem(plane, 404, "serve.unknown-service", path="/predict/nobody", body={"inputs": "a"}, headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert document["detail"] == "没有名为 nobody 的服务。"


def test_errors_never_repeat_the_text(plane):
    document, _ = problem(plane, 500, "serve.model-failed", body={"inputs": ["fine", "RAISE"]})
    assert "in this message" not in json.dumps(document)


# ------------------------------------------------------------ keys
def test_keys(plane):
    body = {"inputs": "a"}
    _, headers = problem(plane, 401, "auth.no-key", body=body, key=None)
    assert headers["www-authenticate"] == "Bearer"
    problem(plane, 401, "auth.bad-key", body=body, key="wf_nobody")
    problem(plane, 401, "auth.key-expired", body=body, key=EXPIRED)
    problem(plane, 403, "auth.denied", body=body, key=AUDITOR)
    problem(plane, 404, "serve.unknown-service", body=body, key=STRANGER)
    for headers in ({"X-API-Key": KEY}, {"Authorization": f"bearer  {KEY} "}):
        assert plane.ask("POST", "/predict/intent", body, headers, key=None)[0] == 200
    assert plane.ask("POST", "/predict/intent", body, {"Authorization": "Basic eDp5"}, key=None)[0] == 401


# ------------------------------------------------------------ Open Inference Protocol
def infer(plane, tensor, path="/v2/models/intent/infer", **more):
    status, _, body = plane.ask("POST", path, {"inputs": [tensor], **more})
    return status, json.loads(body)


def tensor(texts, **changes):
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts, **changes}


def test_inference_of_labels(plane):
    status, answer = infer(plane, tensor(["ab", "c"]), id="mine")
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("intent", "3", "mine")
    label, score = answer["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["a", "c"]}
    assert (score["datatype"], score["data"]) == ("FP32", [1 / 3, 1 / 2])
    assert infer(plane, tensor([["ab"], ["c"]], shape=[2, 1]))[1]["outputs"] == answer["outputs"]
    assert infer(plane, tensor(["ab"]), path="/v2/models/intent/versions/3/infer")[0] == 200
    assert [o["name"] for o in infer(plane, tensor(["ab"]), outputs=[{"name": "score"}])[1]["outputs"]] == ["score"]
    scores = infer(plane, tensor(["ab"]), parameters={"top_k": 2})[1]["outputs"][2]
    assert json.loads(scores["data"][0]) == {"x": 1 / 3, "y": 1 / 6}


def test_inference_of_spans(plane):
    _, answer = infer(plane, tensor(["房3"]), path="/v2/models/%E5%AE%9E%E4%BD%93/infer")
    assert json.loads(answer["outputs"][0]["data"][0]) == [{"start": 1, "end": 2, "label": "NUM", "text": "3"}]


def test_inference_of_pairs(plane):
    pair = [tensor(["a", "b"]), tensor(["a", "c"], name="text_b")]
    status, _, body = plane.ask("POST", "/v2/models/pairs/infer", {"inputs": pair})
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, ["same", "other"])
    assert [i["name"] for i in json.loads(plane.get("/v2/models/pairs")[1])["inputs"]] == ["text", "text_b"]
    for wrong in ([pair[1]], [pair[0], tensor(["a"], name="text_b")], [pair[0], pair[0]], [*pair, pair[1]]):
        assert plane.ask("POST", "/v2/models/pairs/infer", {"inputs": wrong})[0] == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [3]},
        {"shape": []},
        {"shape": [2, 2]},
        {"shape": [-1]},
        {"shape": ["2"]},
        {"datatype": "FP32"},
        {"datatype": "bytes"},
        {"name": "image"},
        {"data": [1, 2]},
        {"data": [["a", "b"]]},
        {"data": "ab"},
        {"data": [None, "a"]},
        {"data": [[["a"]], "b"]},
        {"shape": [0], "data": []},
    ],
)
def test_wrong_tensors_are_400_in_the_protocols_shape(plane, changes):
    status, answer = infer(plane, tensor(["a", "b"], **changes))
    assert status == 400
    assert list(answer) == ["error"]


def test_the_other_wrong_inferences(plane):
    assert plane.ask("POST", "/v2/models/intent/infer", {"inputs": []})[0] == 400
    assert plane.ask("POST", "/v2/models/intent/infer", {"inputs": [tensor(["a"])] * 2})[0] == 400
    assert plane.ask("POST", "/v2/models/intent/infer", b"{")[0] == 400
    assert infer(plane, tensor(["a"]), outputs=[{"name": "nothing"}])[0] == 400
    assert infer(plane, tensor(["a"]), path="/v2/models/nobody/infer")[0] == 404
    assert infer(plane, tensor(["a"]), path="/v2/models/intent/versions/2/infer")[0] == 404
    assert infer(plane, tensor(["a"]), path="/v2/models/intent/versions/3/guess")[0] == 404
    assert plane.ask("GET", "/v2/models/intent/infer")[0] == 405
    assert plane.ask("POST", "/v2/models/intent/infer", {"inputs": [tensor(["a"])]}, key=STRANGER)[0] == 404
    status, _, body = plane.ask("POST", "/v2/models/intent/infer", {"inputs": [tensor(["a"])]}, key=None)
    assert (status, list(json.loads(body))) == (401, ["error"])


def test_metadata_and_health(plane):
    assert json.loads(plane.get("/v2")[1])["name"] == "wenfang"
    about = json.loads(plane.get("/v2/models/intent")[1])
    assert about["versions"] == ["3"]
    assert about["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [o["name"] for o in about["outputs"]] == ["label", "score"]
    assert plane.get("/v2/models/intent/versions/3/ready")[0] == 200
    assert plane.get("/v2/models/intent/versions/9/ready")[0] == 404
    assert plane.get("/v2/health/live", key=None) == (200, b'{"live":true}')
    assert plane.get("/v2/health/ready", key=None) == (200, b'{"ready":true}')


# ------------------------------------------------------------ probes
def test_probes_and_head(plane):
    assert plane.get("/healthz", key=None) == (200, b'{"status":"ok"}')
    assert plane.get("/readyz", key=None)[0] == 200
    status, headers, body = plane.ask("HEAD", "/healthz", key=None)
    assert (status, headers["content-length"], body) == (200, "15", b"")


SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)*\})? ([0-9.e+-]+|\+Inf|NaN)')


def test_metrics_are_a_valid_exposition_that_counts(plane):
    def counted(name, *labels):
        text = plane.get("/metrics", key=None)[1].decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name) and all(f'="{label}"' in line for label in labels))

    before = counted("wenfang_requests_total", "intent", "predict", "200")
    failures = counted("wenfang_auth_failures_total", "auth.bad-key")
    for _ in range(5):
        plane.predict("a")
    plane.predict("a", key="wf_wrong")
    assert counted("wenfang_requests_total", "intent", "predict", "200") == before + 5
    assert counted("wenfang_auth_failures_total", "auth.bad-key") == failures + 1
    assert counted("wenfang_request_seconds_bucket", "intent", "predict", "+Inf") == counted("wenfang_request_seconds_count", "intent", "predict")
    assert counted("wenfang_batch_size_count", "intent:3") > 0
    assert counted("wenfang_replicas_ready", "intent:3") == 2
    _, headers, body = plane.ask("GET", "/metrics", key=None)
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    seen = set()
    for line in body.decode().splitlines():
        if line.startswith("# TYPE"):
            assert line.split()[2] not in seen
            seen.add(line.split()[2])
        elif not line.startswith("#"):
            assert SAMPLE.fullmatch(line), line


def test_control_away_is_a_503_and_predictions_go_on(plane):
    document, headers = problem(plane, 503, "gateway.control-away", method="GET", path="/api/v1/projects")
    assert int(headers["retry-after"]) >= 1
    assert document["retry_after_s"] > 0
    assert plane.predict("a")[0] == 200
