"""Three models composed into one service: from a file to a running tree, the same as asking them one by one, with a replica gone, back to the version before."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from wenfang.core.errors import Invalid, NotFound, Unsupported
from wenfang.core.examples import Examples, Span
from wenfang.core.home import Home
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.records import ModelVersion
from wenfang.core.settings import Settings
from wenfang.guard.roles import LOCAL
from wenfang.models import families
from wenfang.models.bundle import write_bundle
from wenfang.runtimes.local import LocalRuntime
from wenfang.studio import operations
from wenfang.studio.bundles import store_bundle
from wenfang.studio.wiring import open_in_place
from worlds import Tree, separable, wenfang

pytestmark = pytest.mark.timeout(240)
EXAMPLE = Path(__file__).parents[2] / "examples" / "helpdesk.toml"
TEXTS = ["快递到哪里了，订单号123", "我要申请退款", "怎么开发票？订单号77", "where is my parcel", "电子发票在哪下载"]


def publish(studio, name, family, examples):
    model = families.get(family)(task=examples.task)
    model.fit(examples)
    folder = studio.home.jobs / f"bundle-{name}"
    info = write_bundle(folder, model, signer=studio.signer, card={}, lineage={})
    manifest, signature = store_bundle(folder, studio.blobs)
    shutil.rmtree(folder)
    version = ModelVersion(
        id=new_id("mv"), project="default", name=name, number=1, family=family, task=examples.task, labels=model.labels_, bundle=manifest, signature=signature, size_bytes=info.size_bytes
    )  # fmt: skip
    studio.tables.commit(Changes(puts=[version]))


def entities(n):
    rng = random.Random(0)
    texts, spans = [], []
    for _ in range(n):
        number = str(rng.randrange(10, 10**5))
        start = rng.choice(["订单号", "我的单号是", "查一下订单"])
        texts.append(start + number + rng.choice(["", "，谢谢", "到了吗"]))
        spans.append((Span(len(start), len(start) + len(number), "NUM"),))
    return Examples("tagging", texts, spans=spans)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with the models ``language``, ``intent`` and ``entities``."""
    home = tmp_path_factory.mktemp("graph") / "home"
    studio, lock = open_in_place(Home(home), Settings())
    rows = separable(300)
    english = [f"where is my {w} number {i}" for i, w in enumerate(["parcel", "invoice", "refund", "order"] * 40)]
    publish(studio, "language", "linear", Examples("classification", [t for t, _ in rows] + english, ["zh"] * len(rows) + ["en"] * len(english)))
    publish(studio, "intent", "linear", Examples("classification", [t for t, _ in rows], [label for _, label in rows]))
    publish(studio, "entities", "crf", entities(200))
    studio.tables.close()
    lock.release()
    return home


def test_from_a_file_to_answers_in_place(home):
    made = json.loads(wenfang("service", "compose", "helpdesk", EXAMPLE, "--json", home=home, check=0).stdout)
    assert (made["graph"], made["task"], made["fresh"]) == ("helpdesk:1", "classification", True)
    assert made["models"] == {"language": "language:1", "intent": "intent:1", "entities": "entities:1", "english": "intent:1"}
    assert "其他" in made["labels"]
    studio, lock = open_in_place(Home(home), Settings())

    def run(operation, /, **fields):
        op = operations()[operation]
        return studio.run(op, LOCAL, op.request.model_validate(fields))

    try:
        text = EXAMPLE.read_text(encoding="utf-8")
        again = run("service.compose", name="helpdesk", graph=text)
        assert (again.id, again.fresh) == (made["id"], False)
        for wrong, code in (
            (text.replace("language.label == 'zh' and", "langage.label == 'zh' and"), "graph.unknown-step"),
            ("steps = 3", "graph.bad-file"),
            ("{", "graph.bad-file"),
        ):
            with pytest.raises(Invalid) as e:
                run("service.compose", name="helpdesk", graph=wrong)
            assert e.value.code == code
        with pytest.raises(NotFound):
            run("service.compose", name="helpdesk", graph=text.replace('"language"', '"langage"'))
        run("service.deploy", service="helpdesk", graph="helpdesk", replicas=1)
        for name in ("language", "intent", "entities"):
            run("service.deploy", service=name, model_version=name, replicas=1)
        answered = run("service.predict", service="helpdesk", inputs=TEXTS[:1])  # no tree runs: the models are loaded here
        assert (answered.outputs[0]["label"], answered.model) == ("物流", "helpdesk:1")
        with pytest.raises(Unsupported) as e:
            run("service.batch", service="helpdesk", file=str(EXAMPLE), output=str(home.parent / "a.jsonl"))
        assert e.value.code == "graph.no-batch"
        shown = run("service.graph", id="helpdesk")
        assert (shown.version.models, shown.lineage["entities"]["model"]) == (sorted(shown.version.models), "entities:1")
    finally:
        studio.tables.close()
        lock.release()


@pytest.fixture(scope="module")
def tree(home):
    with Tree(home, WENFANG_SERVE__DEADLINE_S="5") as tree:
        yield tree


