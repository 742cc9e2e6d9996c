"""Replicas on a Ray cluster of two machines: one is lost under load and nobody notices; a cluster that is not there is said at once."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

import ray_world
from dataplane import until
from wenfang.core.home import Home
from wenfang.runtimes.clustered import CLUSTER_SOCKET
from wenfang.runtimes.local import LocalRuntime
from worlds import Tree, free_port, request, separable, wenfang, write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(290)]


@pytest.fixture(scope="module")
def cluster():
    if ray_world.missing:
        pytest.skip(ray_world.missing)
    if not ray_world.namespaces_permitted():
        pytest.skip("network namespaces are not permitted here: two machines cannot be told apart")
    cluster = ray_world.Cluster(nodes=2)
    yield cluster
    cluster.close()


def replicas(tree):
    found = LocalRuntime(Home(tree.home), socket=CLUSTER_SOCKET).processes()
    return {n: p for n, p in found.items() if p["state"] == "running"}


class Load:
    """Requests one after another from several threads; what failed, and when."""

    def __init__(self, tree, threads=6):
        self.tree, self.answered, self.failed = tree, [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(threads)]

    def _ask(self, i):
        n = 0
        while not self._stop.is_set():
            n += 1
            text = f"退款 {i} {n}"
            began = time.monotonic()
            try:
                status, answer, _ = request(self.tree.port, "POST", "/predict/tickets", {"inputs": [text]}, key=self.tree.KEY)
            except OSError as e:
                status, answer = 0, repr(e)
            (self.answered if status == 200 else self.failed).append((began, time.monotonic() - began, status, answer))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@contextlib.contextmanager
def served(cluster, tmp_path):
    """A studio whose service has a replica on each of the two machines."""
    write_csv(tmp_path / "t.csv", separable(300))
    home = tmp_path / "home"
    made = json.loads(
        wenfang("run", tmp_path / "t.csv", "--name", "tickets", "--budget", "10s", "--json", home=home, env={"WENFANG_SERVE__CACHE_BYTES": "0"}, check=0).stdout.splitlines()[-1]
    )
    secrets = {k: v for k, v in cluster.env.items() if k.startswith("RAY_")}
    with Tree(home, WENFANG_RUNTIME__ADDRESS=cluster.address, WENFANG_RUNTIME__CPUS="0.25", WENFANG_SERVE__CACHE_BYTES="0", **secrets) as tree:
        until((home / "run" / CLUSTER_SOCKET).exists, 60, "the cluster")
        status, deployed, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "tickets", "model_version": made["model_version"], "replicas": 2}, timeout=100)
        assert status == 200, deployed
        assert {p["node"] for p in replicas(tree).values()} == {f"{ray_world.NET}.1", f"{ray_world.NET}.2"}
        assert not [p for p in Home(home).run.glob("r*-*.sock") if p.is_socket()]  # nothing runs here
        yield tree


def test_a_machine_is_lost_under_load_and_no_request_fails(cluster, tmp_path, capsys):
    with served(cluster, tmp_path) as tree:
        with Load(tree) as load:
            time.sleep(3)
            lost_at = time.monotonic()
            cluster.kill_node(1)
            until(lambda: [p["node"] for p in replicas(tree).values()] == [f"{ray_world.NET}.1"] * 2, 60, "a replacement")
            recovered_s = time.monotonic() - lost_at
            time.sleep(2)
        assert load.failed == []
        assert len([a for a in load.answered if a[0] > lost_at]) > 20
        slowest = max(took for began, took, *_ in load.answered if began > lost_at - 1)
        with capsys.disabled():
            print(f"\na machine killed: {len(load.answered)} answered, 0 failed, slowest {slowest:.2f} s, two replicas again after {recovered_s:.1f} s")  # noqa: T201
        # the process that holds the connection dies: the replicas answer on, and are found again
        before = {p["pid"] for p in replicas(tree).values()}
        with Load(tree) as load:
            tree_processes = LocalRuntime(Home(tree.home)).processes()
            os.kill(tree_processes["cluster"]["pid"], 9)
            until(lambda: _again(tree.home, before), 60, "found again")
        assert load.failed == [] and load.answered
        assert tree.stop() == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), 20, "nothing left on the machines")


def test_a_cable_is_pulled_under_load_and_no_request_fails(cluster, tmp_path, capsys):
    """The machine's processes live on and reach nobody: no connection is reset, nothing says goodbye."""
    cluster.restore_node(1)
    with served(cluster, tmp_path) as tree:
        with Load(tree) as load:
            time.sleep(3)
            lost_at = time.monotonic()
            cluster.cut_node(1)
            until(lambda: [p["node"] for p in replicas(tree).values()] == [f"{ray_world.NET}.1"] * 2, 60, "a replacement")
            recovered_s = time.monotonic() - lost_at
            time.sleep(1)
        assert load.failed == []
        slowest = max(took for began, took, *_ in load.answered if began > lost_at - 1)
        with capsys.disabled():
            print(f"\na cable pulled: {len(load.answered)} answered, 0 failed, slowest {slowest:.2f} s, two replicas again after {recovered_s:.1f} s")  # noqa: T201


def _again(home, before):
    try:
        found = LocalRuntime(Home(home), socket=CLUSTER_SOCKET).processes()
    except Exception:
        return False
    return {p["pid"] for p in found.values() if p["state"] == "running"} == before


def test_a_cluster_that_does_not_answer_is_said_within_a_bound(tmp_path):
    if ray_world.missing:
        pytest.skip(ray_world.missing)
    began = time.monotonic()
    done = wenfang("up", "--home", tmp_path / "h", "--runtime", f"ray://127.0.0.1:{free_port()}", timeout=60)
    assert done.returncode == 1 and "[runtime.cluster-away]" in done.stderr and "ray://127.0.0.1" in done.stderr
    assert time.monotonic() - began < 30
    assert not (tmp_path / "h" / "run" / "supervisor.sock").exists()
