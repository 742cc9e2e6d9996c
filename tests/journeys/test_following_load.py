"""A service follows its load in a real process tree: up, down, to none and back, across a restart of the control process."""

import os
import signal

import pytest

from scaling_world import Callers, publish, replicas, until
from wenfang.core.home import Home
from wenfang.runtimes.local import LocalRuntime
from worlds import Tree

pytestmark = pytest.mark.timeout(200)


def decisions(tree):
    return tree.call("GET", "/api/v1/services/tickets/decisions?lang=en")[1]["decisions"]


def test_replicas_follow_the_load_and_nobody_notices(tmp_path):
    home = tmp_path / "home"
    publish(home, {"min": 0, "max": 2, "idle_s": 2, "cold_start_s": 60, "target": {"busy": 0.01}, "cooldown": {"up_s": 0, "down_s": 1}, "resources": {"cores": 0.5}})
    with Tree(home, WENFANG_SERVE__CACHE_BYTES="0") as tree:
        until(lambda: not replicas(home))  # nobody asks
        assert tree.call("GET", "/readyz")[0] == 200
        assert tree.call("GET", "/v2/models/tickets/ready")[1]["ready"] is True
        status, answer, _ = tree.call("POST", "/predict/tickets", {"inputs": ["我要申请退款"]})
        assert status == 200 and answer["outputs"][0]["label"] == "退款"
        assert len(replicas(home)) == 1

        callers = Callers(tree.port, tree.KEY, n=4)
        until(lambda: len(replicas(home)) == 2)
        until(lambda: tree.call("GET", "/api/v1/services/tickets")[1]["service"]["replicas"] == 2)
        control = LocalRuntime(Home(home)).processes()["control"]["pid"]
        before = replicas(home)
        os.kill(control, signal.SIGKILL)
        until(lambda: tree.call("GET", "/control/alive")[0] == 200)
        until(lambda: len(callers.waits_s) and tree.call("GET", "/api/v1/services/tickets")[0] == 200)
        assert replicas(home) == before  # the same processes: a control process that starts again begins with what there is
        assert set(callers.stop()) == {200}

        until(lambda: not replicas(home))
        log = decisions(tree)
        steps = [(d["present"], d["wanted"]) for d in reversed(log) if d["present"] != d["wanted"]]
        assert steps[:3] == [(1, 0), (0, 1), (1, 2)] and steps[-1][1] == 0 and all(0 <= b <= 2 for _, b in steps)
        assert {"why-idle", "why-woken"} <= {d["reason"] for d in log} and all("{" not in d["why"] and not d["why"].startswith("scaling.") for d in log)
        raised = tree.call("POST", "/api/v1/services/tickets/scale", {"min": 1})[1]
        assert raised["service"]["replicas"] == 1 and len(replicas(home)) == 1
