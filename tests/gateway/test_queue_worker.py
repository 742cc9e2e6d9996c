"""Request queue → worker → reply queue, over real brokers, a real gateway and real replicas."""

import asyncio
import json
import os
import signal
import time

import msgspec
import pytest

from brokers import broker_url, queue_name
from dataplane import DataPlane, until
from wenfang.core.frames import FrameClient
from wenfang.core.ids import new_id
from wenfang.core.messages import Message
from wenfang.core.records import QueueBinding
from wenfang.stores import open_bus

SLOW = {"mv_first": ("first:1", "classification", 1, {"wait_ms": 30, "batch_max": 4})}


class Line:
    """A queue worker beside a data plane, and both ends of its queues."""

    def __init__(self, plane, url="local:", service="intent", project="pj_1", **more):
        self.plane, self.url, queue = plane, url, queue_name()
        self.binding = QueueBinding(
            id=new_id("qb"), project=project, service=service, bus="" if url == "local:" else "set", requests=queue, replies=f"{queue}.replies", dead_letters=f"{queue}.dead",
            **{"concurrency": 16, "attempts": 2, **more},
        ).model_copy(update={"bus": ""})  # fmt: skip
        (plane.root / "wenfang.toml").write_text((plane.root / "wenfang.toml").read_text().partition("[queue]")[0] + f'[queue]\nbus = "{url}"\nlease_s = 2\n')
        self.name = f"queue-{self.binding.id}-0"
        self.start()

    def start(self):
        arguments = {"home": str(self.plane.root), "binding": self.binding.model_dump(mode="json")}
        self.plane.runtime.ensure(self.name, "wenfang.doors.queue:main", arguments, restart=True)
        until(lambda: self.state().get("connected"), what=f"a worker: {self.plane.log(self.name)}")

    def state(self):
        try:
            client = FrameClient(self.plane.home.run / self.binding.socket, 5.0)
        except Exception:
            return {}
        try:
            return client.call("state")
        finally:
            client.close()

    async def bus(self):
        return await open_bus(self.url, self.plane.home)

    def send(self, *messages):
        async def run():
            bus = await self.bus()
            await asyncio.gather(*(bus.send(self.binding.requests, m if isinstance(m, Message) else Message(json.dumps(m).encode())) for m in messages))
            await bus.close()

        asyncio.run(run())

    def read(self, n, queue=None, wait_s=30.0):
        """The next ``n`` messages of the replies, or of another queue."""

        async def run():
            bus = await self.bus()
            inbox = await bus.open_inbox(queue or self.binding.replies, name="reader", prefetch=1000, lease_s=30)
            found, end = [], time.monotonic() + wait_s
            while len(found) < n and time.monotonic() < end:
                taken = await inbox.take(n - len(found), 0.5)
                await inbox.done(taken)
                found += [d.message for d in taken]
            await inbox.close()
            await bus.close()
            return found

        found = asyncio.run(run())
        assert len(found) == n, (len(found), n, self.state(), self.plane.log(self.name)[-2000:])
        return found

    def gathered(self, n, wait_s=90.0):
        """Every reply until ``n`` ids are there: bodies by id, and how many there were."""

        async def run():
            bus = await self.bus()
            inbox = await bus.open_inbox(self.binding.replies, name="reader", prefetch=2000, lease_s=30)
            by_id, count, end = {}, 0, time.monotonic() + wait_s
            while len(by_id) < n and time.monotonic() < end:
                taken = await inbox.take(1000, 0.5)
                await inbox.done(taken)
                count += len(taken)
                for d in taken:
                    by_id.setdefault(d.message.headers["id"], set()).add(d.message.body)
            await inbox.close()
            await bus.close()
            return by_id, count

        return asyncio.run(run())

    def documents(self, n, **more):
        """Replies by id."""
        found = [json.loads(m.body) for m in self.read(n, **more)]
        return {d["id"]: d for d in found}

    def close(self):
        async def run():
            bus = await self.bus()
            for queue in (self.binding.requests, self.binding.replies, self.binding.dead_letters):
                await bus.drop(queue)
            await bus.close()

        self.plane.runtime.stop(self.name, grace_s=15.0)
        until(lambda: self.plane.runtime.processes()[self.name]["state"] == "exited", what="the worker's end")
        asyncio.run(run())


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane({"mv_first": ("first:1", "classification", 1, {}), "mv_pair": ("pair:1", "matching", 1, {})}, {"intent": ("pj_1", "mv_first"), "pairs": ("pj_1", "mv_pair")})
    yield plane
    plane.close()


@pytest.fixture
def line(plane):
    lines = []

    def made(*given, **more):
        lines.append(Line(*(given or (plane,)), **more))
        return lines[-1]

    yield made
    for one in lines:
        one.close()


def dead(line, n):
    return {m.headers["reason"]: m for m in line.read(n, queue=line.binding.dead_letters)}


