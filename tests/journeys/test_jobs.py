"""Jobs survive what happens to their process: death, silence, cancellation, a restart of the control process."""

import os
import signal
import time

import pytest

from worlds import Tree, alive, separable, write_csv

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def tree(tmp_path):
    with Tree(tmp_path / "home", WENFANG_JOBS__HEARTBEAT_S="4") as tree:
        yield tree


def start(tree, tmp_path, budget_s):
    path = write_csv(tmp_path / "t.csv", separable(200))
    status, upload, _ = tree.call("POST", "/api/v1/uploads?file_name=t.csv", path.read_bytes(), headers={"Content-Type": "application/octet-stream"})
    assert status == 200
    status, job, headers = tree.call("POST", "/api/v1/selections/run", {"train": f"upload:{upload['id']}", "budget_s": budget_s, "families": ["majority", "linear"]})
    assert status == 202 and headers["location"].endswith(job["id"])
    return job["id"]


def wait(tree, job, states, timeout=90):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        shown = tree.call("GET", f"/api/v1/jobs/{job}")[1]
        if shown["job"]["state"] in states:
            return shown
        time.sleep(0.1)
    raise AssertionError(shown)


def pid_of(tree, job, other_than=None, timeout=30):
    from wenfang.core.home import Home
    from wenfang.runtimes.local import LocalRuntime

    until = time.monotonic() + timeout
    while time.monotonic() < until:
        pid = LocalRuntime(Home(tree.home)).processes().get(f"job-{job}", {}).get("pid")
        if pid and pid != other_than:
            return pid
        time.sleep(0.05)
    raise AssertionError("no process")


def test_a_job_whose_process_is_killed_or_falls_silent_is_started_again(tree, tmp_path):
    job = start(tree, tmp_path, 6)
    pid = pid_of(tree, job)
    time.sleep(1.5)
    os.kill(pid, signal.SIGSTOP)
    again = pid_of(tree, job, other_than=pid)
    assert again != pid
    shown = wait(tree, job, {"done", "failed"})
    assert shown["job"]["state"] == "done" and shown["job"]["attempts"] == 2 and shown["job"]["answer"]["family"] in {"majority", "linear"}
    assert len(tree.call("GET", "/api/v1/models")[1]["versions"]) == 1


def test_a_job_that_dies_every_time_fails_and_says_so(tree, tmp_path):
    job = start(tree, tmp_path, 60)
    pid = None
    for _ in range(2):
        pid = pid_of(tree, job, other_than=pid)
        os.kill(pid, signal.SIGKILL)
    shown = wait(tree, job, {"failed"})
    assert shown["job"]["error"]["code"] == "job.died"
    assert tree.call("GET", "/api/v1/models")[1]["versions"] == []


def test_a_cancelled_job_stops_and_writes_nothing(tree, tmp_path):
    job = start(tree, tmp_path, 60)
    pid = pid_of(tree, job)
    assert tree.call("POST", f"/api/v1/jobs/{job}/cancel", {})[1]["state"] == "cancelled"
    until = time.monotonic() + 20
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)
    assert tree.call("GET", "/api/v1/models")[1]["versions"] == []
    assert tree.call("POST", f"/api/v1/jobs/{job}/cancel", {})[0] == 409


def test_a_job_goes_on_while_the_control_process_is_killed(tree, tmp_path):
    from wenfang.core.home import Home
    from wenfang.runtimes.local import LocalRuntime

    job = start(tree, tmp_path, 6)
    pid_of(tree, job)
    time.sleep(1.0)
    os.kill(LocalRuntime(Home(tree.home)).processes()["control"]["pid"], signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status, shown, _ = tree.call("GET", f"/api/v1/jobs/{job}")
        if status == 200 and shown["job"]["state"] == "done":
            break
        time.sleep(0.2)
    assert status == 200 and shown["job"]["state"] == "done" and shown["job"]["attempts"] == 1
