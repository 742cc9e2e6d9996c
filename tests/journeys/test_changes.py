"""Versions, replicas, the control process and the program itself changed under load in one real tree: nothing fails.

After the answer to a deploy nothing goes to the version before, over any protocol.
"""

import os
import signal
import threading
import time

import pytest

from changing_world import Load, deploy, publish, replicas, until, upgrade_under_load
from wenfang.core.home import Home
from wenfang.runtimes.local import LocalRuntime
from worlds import Tree

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    home = tmp_path_factory.mktemp("changes") / "home"
    publish(home, 5, unsigned={4})
    (home / "wenfang.toml").write_text("[serve]\ngateways = 2\nreplicas = 2\ncache_bytes = 0\nprobe_every_s = 0.5\ndeadline_s = 4.0\n")
    with Tree(home) as tree:
        assert deploy(tree, 1)["replicas"] == 2
        yield tree


@pytest.fixture
def load(tree):
    load = Load(tree.port, Tree.KEY, connections=3, grpc_port=int(tree.env["WENFANG_SERVE__GRPC_PORT"]), pause_s=0.01)
    yield load
    load.over.set()


def only(load, moment, number):
    """Since ``moment`` every protocol was answered by that version alone."""
    load.until_asked_after(moment)
    assert load.asked_after(moment) == {(kind, f"tickets:{number}") for kind in ("predict", "v2", "grpc")}


def test_each_strategy_changes_under_load_and_after_the_answer_nothing_goes_to_the_version_before(tree, load):
    most = 0
    for strategy, number in [("surge", 2), ("blue-green", 3), ("rolling", 1)]:
        if strategy == "rolling":
            time.sleep(0.1)
            before = set(replicas(tree))
            counted = Counter(tree)
        answer = deploy(tree, number, strategy=strategy, **({"keep_warm_s": 0.5} if strategy == "blue-green" else {}))
        moment = time.monotonic()
        assert answer["strategy"] == strategy
        if strategy == "rolling":
            most = counted.stop()
            assert before.isdisjoint(replicas(tree)) or len(before) > 2
        only(load, moment, number)
        if strategy == "blue-green":
            until(lambda: len(replicas(tree)) == 2, "the warm replicas go when their time is over")
    assert most == 3, "one process more than the service has"
    assert load.stop() == []


class Counter:
    """The most replica processes seen at once."""

    def __init__(self, tree):
        self.tree, self.most, self.over = tree, 0, threading.Event()
        self.thread = threading.Thread(target=self.count, daemon=True)
        self.thread.start()

    def count(self):
        while not self.over.is_set():
            self.most = max(self.most, len(replicas(self.tree)))
            time.sleep(0.005)

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.most


def test_the_version_before_is_warm_and_going_back_starts_no_process(tree, load):
    deploy(tree, 1, strategy="surge")
    deploy(tree, 2, strategy="blue-green", keep_warm_s=60)
    before = {n: p["pid"] for n, p in replicas(tree).items()}
    assert len(before) == 4
    began = time.monotonic()
    status, answer, _ = tree.call("POST", "/api/v1/services/tickets/rollback", {})
    moment = time.monotonic()
    print(f"warm rollback: {1000 * (moment - began):.0f} ms")
    assert (status, answer["model"]) == (200, "tickets:1")
    assert {n: p["pid"] for n, p in replicas(tree).items()} == before
    only(load, moment, 1)
    assert load.stop() == []


