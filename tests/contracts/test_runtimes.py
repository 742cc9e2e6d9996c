"""What every runtime keeps: a process once, again when it dies, its error told, stopped in time. The same tests on one machine and on a Ray cluster."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

import ray_world
from dataplane import Tree, alive, spawn, until
from wenfang.core.errors import Broken
from wenfang.core.frames import recv_frame, send_frame
from wenfang.core.home import Home
from wenfang.core.places import connect
from wenfang.runtimes.clustered import CLUSTER_SOCKET
from wenfang.runtimes.local import LocalRuntime

SLEEPER = "dataplane:sleeper"
pytestmark = pytest.mark.timeout(240)


class OnOneMachine(Tree):
    """The supervisor's own processes."""

    def shutdown(self):
        self.runtime.shutdown()
        return self.child.popen.wait(30)


class OnRay:
    """Processes in actors of a cluster; the ``cluster`` process without a tree around it."""

    def __init__(self, cluster, *, room_s=45.0, **resources):
        self.root = Path(tempfile.mkdtemp(prefix="wf"))
        self.home = Home(self.root).prepare()
        os.environ |= {k: v for k, v in cluster.env.items() if k.startswith("RAY_")}
        self.child = spawn(
            "wenfang.runtimes.ray_cluster:main", {**ray_world.cluster_arguments(self.home, cluster.address, **resources), "room_s": room_s}, self.home.logs / "cluster.log"
        )
        until(lambda: (self.home.run / CLUSTER_SOCKET).exists() or self.child.popen.poll() is not None, 60, "cluster process")
        self.runtime = LocalRuntime(self.home, socket=CLUSTER_SOCKET)

    def shutdown(self):
        self.child.signal(signal.SIGTERM)
        return self.child.popen.wait(60)

    def close(self):
        self.child.close(30.0)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    if ray_world.missing:
        pytest.skip(ray_world.missing)
    cluster = ray_world.Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module", params=["local", "ray"])
def world(request):
    made = OnOneMachine() if request.param == "local" else OnRay(request.getfixturevalue("cluster"))
    yield made
    made.close()


def ensure(world, name, entry=SLEEPER, *, restart=True, **more):
    """A process of that name, with what a replica is given."""
    (world.root / "bundle").mkdir(exist_ok=True)
    (world.root / "bundle" / "weights").write_bytes(bytes(range(256)) * 100)
    arguments = {
        "bundle": str(world.root / "bundle"), "keys": str(world.home.keys), "socket": str(world.home.run / f"{name}.sock"),
        "note": str(world.root / f"{name}.note"), "order": str(world.root / "order"), "name": name, **more,
    }  # fmt: skip
    world.runtime.ensure(name, entry, arguments, restart=restart)


def shown(world, name):
    return world.runtime.processes().get(name, {})


def pid_of(world, name, other_than=None):
    return until(lambda: (p := shown(world, name)).get("state") == "running" and p["pid"] != other_than and p["pid"], 60, f"pid of {name}")


def test_a_process_runs_once_however_often_it_is_asked_for(world):
    for _ in range(3):
        ensure(world, "replica-once")
    pid = pid_of(world, "replica-once")
    ensure(world, "replica-once")
    until((world.root / "replica-once.note").exists, 20)
    state = shown(world, "replica-once")
    assert {k: state[k] for k in ("pid", "state", "code", "starts", "error")} == {"pid": pid, "state": "running", "code": None, "starts": 1, "error": None}
    assert state["started_at"] == pytest.approx(time.time(), abs=90)
    assert (world.root / "replica-once.note").read_text() == str(pid)
    until(lambda: "hello from the sleeper" in (world.home.logs / "replica-once.log").read_text(), 20, "its log")
    world.runtime.stop("replica-once")


def test_a_killed_process_comes_back_unless_it_need_not(world):
    ensure(world, "replica-a")
    ensure(world, "replica-b", restart=False)
    first, second = pid_of(world, "replica-a"), pid_of(world, "replica-b")
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    assert pid_of(world, "replica-a", other_than=first) != first
    assert shown(world, "replica-a")["starts"] == 2
    assert until(lambda: (p := shown(world, "replica-b"))["state"] == "exited" and p, 30)["code"] == -signal.SIGKILL
    world.runtime.stop("replica-a")


