"""Replicas for measuring: real processes, real round trips, clear errors."""

import os
import signal
import threading

import pytest

from dataplane import TESTS, alive, until
from wenfang.core.errors import Broken
from wenfang.runtimes.host import LocalReplicaHost


@pytest.fixture
def host(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    return LocalReplicaHost(tmp_path, entry="dataplane:replica", start_timeout_s=20.0)


def test_a_round_trip(host, tmp_path):
    replica = host.start(tmp_path)
    try:
        texts = ["你好", "", "x" * 5000, "\ud800odd", "nul\0"]
        outputs = replica.predict(texts)
        assert [o.score for o in outputs] == [1 / (1 + len(t)) for t in texts]
        assert outputs[3].label == "\ufffd"
        assert 1 << 20 < replica.memory_bytes() < 1 << 30
        assert replica.hello["labels"] == ["a", "b"]
        with pytest.raises(Broken, match="ValueError") as caught:
            replica.predict(["fine", "RAISE"])
        assert caught.value.code == "serve.model-failed"
        assert "in this message" not in str(caught.value)
        assert replica.predict(["fine"])[0].label == "f"
    finally:
        replica.close()
    assert not alive(replica._child.pid)


def test_a_dead_replica_says_so(host, tmp_path):
    replica = host.start(tmp_path)
    os.kill(replica._child.pid, signal.SIGKILL)
    with pytest.raises(Broken, match="does not answer"):
        replica.predict(["x"])
    replica.close()


def test_it_outlives_the_thread_that_asked_for_it(host, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(host.start(tmp_path)))
    thread.start()
    thread.join()
    until(lambda: not thread.is_alive())
    assert found[0].predict(["ab"])[0].label == "a"
    found[0].close()


def test_what_a_replica_refuses_with_reaches_the_caller(tmp_path):
    host = LocalReplicaHost(tmp_path, entry="dataplane:raise_nothing_here")
    with pytest.raises(Broken) as caught:
        host.start(tmp_path)
    assert caught.value.code == "runtime.no-entry"