def test_a_model_that_cannot_start_leaves_the_old_one_serving_and_says_why(tree, load):
    deploy(tree, 1, strategy="surge", keep_warm_s=0)
    until(lambda: len(replicas(tree)) == 2, "two replicas")
    before = {n: p["pid"] for n, p in replicas(tree).items()}
    for strategy in ("surge", "rolling", "blue-green"):
        status, problem, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "tickets", "model_version": "tickets:4", "strategy": strategy})
        assert (status, problem["code"]) == (500, "bundle.bad-signature-file"), problem
    stop = threading.Event()
    killer = threading.Thread(target=kill_on_sight, args=(tree, set(before), stop), daemon=True)
    killer.start()
    status, problem, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "tickets", "model_version": "tickets:5"}, timeout=120)
    stop.set()
    killer.join()
    assert (status, problem["code"]) == (500, "service.replica-dies"), problem
    moment = time.monotonic()
    only(load, moment, 1)
    until(lambda: {n: p["pid"] for n, p in replicas(tree).items()} == before, "what was started for nothing is gone")
    assert load.stop() == []
    shown = tree.call("GET", "/api/v1/services/tickets")[1]
    assert (shown["service"]["model"], shown["service"]["strategy"]) == ("tickets:1", "surge")


def kill_on_sight(tree, spared, stop):
    """Kill every replica but these as soon as it is there."""
    while not stop.is_set():
        for name, process in replicas(tree).items():
            if name not in spared and process["state"] == "running":
                os.kill(process["pid"], signal.SIGKILL)
        time.sleep(0.02)


def test_rolling_has_no_room_for_a_warm_set(tree):
    status, problem, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "tickets", "model_version": "tickets:2", "strategy": "rolling", "keep_warm_s": 5})
    assert (status, problem["code"]) == (422, "service.no-room-to-keep-warm")


def pid(tree, name):
    return LocalRuntime(Home(tree.home)).processes()[name]["pid"]


def test_a_replica_that_hangs_is_noticed_by_a_question_and_replaced(tree, load):
    name = next(iter(replicas(tree)))
    hung = replicas(tree)[name]["pid"]
    os.kill(hung, signal.SIGSTOP)
    until(lambda: replicas(tree).get(name, {}).get("pid") not in {None, hung}, "a new process")
    load.until_asked_after(time.monotonic())
    assert load.stop() == []


def test_a_killed_control_process_finds_everything_as_it_left_it(tree, load):
    before = {n: p["pid"] for n, p in replicas(tree).items()}
    epoch = tree.call("GET", "/readyz")[1]["epoch"]
    os.kill(pid(tree, "control"), signal.SIGKILL)
    os.kill(before[min(before)], signal.SIGKILL)
    until(lambda: tree.call("GET", "/api/v1/services")[0] == 200, "control")
    until(lambda: len(replicas(tree)) == 2 and min(before) in replicas(tree), "both replicas")
    after = {n: p["pid"] for n, p in replicas(tree).items()}
    assert after[max(before)] == before[max(before)]
    assert tree.call("GET", "/readyz")[1]["epoch"] == epoch
    load.until_asked_after(time.monotonic())
    assert load.stop() == []


def kill_between_steps(tree, control):
    """Kill the control process as soon as both versions answer."""
    until(lambda: '"shares":{"' in (tree.home / "run" / "routes.json").read_text(), "a table with shares")
    os.kill(control, signal.SIGKILL)


def test_a_rolling_change_whose_control_process_dies_has_not_happened(tree, load):
    deploy(tree, 1)
    threading.Thread(target=kill_between_steps, args=(tree, pid(tree, "control")), daemon=True).start()
    status, problem, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "tickets", "model_version": "tickets:2", "strategy": "rolling"}, timeout=60)
    assert (status, problem["code"]) == (503, "gateway.control-away")
    until(lambda: tree.call("GET", "/api/v1/services")[0] == 200, "control")
    shown = tree.call("GET", "/api/v1/services/tickets")[1]
    assert (shown["service"]["model"], shown["service"]["strategy"]) == ("tickets:1", "surge")
    until(lambda: len(replicas(tree)) == 2, "the old replicas alone")
    moment = time.monotonic()
    load.until_asked_after(moment)
    assert {model for _, model in load.asked_after(moment)} == {"tickets:1"}
    assert load.stop() == []


def test_a_studio_turns_into_the_program_that_is_installed_now_and_no_request_fails(tree, load):
    deploy(tree, 1)
    upgrade_under_load(tree, load)