def test_what_a_process_refuses_with_is_told_and_it_is_tried_again(world):
    ensure(world, "replica-r", refuse=True)
    assert until(lambda: (p := shown(world, "replica-r")).get("state") == "backing-off" and p["error"], 60)["code"] == "gateway.port-in-use"
    until(lambda: shown(world, "replica-r")["starts"] >= 2, 30)
    world.runtime.stop("replica-r")
    ensure(world, "replica-none", "wenfang.core.text:nothing", restart=False)
    assert until(lambda: shown(world, "replica-none").get("error"), 60)["code"] == "runtime.no-entry"


def test_stop_returns_at_once_kills_the_stubborn_and_the_name_is_free_again(world):
    ensure(world, "replica-s", stubborn=True)
    pid = pid_of(world, "replica-s")
    until((world.root / "replica-s.note").exists, 20)
    start = time.monotonic()
    world.runtime.stop("replica-s", grace_s=1.0)
    assert time.monotonic() - start < 0.9
    ensure(world, "replica-s")
    until(lambda: not alive(pid), 30, "the stubborn one gone")
    assert pid_of(world, "replica-s", other_than=pid) != pid
    world.runtime.stop("replica-s")
    until(lambda: shown(world, "replica-s")["state"] == "exited", 30)
    world.runtime.stop("nobody")


def test_a_replica_answers_where_it_is_looked_for_and_is_gone_when_stopped(world):
    ensure(world, "replica-q", "dataplane:replica")
    place = world.home.run / "replica-q.sock"
    until(place.exists, 60, "its place")
    with connect(place, 20.0) as sock:
        assert recv_frame(sock)["model"] == "replica-q"
        send_frame(sock, {"type": "ask", "id": 7, "texts": ["你好", "ab"]})
        answer = recv_frame(sock)
        assert [answer["id"], *(o["label"] for o in answer["outputs"])] == [7, "你", "a"]
    first = shown(world, "replica-q")["pid"]
    os.kill(first, signal.SIGKILL)
    pid_of(world, "replica-q", other_than=first)

    def again():
        try:
            with connect(place, 5.0) as sock:
                return recv_frame(sock)["pid"] != first
        except (OSError, EOFError):
            return False

    until(again, 30, "the new one at the same place")
    world.runtime.stop("replica-q")
    until(lambda: not place.exists(), 30, "the place empty")


def test_a_call_nobody_knows_is_an_error_and_nothing_else(world):
    with pytest.raises(Broken, match="knows no call"):
        world.runtime._call("dance")
    assert isinstance(world.runtime.processes(), dict)


def test_at_the_end_everything_is_stopped(world):
    for name in ("replica-x", "replica-y"):
        ensure(world, name)
    pids = [pid_of(world, name) for name in ("replica-x", "replica-y")]
    assert world.shutdown() == 0
    until(lambda: not any(alive(pid) for pid in pids), 20, "all gone")
    with pytest.raises(Broken, match="does not answer"):
        world.runtime.processes()


def test_a_cluster_without_room_says_so_and_stops_asking_when_nobody_wants_it(cluster):
    world = OnRay(cluster, room_s=3.0, cpus=64)
    try:
        ensure(world, "replica-big")
        error = until(lambda: (p := shown(world, "replica-big")).get("state") == "backing-off" and p["error"], 60)
        assert error["code"] == "runtime.no-room" and error["fields"]["cpus"] == 64
    finally:
        world.close()
    world = OnRay(cluster, room_s=300.0, cpus=64)
    try:
        ensure(world, "replica-big")
        time.sleep(2.0)
        assert shown(world, "replica-big")["state"] == "starting"
        world.runtime.stop("replica-big")
        until(lambda: shown(world, "replica-big")["state"] == "exited", 30, "given up")
    finally:
        world.close()
