"""Request queues of services: attached, shown, changed, detached, and written down."""

import json

import pytest

from brokers import queue_name
from dataplane import Tree, until
from wenfang.core.errors import Conflict, Invalid, NotFound
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.records import ModelVersion, Pointer, Service
from wenfang.core.settings import load_settings
from wenfang.guard.roles import LOCAL
from wenfang.studio import operations
from wenfang.studio.asyncapi import asyncapi_document
from wenfang.studio.wiring import open_control


def run(studio, name, **fields):
    op = operations()[name]
    return studio.run(op, LOCAL, op.request(**fields))


def with_service(studio, name="intent", task="classification", labels=("退款", "物流")):
    version = ModelVersion(id=new_id("mv"), project="default", name=name, number=1, family="f", task=task, labels=list(labels), bundle="b", signature="s", size_bytes=1)
    service = Service(id=new_id("sv"), project="default", name=name, replicas=1)
    studio.tables.commit(Changes(puts=[version, service], pointers=[Pointer(kind="service", key=service.id, target=version.id)]))


def test_a_queue_is_attached_changed_and_detached(studio):
    with_service(studio)
    made = run(studio, "service.attach", service="intent", requests="shop.asked")
    assert (made.bus, made.replies, made.dead_letters, made.concurrency, made.worker) == ("local:", "shop.asked.replies", "shop.asked.dead", 64, {})
    again = run(studio, "service.attach", service="intent", requests="shop.asked", concurrency=8)
    assert again.id == made.id and again.concurrency == 8
    assert [q.id for q in run(studio, "service.queues").queues] == [made.id]
    gone = run(studio, "service.detach", service="intent", requests="shop.asked")
    assert gone.detached and run(studio, "service.queues").queues == []
    with pytest.raises(NotFound):
        run(studio, "service.detach", service="intent", requests="shop.asked")
    assert run(studio, "service.attach", service="intent", requests="shop.asked").id == made.id
    assert {e.kind for e in studio.tables.events()} >= {"service.queue-attached", "service.queue-detached"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"requests": "a b"}, "bus.bad-queue"),
        ({"requests": "a", "replies": "a"}, "queue.same-queue"),
        ({"requests": "a", "dead_letters": "a.replies"}, "queue.same-queue"),
        ({"requests": "r.x", "replies": "r"}, "queue.same-queue"),
        ({"requests": "a", "bus": "nats://u:secret@h"}, "queue.password-in-url"),
        ({"requests": "a", "bus": "gopher://h"}, "bus.bad-url"),
        ({"requests": "a", "bus": "memory:"}, "bus.bad-url"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(studio, fields, code):
    with_service(studio)
    with pytest.raises(Invalid) as e:
        run(studio, "service.attach", service="intent", **fields)
    assert e.value.code == code and "secret" not in str(e.value)
    assert run(studio, "service.queues").queues == []


def test_a_queue_belongs_to_one_service(studio):
    with_service(studio)
    with_service(studio, "other")
    run(studio, "service.attach", service="intent", requests="q")
    with pytest.raises(Conflict, match=r"queue\.taken"):
        run(studio, "service.attach", service="other", requests="q")
    run(studio, "service.detach", service="intent", requests="q")
    assert run(studio, "service.attach", service="other", requests="q").service == "other"


def test_workers_follow_the_bindings():
    tree = Tree()
    control = open_control(tree.home, load_settings(tree.root))
    try:
        studio, queue = control.studio, queue_name()
        studio.tables.commit(Changes(puts=[Service(id=new_id("sv"), project="default", name="intent", replicas=1)]))
        made = run(studio, "service.attach", service="intent", requests=queue)
        until(lambda: run(studio, "service.queues").queues[0].worker.get("connected"), what="a worker")
        first = tree.runtime.processes()[f"queue-{made.id}-0"]["pid"]
        run(studio, "service.attach", service="intent", requests=queue, concurrency=3)
        until(lambda: control.workers.settle() or tree.runtime.processes().get(f"queue-{made.id}-1", {}).get("pid"), what="its successor")
        assert tree.runtime.processes()[f"queue-{made.id}-0"] | {"started_at": 0} == tree.runtime.processes()[f"queue-{made.id}-0"] | {
            "started_at": 0,
            "state": "exited",
            "code": 0,
        }
        assert first != tree.pid(f"queue-{made.id}-1")
        run(studio, "service.detach", service="intent", requests=queue)
        until(lambda: tree.runtime.processes()[f"queue-{made.id}-1"]["state"] == "exited", what="its end")
        assert list(tree.home.run.glob("queue-*.sock")) == []
    finally:
        control.close()
        tree.close()


# ---------------------------------------------------------------- AsyncAPI 3
FIELDS = {
    "root": ({"asyncapi", "info"}, {"id", "servers", "defaultContentType", "channels", "operations", "components"}),
    "server": ({"host", "protocol"}, {"pathname", "protocolVersion", "title", "summary", "description", "variables", "security", "tags", "externalDocs", "bindings"}),
    "channel": (set(), {"address", "messages", "title", "summary", "description", "servers", "parameters", "tags", "externalDocs", "bindings"}),
    "operation": ({"action", "channel"}, {"title", "summary", "description", "security", "tags", "externalDocs", "bindings", "traits", "messages", "reply"}),
    "reply": (set(), {"address", "channel", "messages"}),
    "message": (set(), {"headers", "payload", "correlationId", "contentType", "name", "title", "summary", "description", "tags", "externalDocs", "bindings", "examples", "traits"}),
}


def found(document, ref):
    assert set(ref) == {"$ref"} and ref["$ref"].startswith("#/"), ref
    for word in ref["$ref"][2:].split("/"):
        document = document[word]
    return document


def refs(node):
    if isinstance(node, dict):
        yield from ([node] if set(node) == {"$ref"} else [r for v in node.values() for r in refs(v)])
    elif isinstance(node, list):
        yield from (r for v in node for r in refs(v))


def check(kind, value):
    must, may = FIELDS[kind]
    assert must <= set(value) <= must | may, (kind, set(value))


def check_asyncapi(document):
    """What the specification demands of a document's shape, as far as we use it."""
    check("root", document)
    assert document["asyncapi"] == "3.0.0" and {"title", "version"} <= set(document["info"])
    for ref in refs(document):
        found(document, ref)
    for server in document["servers"].values():
        check("server", server)
        assert "@" not in server["host"]
    for key, channel in document["channels"].items():
        check("channel", channel)
        assert key.replace(".", "").replace("-", "").replace("_", "").isalnum() and all(r["$ref"].startswith("#/servers/") for r in channel["servers"])
        for message in channel["messages"].values():
            check("message", found(document, message))
    for operation in document["operations"].values():
        check("operation", operation)
        assert operation["action"] in {"send", "receive"}
        for part in [operation, *([operation["reply"]] if "reply" in operation else [])]:
            if part is not operation:
                check("reply", part)
            assert all(m["$ref"].startswith(part["channel"]["$ref"] + "/messages/") for m in part["messages"])


def test_the_document_has_the_shape_of_asyncapi(studio):
    tasks = {"classification": ["a", "b"], "multilabel": ["a", "b"], "tagging": ["人"], "matching": ["same", "other"], "embedding": [], "generation": [], "chat": []}
    for task, labels in tasks.items():
        with_service(studio, task, task, labels)
        run(studio, "service.attach", service=task, requests=f"q.{task}", **({"bus": "nats://broker:4222"} if task == "chat" else {}))
    run(studio, "service.attach", service="chat", requests="q.chat", bus="rabbitmq://someone@rabbit/shop")
    text = run(studio, "service.asyncapi").document
    document = json.loads(text)
    check_asyncapi(document)
    assert len(document["operations"]) == 16 and set(document["servers"]) == {"local", "nats", "rabbitmq"}
    assert document["servers"]["rabbitmq"] == {"host": "rabbit", "protocol": "amqp", "pathname": "/shop"}
    import jsonschema

    for name, message in document["components"]["messages"].items():
        if not name.endswith("DeadLetter"):
            schema = {"$ref": message["payload"]["$ref"], "components": document["components"]}
            for example in message["examples"]:
                jsonschema.Draft202012Validator(schema).validate(example["payload"])
    request = document["components"]["schemas"]["classification.Request"]
    for wrong in ({"id": "a"}, {"inputs": ["x"], "colour": 1}, {"inputs": ["x"], "priority": "now"}, {"inputs": []}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator({**request, "components": document["components"]}).validate(wrong)
    assert run(studio, "service.asyncapi").document == text


def test_an_empty_document_is_one():
    check_asyncapi(asyncapi_document([], version="1"))
