"""Replicas that are replaced while they are asked, and replicas that want more memory than they may have."""

import time

import pytest

from dataplane import DataPlane, alive, until
from wenfang.runtimes.processes import spawn
from wenfang.serve.memory import held_bytes, memory_error, memory_there


@pytest.fixture
def made():
    planes = []

    def make(*args, **more):
        planes.append(DataPlane(*args, **more))
        return planes[-1]

    yield make
    for plane in planes:
        plane.close()


TEXTS = [chr(97 + i % 26) + "x" * (i * 5 % 40) for i in range(200)]


@pytest.mark.parametrize(("starts", "more"), [(3, {"recycle_texts": 300}), (2, {"recycle_growth": 1.5, "leak_kb": 50})])
def test_a_replica_is_replaced_under_load_and_no_request_fails(made, starts, more):
    plane = made({"mv_a": ("m:1", "classification", 1, {"wait_ms": 1, **more})})
    first, started = plane.pid("replica-mv_a-0"), time.monotonic()
    figures = {"n": 0, "statuses": {}, "wrong": 0}
    pids = {first}
    while len(pids) < starts and time.monotonic() - started < 40:
        part = plane.load(concurrency=16, seconds=1, texts=TEXTS)
        pids.add(plane.pid("replica-mv_a-0"))
        figures["n"] += part["n"]
        figures["wrong"] += part["wrong"]
        for status, n in part["statuses"].items():
            figures["statuses"][status] = figures["statuses"].get(status, 0) + n
    assert figures["statuses"] == {200: figures["n"]}, figures
    assert figures["wrong"] == 0
    until(lambda: not alive(first), what="the first one has left")
    assert len(pids) >= starts
    text = plane.get("/metrics")[1].decode()
    count = {
        name: sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))
        for name in ("wenfang_replicas_recycled_total{", "wenfang_texts_retried_total{")
    }
    assert count["wenfang_replicas_recycled_total{"] >= 1
    assert count["wenfang_texts_retried_total{"] == 0  # what was with it was answered by it


def test_a_successor_that_cannot_start_costs_nothing(made):
    plane = made({"mv_a": ("m:1", "classification", 1, {"recycle_texts": 20})})
    pid = plane.pid("replica-mv_a-0")
    arguments = plane.root / "taken"
    arguments.mkdir()
    (plane.home.run / "supervisor.sock").rename(arguments / "supervisor.sock")  # nobody hears it
    assert plane.load(concurrency=4, seconds=1, texts=TEXTS)["statuses"].keys() == {200}
    (arguments / "supervisor.sock").rename(plane.home.run / "supervisor.sock")
    assert plane.pid("replica-mv_a-0") == pid
    assert plane.predict("a")[0] == 200


def test_a_model_that_needs_more_than_it_may_is_refused_by_name(tmp_path):
    for cap_mb, code in ((200, None), (600, 0)):
        child = spawn("dataplane:replica", {"socket": str(tmp_path / "s"), "name": "big:1", "load_mb": 300, "memory_bytes": cap_mb << 20}, tmp_path / "log")
        try:
            if code is None:
                assert child.popen.wait(30) == 78
                error = child.failure()
                assert (error["code"], error["status"], error["fields"]["cap_mb"]) == ("serve.memory-short", 409, 200)
            else:
                until((tmp_path / "s").exists, what="it serves")
        finally:
            child.close(5.0)


def test_a_text_that_wants_too_much_memory_fails_alone_and_the_replica_lives(made):
    plane = made({"mv_a": ("m:1", "classification", 1, {"memory_bytes": 400 << 20})})
    pid = plane.pid("replica-mv_a-0")
    status, document = plane.predict("HUGE")
    assert (status, document["code"]) == (500, "serve.model-failed")
    assert "MemoryError" in document["detail"]
    assert plane.predict("a")[0] == 200
    assert plane.pid("replica-mv_a-0") == pid


def test_what_the_machine_has_is_known_and_libraries_words_for_too_little_are_understood():
    free, total = memory_there()
    assert 0 < free <= total
    assert held_bytes() > 1 << 20
    for error in (MemoryError(), OSError(12, "x"), RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), RuntimeError("std::bad_alloc")):
        assert memory_error(error, "m:1", 1 << 30).fields["cap_mb"] == 1024
    outer = ValueError("outer")
    outer.__cause__ = MemoryError()
    assert memory_error(outer, "m:1", 0) is not None
    assert memory_error(ValueError("a label"), "m:1", 0) is None