@pytest.mark.parametrize("kind", ["local", "nats", "rabbitmq", "redis", "kafka"])
def test_the_answer_is_that_of_predict(line, plane, kind):
    one = line(plane, broker_url(kind))
    asked = [{"inputs": ["退货", "发票开错了"]}, {"inputs": "文房"}, {"inputs": ["三"], "parameters": {"top_k": 2}}, {"inputs": [{"text": "你好"}]}]
    one.send(
        *[{"id": f"m-{i}", **a} for i, a in enumerate(asked)],
        Message(msgspec.msgpack.encode({"inputs": ["包"], "correlation_id": "c-9"}), {"id": "m-9", "content-type": "application/msgpack"}),
    )
    replies = {m.headers["id"]: m for m in one.read(5)}
    for i, a in enumerate(asked):
        status, _, body = plane.ask("POST", "/predict/intent", a)
        assert status == 200
        assert json.loads(replies[f"m-{i}"].body) == {**json.loads(body), "id": f"m-{i}", "correlation_id": f"m-{i}"}
        assert {k: replies[f"m-{i}"].headers[k] for k in ("correlation-id", "content-type", "status")} == {
            "correlation-id": f"m-{i}",
            "content-type": "application/json",
            "status": "200",
        }
    packed = msgspec.msgpack.decode(replies["m-9"].body)
    assert packed["outputs"] == plane.predict(["包"])[1]["outputs"] and packed["correlation_id"] == replies["m-9"].headers["correlation-id"] == "c-9"
    until(lambda: one.state()["answered"] == 5 and one.state()["in_flight"] == 0, what="counters")
    assert one.state()["dead"] == one.state()["again"] == 0
    status, metrics = plane.get("/metrics")
    assert f'wenfang_queue_answered_total{{service="intent",queue="{one.binding.requests}"}} 5' in metrics.decode()
    assert 'protocol="queue",status="200"' in metrics.decode()


def test_what_cannot_be_answered_is_dead_with_its_reason_and_whoever_asked_is_told(line):
    one = line()
    queue = one.binding.replies
    wrong = {
        "queue.unreadable": [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"id":"a"}', b'{"id":"a","inputs":["x"],"colour":"red"}'],
        "queue.no-id": [b'{"inputs":["x"]}'],
        "queue.bad-field": [
            b'{"id":"' + "文".encode() + b'","inputs":["x"]}', b'{"id":"a","inputs":["x"],"priority":"now"}', b'{"id":"a","inputs":["x"],"deadline":"2026-01-01T00:00:00"}',
        ],
        "queue.reply-to-elsewhere": [b'{"id":"a","inputs":["x"],"reply_to":"payroll"}'],
        "bus.bad-queue": [b'{"id":"a","inputs":["x"],"reply_to":"' + queue.encode() + b'..x"}'],
    }  # fmt: skip
    for bodies in wrong.values():
        one.send(*(Message(b) for b in bodies))
    one.send(Message(b"<x/>", {"content-type": "text/xml"}), Message(msgspec.msgpack.encode({"id": "b", "inputs": [{1: b"\xff"}]}), {"content-type": "application/msgpack"}))
    n = sum(map(len, wrong.values())) + 2
    found = one.read(n, queue=one.binding.dead_letters)
    count = {}
    for m in found:
        count[m.headers["reason"]] = count.get(m.headers["reason"], 0) + 1
        assert m.headers["queue"] == one.binding.requests and m.headers["detail"] and m.headers["died-at"]
    assert {**{k: len(v) for k, v in wrong.items()}, "queue.wrong-content-type": 1} == {**count, "queue.unreadable": count["queue.unreadable"] - (count["queue.unreadable"] - 7)}
    assert sorted(m.body for m in found if m.headers["reason"] == "queue.no-id") == wrong["queue.no-id"]
    told = [
        ({"id": "n-1", "inputs": []}, 422, "gateway.no-inputs"),
        ({"id": "n-2", "inputs": ["x"], "parameters": {"top_k": 0}}, 422, "gateway.bad-parameter"),
        ({"id": "n-3", "inputs": ["x"], "deadline": "2020-01-01T00:00:00Z"}, 422, "queue.deadline-passed"),
        ({"id": "n-4", "inputs": ["RAISE"]}, 500, "serve.model-failed"),
    ]
    one.send(*(m for m, _, _ in told))
    replies = one.documents(4)
    reasons = dead(one, 4)
    for message, status, code in told:
        error = replies[message["id"]]["error"]
        assert (error["status"], error["code"]) == (status, code) and error["detail"]
        assert json.loads(reasons[code].body) == message
    assert reasons["serve.model-failed"].headers["attempts"] == "2"
    assert "RAISE" not in reasons["serve.model-failed"].headers["detail"]
    assert one.state()["reasons"]["queue.no-id"] == 1


