"""Replicas killed, versions switched, gateways killed, control away: no request fails."""

import os
import signal
import socket
import threading
import time

import pytest

from dataplane import DataPlane, until
from wenfang.core.home import Home
from wenfang.runtimes.processes import spawn


@pytest.fixture
def made():
    planes = []

    def make(*args, **more):
        planes.append(DataPlane(*args, **more))
        return planes[-1]

    yield make
    for plane in planes:
        plane.close()


class Beside(threading.Thread):
    """Runs ``work`` while the test goes on and keeps what it returns or raises."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.found, self.error = work, None, None
        self.start()

    def run(self):
        try:
            self.found = self.work()
        except BaseException as e:
            self.error = e

    def result(self):
        self.join(60)
        if self.error:
            raise self.error
        return self.found


TEXTS = [chr(97 + i % 26) + "x" * (i * 5 % 40) for i in range(200)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_kill_9_of_a_replica_under_load_fails_no_request(made, replicas):
    plane = made({"mv_a": ("m:1", "classification", replicas, {"wait_ms": 3})})
    load = Beside(lambda: plane.load(concurrency=16, seconds=4, texts=TEXTS))
    for i in range(3):
        time.sleep(0.9)
        os.kill(plane.pid(f"replica-mv_a-{i % replicas}"), signal.SIGKILL)
    figures = load.result()
    assert figures["statuses"] == {200: figures["n"]}, figures
    assert figures["wrong"] == 0
    assert figures["n"] > 300
    until(lambda: plane.call("stats")["pools"]["mv_a"]["ready"] == replicas)


def test_versions_switch_under_load_without_a_failed_request(made):
    plane = made({"mv_0": ("m:0", "classification", 1, {"wait_ms": 3, "tag": ""})}, gateways=2)
    stop = threading.Event()
    load = Beside(lambda: plane.load(concurrency=16, until_set=stop, texts=TEXTS))
    for n in range(1, 4):
        new, old = f"mv_{n}", f"mv_{n - 1}"
        plane.models = {new: (f"m:{n}", "classification", 1, {"wait_ms": 3})}
        plane.services = {"intent": ("pj_1", new)}
        plane.start_replicas(new)
        until(lambda new=new: next(iter(plane.home.run.glob(f"*{new[-12:]}-0.sock")), None))
        plane.write_routes()
        for i in range(2):
            assert plane.call("routes", i, epoch=plane.epoch, drained=True)["epoch"] == plane.epoch
        plane.runtime.stop(f"replica-{old}-0")  # after the ack nothing goes there: it may die at once
        assert {plane.predict("a")[1]["model"] for _ in range(20)} == {f"m:{n}"}
        time.sleep(0.3)
    stop.set()
    figures = load.result()
    assert figures["statuses"] == {200: figures["n"]}, figures
    assert figures["wrong"] == 0
    assert set(figures["models"]) == {f"m:{n}" for n in range(4)}


def test_a_revoked_key_fails_from_the_ack_on(made):
    plane = made()
    assert plane.predict("a")[0] == 200
    table = plane.table
    plane.table = lambda: type(table())(plane.epoch, table().services, table().models, {})
    plane.write_routes()
    plane.call("routes", epoch=plane.epoch)
    assert plane.predict("a")[0] == 401


def test_a_table_nobody_announced_is_taken_and_a_broken_one_is_not(made):
    plane = made()
    (plane.home.run / "routes.json").write_text("{broken")
    time.sleep(1.5)
    assert plane.predict("a")[0] == 200
    plane.services = {"other": ("pj_1", "mv_first")}
    plane.write_routes()
    until(lambda: plane.predict("a", service="other")[0] == 200, 5)
    assert plane.predict("a")[0] == 404


def test_a_killed_gateway_comes_back_by_itself_and_needs_no_control(made):
    plane = made()
    os.kill(plane.pid("gateway-0"), signal.SIGKILL)
    until(lambda: plane.runtime.processes()["gateway-0"]["starts"] == 2)
    until(lambda: plane.get("/readyz")[0] == 200)
    assert plane.predict("a")[0] == 200


def test_full_queues_are_429_with_retry_after(made):
    plane = made({"mv_a": ("m:1", "classification", 1, {"wait_ms": 50})}, settings={"queue_max": 8, "batch_max": 1})
    figures = plane.load(concurrency=24, seconds=1)
    assert set(figures["statuses"]) == {200, 429}
    document = next(d for d in figures["documents"])
    assert document["code"] == "serve.queue-full"
    assert 0.1 <= document["retry_after_s"] <= 60
    assert plane.predict("a")[0] == 200


def test_deadlines_are_504(made):
    plane = made({"mv_a": ("m:1", "classification", 1, {})}, settings={"deadline_s": 0.6})
    start = time.monotonic()
    status, document = plane.predict("HANG")
    assert (status, document["code"]) == (504, "serve.deadline-passed")
    assert time.monotonic() - start < 2


def test_a_port_in_use_is_a_clear_error(made):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        plane = made()
        arguments = {"home": str(plane.root), "index": 7, "host": "127.0.0.1", "port": taken.getsockname()[1]}
        child = spawn("wenfang.doors.gateway:main", arguments, plane.root / "logs" / "gateway-7.log")
        assert child.popen.wait(20) == 78
        assert child.failure()["code"] == "gateway.port-in-use"


def test_several_gateways_share_a_port_among_themselves_but_not_with_strangers(made):
    plane = made(gateways=2)
    figures = plane.load(concurrency=16, seconds=1)
    assert set(figures["statuses"]) == {200}
    text = plane.get("/metrics")[1].decode()
    counted = [line for line in text.splitlines() if line.startswith("wenfang_requests_total") and 'protocol="predict"' in line]
    assert len(counted) == 2
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == figures["n"]
    other = Home(plane.root / "other").prepare()
    (other.root / "wenfang.toml").write_text("[serve]\ngateways = 2\n")
    child = spawn("wenfang.doors.gateway:main", {"home": str(other.root), "index": 0, "host": "127.0.0.1", "port": plane.port}, plane.root / "stranger.log")
    assert child.popen.wait(20) == 78
    assert child.failure()["code"] == "gateway.port-in-use"
