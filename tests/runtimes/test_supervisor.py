"""The process tree: restarts with back-off, order of stopping, one tree a home, and nothing left behind."""

import itertools
import os
import signal
import time

import pytest

import dataplane
from dataplane import Tree, alive, until
from wenfang.core.errors import Broken, Conflict
from wenfang.core.home import Home, HomeLock
from wenfang.runtimes.local import LocalRuntime
from wenfang.runtimes.processes import rotate_log

SLEEPER = "dataplane:sleeper"


@pytest.fixture
def tree():
    tree = Tree()
    yield tree
    tree.close()


def sleeper(tree, name, **more):
    return {"note": str(tree.root / f"{name}.note"), "order": str(tree.root / "order"), "name": name, **more}


def test_a_process_runs_once_however_often_it_is_asked_for(tree):
    for _ in range(3):
        tree.runtime.ensure("job-1", SLEEPER, sleeper(tree, "job-1"), restart=False)
    pid = tree.pid("job-1")
    assert tree.runtime.processes()["job-1"] == {"pid": pid, "state": "running", "code": None, "starts": 1, "started_at": pytest.approx(time.time(), abs=10), "error": None}
    until(lambda: "hello from the sleeper" in (tree.home.logs / "job-1.log").read_text())


def test_killed_processes_come_back_and_jobs_do_not(tree):
    tree.runtime.ensure("replica-a", SLEEPER, sleeper(tree, "a"), restart=True)
    tree.runtime.ensure("job-b", SLEEPER, sleeper(tree, "b"), restart=False)
    first, job = tree.pid("replica-a"), tree.pid("job-b")
    os.kill(first, signal.SIGKILL)
    os.kill(job, signal.SIGKILL)
    until(lambda: tree.runtime.processes()["replica-a"]["starts"] == 2)
    assert tree.pid("replica-a") != first
    assert until(lambda: (p := tree.runtime.processes()["job-b"])["state"] == "exited" and p)["code"] == -signal.SIGKILL


def test_back_off_doubles(tree):
    tree.runtime.ensure("replica-x", SLEEPER, sleeper(tree, "x", exit=3), restart=True)
    until(lambda: tree.runtime.processes()["replica-x"]["starts"] >= 5)
    assert tree.runtime.processes()["replica-x"]["code"] == 3
    times = [float(line) for line in (tree.root / "x.note").read_text().split()]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert all(gap >= wait for gap, wait in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=False)), gaps
    tree.runtime.stop("replica-x")
    assert tree.runtime.processes()["replica-x"]["state"] in {"exited", "stopping"}


def test_stop_returns_at_once_kills_the_stubborn_and_the_name_is_free_again(tree):
    tree.runtime.ensure("job-s", SLEEPER, sleeper(tree, "s", stubborn=True), restart=True)
    pid = tree.pid("job-s")
    until((tree.root / "s.note").exists)
    start = time.monotonic()
    tree.runtime.stop("job-s", grace_s=0.5)
    assert time.monotonic() - start < 0.4
    tree.runtime.ensure("job-s", SLEEPER, sleeper(tree, "s2"), restart=True)
    until(lambda: not alive(pid))
    assert tree.pid("job-s") != pid
    tree.runtime.stop("nobody")


def test_everything_stops_in_order(tree):
    for name in ("control", "replica-a", "job-a", "gateway-0"):
        tree.runtime.ensure(name, SLEEPER, sleeper(tree, name), restart=True)
        until((tree.root / f"{name}.note").exists)
    tree.child.signal(signal.SIGTERM)
    assert tree.child.popen.wait(20) == 0
    assert (tree.root / "order").read_text().split() == ["gateway-0", "job-a", "replica-a", "control"]
    assert not list(tree.home.run.glob("*.sock"))
    HomeLock(tree.home).release()


def test_a_second_tree_on_the_same_home_is_refused(tree):
    with pytest.raises(Conflict, match=f"process {tree.child.pid}"):
        HomeLock(tree.home)
    second = dataplane.spawn("dataplane:tree", {"home": str(tree.root), "processes": []}, tree.root / "second.log")
    assert second.popen.wait(20) == 78
    assert second.failure()["code"] == "home.in-use"
    assert tree.runtime.processes() == {}


def test_a_first_process_that_refuses_ends_the_tree_with_its_error(tree):
    tree.close()
    tree.root.mkdir()
    Home(tree.root).prepare()
    other = {"name": "control", "entry": SLEEPER, "arguments": sleeper(tree, "control")}
    tree.start([other, {"name": "gateway-0", "entry": SLEEPER, "arguments": sleeper(tree, "g", refuse=True)}])
    assert tree.child.popen.wait(20) == 78
    assert tree.child.failure()["code"] == "gateway.port-in-use"


def test_a_later_process_that_refuses_is_told_and_tried_again(tree):
    tree.runtime.ensure("replica-r", SLEEPER, sleeper(tree, "r", refuse=True), restart=True)
    state = until(lambda: (p := tree.runtime.processes()["replica-r"])["error"] and p)
    assert state["error"]["code"] == "gateway.port-in-use"
    until(lambda: tree.runtime.processes()["replica-r"]["starts"] >= 2)


def test_an_unknown_entry_is_an_error_with_a_code(tree):
    tree.runtime.ensure("job-none", "wenfang.core.text:nothing", {}, restart=False)
    assert until(lambda: tree.runtime.processes()["job-none"]["error"])["code"] == "runtime.no-entry"
    with pytest.raises(Broken, match="knows no call"):
        tree.runtime._call("dance")


def test_kill_9_of_the_supervisor_leaves_no_orphan(tree):
    for name in ("gateway-0", "replica-a", "job-a", "control"):
        tree.runtime.ensure(name, SLEEPER, sleeper(tree, name), restart=True)
    pids = [tree.pid(name) for name in tree.runtime.processes()]
    for name in tree.runtime.processes():
        until((tree.root / f"{name}.note").exists)
    os.kill(tree.child.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids), 2.0, "orphans gone")
    tree.child.popen.wait()
    HomeLock(tree.home).release()
    with pytest.raises(Broken, match="does not answer"):
        LocalRuntime(tree.home).processes()
    tree.start([])  # stale sockets are no obstacle
    assert until(lambda: LocalRuntime(tree.home).processes() == {})


def test_logs_are_rotated_by_size(tmp_path):
    log = tmp_path / "x.log"
    with log.open("ab") as writer:
        writer.write(b"old" * 100)
        writer.flush()
        rotate_log(log, max_bytes=100)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "x.log.1").read_bytes() == b"old" * 100
    rotate_log(log, max_bytes=100)
    rotate_log(tmp_path / "none.log")
    assert log.read_bytes() == b"new"
