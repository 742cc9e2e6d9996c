"""Starts one child process named by an entry string, and hears why it failed. Knows nothing of trees or restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wenfang.core.durable import disk_error
from wenfang.core.errors import Broken

from .child import EXIT_REFUSED

__all__ = ["LOG_MAX_BYTES", "Child", "rotate_log", "spawn"]

LOG_MAX_BYTES = 16 << 20


class Child:
    """One started process.

    Args:
        popen: the process.
        failure_fd: reading end of the pipe in which the child leaves the error it refused to run with.
        log: where its stdout and stderr go.
    """

    def __init__(self, popen: subprocess.Popen[bytes], failure_fd: int, log: Path) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.log = log
        self.started_at = time.time()
        self._failure_fd = failure_fd
        self._failure: dict[str, Any] | None = None

    def failure(self) -> dict[str, Any] | None:
        """After its exit: the error the entry raised, as ``from_error`` packs it; None if it died otherwise."""
        if self._failure_fd >= 0:
            data = os.read(self._failure_fd, 1 << 16)
            os.close(self._failure_fd)
            self._failure_fd = -1
            if self.popen.poll() == EXIT_REFUSED and len(data) > 4:
                self._failure = _unpacked(data)
        return self._failure

    def told(self) -> dict[str, Any]:
        """What another program of this process must know to go on with it."""
        return {"pid": self.pid, "started_at": self.started_at, "log": str(self.log), "failure_fd": self._failure_fd}

    def signal(self, number: int) -> None:
        """Send a signal; a no-op when the process is gone."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def cpu_s(self) -> float:
        """Processor time of all its threads so far; 0 when it is gone."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # a thread has just ended
                total += int(task.read_text(encoding="ascii").split()[0])
        return total / 1e9

    def memory_bytes(self) -> int:
        """Proportional memory (PSS) of the process now; 0 when it is gone."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        return 0

    def close(self, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns when it is gone."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.failure()


def _unpacked(data: bytes) -> dict[str, Any] | None:
    import msgspec

    try:
        return msgspec.msgpack.decode(data[4:], type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def spawn(entry: str, arguments: Mapping[str, Any], log: Path) -> Child:
    """Start ``module:function`` in a process of its own that dies with the calling thread's process.

    The child is in a session of its own: Ctrl-C at the terminal reaches only the parent, which then stops its children in order.
    Call it from a thread that lives as long as the process (the kernel ties the child to the *thread* that started it).

    Args:
        entry: ``module:function``; called with one dictionary.
        arguments: JSON values.
        log: file to which stdout and stderr are appended.

    Raises:
        Broken: `runtime.start-failed` (no memory, no more processes), `home.write-failed` (the log).
    """
    reading, writing = os.pipe()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as e:
        os.close(reading)
        os.close(writing)
        raise disk_error(e, log) from e
    command = [sys.executable, "-m", "wenfang.runtimes.child", entry, json.dumps(dict(arguments)), str(os.getpid()), str(writing)]
    try:
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(writing,), start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    except OSError as e:
        os.close(reading)
        raise Broken("runtime.start-failed", name=entry, reason=e.strerror or str(e), log=str(log)) from e
    finally:
        os.close(out)
        os.close(writing)
    return Child(popen, reading, log)


def rotate_log(log: Path, max_bytes: int = LOG_MAX_BYTES) -> None:
    """Keep a log below ``max_bytes``: its bytes move to ``<log>.1``. The writer appends, so it goes on at the new end.

    What is written in the instant between copy and cut is lost: logs are for people, nothing reads them back.
    """
    try:
        if log.stat().st_size <= max_bytes:
            return
        with open(log, "rb+") as f, open(log.with_name(log.name + ".1"), "wb") as old:
            while chunk := f.read(1 << 20):
                old.write(chunk)
            f.truncate(0)
    except FileNotFoundError:
        return
    except OSError as e:
        raise disk_error(e, log) from e