def one_by_one(tree, text):
    """What a client gets that asks the steps itself."""

    def ask(service, text):
        status, body, _ = tree.call("POST", f"/predict/{service}", {"inputs": [text]})
        assert status == 200
        return body["outputs"][0]

    language = ask("language", text)
    if language["label"] != "zh":
        return {**ask("intent", f"{language['label']}: {text}"), "steps": {}}
    intent = ask("intent", text)
    return {**intent, "steps": {} if intent["label"] == "其他" else {"entities": ask("entities", text)}}


def test_the_tree_answers_as_a_client_that_asks_one_by_one(tree):
    status, body, _ = tree.call("POST", "/predict/helpdesk", {"inputs": TEXTS})
    assert (status, body["model"]) == (200, "helpdesk:1")
    assert body["outputs"] == [one_by_one(tree, text) for text in TEXTS]
    assert body["outputs"][0]["steps"]["entities"]["spans"][0]["text"] == "123"
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x-request-id": "journey-1"}
    assert tree.call("POST", "/predict/helpdesk", {"inputs": ["包裹三天没动99"]}, headers=headers)[0] == 200
    (trace,) = tree.call("GET", "/api/v1/services/helpdesk/traces?request_id=journey-1")[1]["traces"]
    spans = {s["span_id"]: s["name"] for s in trace["spans"]}
    assert {"language", "intent", "entities", "english"} <= {s["name"] for s in trace["spans"] if spans.get(s["parent_id"]) == "predict"}
    assert (trace["trace_id"], trace["model"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "helpdesk:1")


def test_a_step_whose_replica_is_gone_is_stood_in_for(tree, home):
    intent = next(m["id"] for m in tree.call("GET", "/api/v1/models")[1]["versions"] if m["name"] == "intent")
    runtime = LocalRuntime(Home(home))
    pid = runtime.processes()[f"replica-{intent}-0"]["pid"]
    os.kill(pid, signal.SIGSTOP)  # it neither answers nor dies, which is the worse of the two
    try:
        graph = (
            EXAMPLE.read_text(encoding="utf-8")
            .replace('answer = ["intent", "english"]', 'answer = ["intent"]\notherwise = { label = "en", score = 1 }')
            .partition("[steps.english]")[0]
        )
        status, made, _ = tree.call("POST", "/api/v1/graphs/compose", {"name": "helpdesk", "graph": graph})
        assert (status, made["graph"]) == (200, "helpdesk:2")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert tree.call("POST", "/api/v1/services/deploy", {"service": "helpdesk", "graph": "helpdesk:2"})[0] == 200
    os.kill(pid, signal.SIGSTOP)
    try:
        status, body, _ = tree.call("POST", "/predict/helpdesk", {"inputs": ["一条新的文本", "another text in english"], "steps": True})
    finally:
        os.kill(pid, signal.SIGKILL)
    assert status == 200
    assert (body["outputs"][0]["label"], body["outputs"][0]["steps"]["intent"]["by"], "entities" in body["outputs"][0]["steps"]) == ("其他", "given", False)
    assert body["outputs"][1]["label"] == "en"
    until = time.monotonic() + 30
    while tree.call("POST", "/predict/helpdesk", {"inputs": ["一条新的文本"]})[1]["outputs"][0]["label"] == "其他":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_deployed_and_rolled_back_as_one(tree):
    assert tree.call("GET", "/api/v1/services/helpdesk")[1]["service"]["model"] == "helpdesk:2"
    status, back, _ = tree.call("POST", "/api/v1/services/helpdesk/rollback", {})
    assert (status, back["model"]) == (200, "helpdesk:1")
    assert tree.call("POST", "/predict/helpdesk", {"inputs": TEXTS[:1]})[1]["model"] == "helpdesk:1"
    status, refused, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "helpdesk", "graph": "helpdesk:1", "model_version": "intent"})
    assert (status, refused["code"]) == (422, "service.one-target")
    written = tree.call("GET", "/api/v1/services/helpdesk/spec")[1]["toml"]
    assert 'model = "gr_' in written
    status, applied, _ = tree.call("POST", "/api/v1/services/apply", {"spec": written + "\n[rate]\nrequests_per_s = 1000\n"})
    assert (status, applied["service"]["model"], applied["service"]["rate"]) == (200, "helpdesk:1", {"requests_per_s": 1000.0})
    assert tree.call("GET", "/api/v1/services/helpdesk/interface?format=json-schema")[0] == 200
    nested = {"steps": {"a": {"service": "helpdesk"}}, "answer": "a"}
    assert tree.call("POST", "/api/v1/graphs/compose", {"name": "nest", "graph": nested})[1]["code"] == "graph.nested"
    status, made, _ = tree.call("POST", "/api/v1/graphs/compose", {"name": "one", "graph": {"steps": {"a": {"service": "intent"}}, "answer": "a"}})
    assert (status, made["models"]) == (200, {"a": "intent:1"})
    assert [g["name"] for g in tree.call("GET", "/api/v1/graphs")[1]["graphs"]] == ["one", "helpdesk", "helpdesk"]
