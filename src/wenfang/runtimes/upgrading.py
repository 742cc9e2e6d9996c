"""How a supervisor turns into its next version while its children go on: what it knows is written down, the same process runs the new program.

A process that replaces its program keeps its number, its open files and its children; the kernel does not take it for dead. Knows nothing
of what the children do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wenfang.core.errors import Broken

from .processes import Child

__all__ = ["BLOCKED", "Adopted", "adopted_child", "check_next", "read_state", "turn_into", "write_state"]

CHECK_TIMEOUT_S = 60.0
BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Wait while nobody listens to them: each would end the process."""
STATE_FILE = "upgrade.json"


class Adopted(subprocess.Popen[bytes]):
    """A child that an earlier program of this process started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode = None  # pyright: ignore[reportIncompatibleVariableOverride,reportAttributeAccessIssue]
        self.args = f"pid {pid}"
        self.stdin = self.stdout = self.stderr = None

    def __del__(self, *_: object, **__: object) -> None:
        """Nothing: the supervisor reaps it."""

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, signal.SIGKILL  # somebody else reaped it
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, sig: int) -> None:
        """A no-op when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


def adopted_child(told: dict[str, Any]) -> Child:
    """A child as it was written down."""
    if told["failure_fd"] >= 0:
        os.set_inheritable(told["failure_fd"], False)
    child = Child(Adopted(told["pid"]), told["failure_fd"], Path(told["log"]))
    child.started_at = told["started_at"]
    return child


def check_next(command: list[str]) -> None:
    """Find out whether the program that would come next runs at all, before this one is gone.

    Raises:
        Broken: `runtime.upgrade-refused`.
    """
    try:
        done = subprocess.run([*command, "--check"], capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as e:
        said = str(e)
    if said:
        raise Broken("runtime.upgrade-refused", reason=said)


def write_state(run: Path, state: dict[str, Any]) -> Path:
    """Write down what the next program must know; its files stay open for it."""
    for fd in (state["lock"], state["socket"], *(c["failure_fd"] for c in state["children"])):
        if fd >= 0:
            os.set_inheritable(fd, True)
    path = run / STATE_FILE
    path.write_text(json.dumps(state), encoding="utf-8")
    return path


def read_state(path: Path) -> dict[str, Any]:
    """What the program before wrote down; it is read once."""
    state = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    for fd in (state["lock"], state["socket"]):
        os.set_inheritable(fd, False)
    return state


def turn_into(command: list[str], state: Path) -> None:
    """Run another program in this very process; returns only if that cannot be begun.

    Raises:
        OSError: the program is not there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], [*command, str(state)])  # noqa: S606 our own interpreter