def test_a_message_that_comes_again_gets_the_same_reply_and_is_not_computed(line, plane):
    one = line()
    question = {"id": "same", "inputs": ["第一"], "reply_to": f"{one.binding.replies}.client-7"}
    one.send(question)
    (first,) = one.read(1, queue=question["reply_to"])
    one.send(question, question, {**question, "inputs": ["第二"]})
    again = one.read(3, queue=question["reply_to"])
    assert [m.body for m in again if "error" not in json.loads(m.body)] == [first.body] * 2
    assert [json.loads(m.body)["error"]["code"] for m in again if "error" in json.loads(m.body)] == ["queue.id-reused"]
    assert list(dead(one, 1)) == ["queue.id-reused"]
    one.send(*[{"id": "twins", "inputs": ["双"]}] * 8)  # at the same moment
    assert len({m.body for m in one.read(8)}) == 1
    assert one.state()["again"] == 9

    async def away():
        bus = await one.bus()
        await bus.drop(question["reply_to"])
        await bus.close()

    asyncio.run(away())


def test_a_service_that_is_full_or_away_is_waited_for(line):
    plane = DataPlane(SLOW, settings={"queue_max": 4})
    try:
        one = line(plane, concurrency=32)
        one.send(*({"id": str(i), "inputs": [f"{i}号"]} for i in range(40)))
        replies = one.documents(40)
        assert len(replies) == 40 and all("outputs" in r for r in replies.values())
        assert one.state()["waits"] > 0 and one.state()["dead"] == 0
        plane.runtime.stop("gateway-0")
        until(lambda: plane.runtime.processes()["gateway-0"]["state"] == "exited", what="the gateway's end")
        one.send({"id": "patient", "inputs": ["等"]})
        time.sleep(0.7)
        assert one.state()["in_flight"] == 1
        plane.runtime.ensure("gateway-0", "wenfang.doors.gateway:main", {"home": str(plane.root), "index": 0, "host": "127.0.0.1", "port": plane.port}, restart=True)
        assert one.documents(1)["patient"]["outputs"][0]["label"] == "等"
    finally:
        plane.runtime.stop("gateway-0")
        for made in [one]:
            made.close()
            made.close = lambda: None
        plane.close()


@pytest.mark.parametrize("kind", ["local", *(pytest.param(k, marks=pytest.mark.slow) for k in ("nats", "rabbitmq", "redis"))])
def test_a_worker_that_is_killed_loses_nothing_and_answers_no_id_twice_differently(line, kind):
    plane = DataPlane(SLOW)
    try:
        one = line(plane, broker_url(kind))
        one.send(*({"id": str(i), "inputs": [f"{i}号"]} for i in range(120)))
        until(lambda: one.state().get("answered", 0) >= 20, what="some answers")
        os.kill(plane.pid(one.name), signal.SIGKILL)
        until(lambda: plane.runtime.processes()[one.name]["starts"] == 2 and one.state().get("connected"), what="a new worker")
        by_id, _ = one.gathered(120)
        assert len(by_id) == 120, f"lost {120 - len(by_id)}"
        assert {id: len(bodies) for id, bodies in by_id.items() if len(bodies) > 1} == {}
        assert all(json.loads(body)["outputs"][0]["label"] == id[0] for id, (body,) in by_id.items())
    finally:
        one.close()
        one.close = lambda: None
        plane.close()


def test_a_worker_that_is_stopped_finishes_or_gives_back(line):
    plane = DataPlane(SLOW)
    try:
        one = line(plane)
        one.send(*({"id": str(i), "inputs": [f"{i}号"]} for i in range(80)))
        until(lambda: one.state().get("answered", 0) >= 5, what="some answers")
        assert one.state()["in_flight"] <= one.binding.concurrency
        plane.runtime.stop(one.name, grace_s=15.0)
        until(lambda: plane.runtime.processes()[one.name]["state"] == "exited", what="the worker's end")
        assert plane.runtime.processes()[one.name]["code"] == 0

        async def depths():
            bus = await one.bus()
            found = await bus.depth(one.binding.requests), await bus.depth(one.binding.replies)
            await bus.close()
            return found

        waiting, answered = asyncio.run(depths())
        assert waiting + answered == 80 and 5 <= answered < 80  # none twice, none lost
        one.start()
        assert len(one.documents(80)) == 80 and one.state()["again"] == 0
    finally:
        one.close()
        one.close = lambda: None
        plane.close()


def test_pairs_and_a_service_of_another_project(line):
    one = line(service="pairs")
    one.send({"id": "p", "inputs": [{"text": "一", "text_b": "一"}], "priority": "interactive"})
    assert one.documents(1)["p"]["outputs"] == [{"label": "same", "score": 1.0}]
    stranger = line(project="pj_2")
    stranger.send({"id": "s", "inputs": ["x"], "deadline": "2999-01-01T00:00:00+08:00"})
    until(lambda: stranger.state()["waits"] > 0, what="waiting: to another project the service is not there")
