"""The small process above all others: starts children by name, watches them, starts them again, stops them in order.

Imports nothing heavy and opens no store: it must outlive every fault of what it watches. Knows nothing of what the children do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from typing import Any

from wenfang.core.errors import BY_STATUS, Broken, Conflict, WenfangError
from wenfang.core.frames import from_error
from wenfang.core.home import Home, HomeLock

from .calls import serve_calls
from .processes import LOG_MAX_BYTES, Child, rotate_log, spawn

__all__ = ["Process", "Supervisor", "supervise"]

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
ALIVE_RESETS_S = 30.0
ORDER = ("gateway", "job", "replica", "control", "cluster")
"""Stopped in this order: first nothing new comes in, at last the one that keeps the books."""
GRACE_S = {"gateway": 20.0, "job": 10.0, "replica": 5.0, "control": 10.0, "cluster": 15.0}
EXITED_KEPT = 200
log = logging.getLogger("wenfang.supervisor")


@dataclass(frozen=True, slots=True)
class Process:
    """What to run under a name; the part before the first ``-`` says when it is stopped."""

    name: str
    entry: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    restart: bool = True

    @property
    def kind(self) -> str:
        """``gateway`` of ``gateway-0``."""
        return self.name.partition("-")[0]


@dataclass(slots=True)
class _Watched:
    process: Process
    first: bool
    """Named at the start of the tree: if its first start is refused, the tree cannot stand."""
    state: str = "starting"
    child: Child | None = None
    code: int | None = None
    error: dict[str, Any] | None = None
    starts: int = 0
    backoff_s: float = BACKOFF_FIRST_S
    successor: Process | None = None
    """Asked for while this one was still stopping."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def as_message(self) -> dict[str, Any]:
        child = self.child
        return {
            "pid": child.pid if child is not None and self.state in {"running", "stopping"} else None,
            "state": self.state,
            "code": self.code,
            "starts": self.starts,
            "started_at": child.started_at if child else None,
            "error": self.error,
        }


class Supervisor:
    """A tree of processes over one home.

    Args:
        home: prepared; its lock is held by the caller.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._watched: dict[str, _Watched] = {}
        self._exited: deque[str] = deque()
        self._stopping = asyncio.Event()
        self._hurry = False
        self._fatal: dict[str, Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ one process
    def ensure(self, process: Process, *, first: bool = False) -> None:
        """Have it running; a no-op if it runs or waits for its next start."""
        if self._stopping.is_set():
            raise Conflict("runtime.shutting-down")
        known = self._watched.get(process.name)
        if known is not None and known.state == "stopping":
            known.successor = process
        elif known is None or known.state == "exited":
            watched = self._watched[process.name] = _Watched(process, first)
            if known is not None:
                self._exited.remove(process.name)
            self._start(watched)

    def _start(self, watched: _Watched) -> None:
        process = watched.process
        watched.starts += 1
        watched.gone.clear()
        try:
            watched.child = spawn(process.entry, process.arguments, self.home.logs / f"{process.name}.log")
        except WenfangError as e:
            watched.error = from_error(e)
            self._after_exit(watched, alive_s=0.0)
            return
        watched.state = "running"
        log.info("started %s, pid %d", process.name, watched.child.pid)
        pidfd = os.pidfd_open(watched.child.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, self._exit_seen, watched, pidfd)

    def _exit_seen(self, watched: _Watched, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        assert watched.child is not None
        with suppress(ProcessLookupError):  # not reaped yet, so the number is still its own: what it left behind goes too
            os.killpg(watched.child.pid, signal.SIGKILL)
        watched.code = watched.child.popen.wait()
        watched.error = watched.child.failure()
        alive_s = time.time() - watched.child.started_at
        log.info("%s ended with code %s after %.1f s", watched.process.name, watched.code, alive_s)
        self._after_exit(watched, alive_s)

    def _after_exit(self, watched: _Watched, alive_s: float) -> None:
        watched.gone.set()
        wanted = watched.state != "stopping" and watched.process.restart and not self._stopping.is_set()
        if wanted and watched.first and watched.starts == 1 and watched.error is not None and alive_s < ALIVE_RESETS_S:
            self._fatal = watched.error
            self._set_exited(watched)
            self._stopping.set()
        elif wanted:
            if alive_s >= ALIVE_RESETS_S:
                watched.backoff_s = BACKOFF_FIRST_S
            watched.state = "backing-off"
            asyncio.get_running_loop().call_later(watched.backoff_s, self._again, watched)
            watched.backoff_s = min(BACKOFF_MAX_S, watched.backoff_s * 2)
        else:
            self._set_exited(watched)
            if watched.successor is not None and not self._stopping.is_set():
                self.ensure(watched.successor)

    def _set_exited(self, watched: _Watched) -> None:
        watched.state = "exited"
        self._exited.append(watched.process.name)
        while len(self._exited) > EXITED_KEPT:
            del self._watched[self._exited.popleft()]

    def _again(self, watched: _Watched) -> None:
        if watched.state == "backing-off" and not self._stopping.is_set():
            self._start(watched)

    def stop(self, name: str, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns at once."""
        watched = self._watched.get(name)
        if watched is None:
            return
        watched.successor = None
        if watched.state == "backing-off":
            self._set_exited(watched)
        elif watched.state == "running":
            watched.state = "stopping"
            task = asyncio.get_running_loop().create_task(self._end([watched], grace_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end(self, group: list[_Watched], grace_s: float) -> None:
        for watched in group:
            assert watched.child is not None
            watched.child.signal(signal.SIGTERM)
        until = time.monotonic() + grace_s
        while not self._hurry and time.monotonic() < until and not all(w.gone.is_set() for w in group):
            await asyncio.sleep(0.02)
        for watched in group:
            if not watched.gone.is_set() and watched.child is not None:
                log.warning("%s did not stop in time: killed", watched.process.name)
                watched.child.signal(signal.SIGKILL)
                await watched.gone.wait()

    # ------------------------------------------------------------ the tree
    def answer(self, message: dict[str, Any]) -> Any:
        """One call of the socket."""
        call = message.pop("call", None)
        if call == "ensure":
            return self.ensure(Process(message["process"], message["entry"], message["arguments"], bool(message["restart"])))
        if call == "stop":
            return self.stop(message["process"], float(message["grace_s"]))
        if call == "processes":
            return {name: w.as_message() for name, w in self._watched.items()}
        if call == "shutdown":
            return self.shutdown()
        raise Broken("runtime.unknown-call", socket="supervisor.sock", call=str(call)[:80])

    def shutdown(self) -> None:
        """Begin to stop everything in order; a second time: kill what is left."""
        self._hurry = self._stopping.is_set()
        self._stopping.set()

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            for watched in self._watched.values():
                if watched.child is not None and watched.state == "running":
                    try:
                        rotate_log(watched.child.log)
                    except WenfangError as e:  # a full disk must not end the supervisor
                        log.warning("could not rotate %s: %s", watched.child.log, e)

    async def _stop_all(self) -> None:
        kinds = (*ORDER, *{w.process.kind for w in self._watched.values()} - set(ORDER))
        for kind in kinds:
            group = [w for w in self._watched.values() if w.process.kind == kind and w.state in {"running", "stopping"}]
            for watched in group:
                watched.state = "stopping"
            if group:
                await self._end(group, GRACE_S.get(kind, 5.0))

    def _remove_sockets(self) -> None:
        """The lock is ours and no child lives: nobody listens there, whoever left them."""
        for stale in self.home.run.glob("*.sock*"):
            stale.unlink(missing_ok=True)

    async def run(self, processes: Sequence[Process]) -> None:
        """Start ``processes``, answer calls, and return when everything has been stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.shutdown)
        path = self.home.run / "supervisor.sock"
        self._remove_sockets()
        server = await serve_calls(path, self.answer)
        rotation = loop.create_task(self._rotate_logs())
        try:
            for process in processes:
                self.ensure(process, first=True)
            await self._stopping.wait()
            await self._stop_all()
        finally:
            rotation.cancel()
            server.close()
            self._remove_sockets()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self._fatal is not None:
            raise BY_STATUS.get(self._fatal["status"], Broken)(self._fatal["code"], **self._fatal["fields"])


def supervise(home: Home, processes: Sequence[Process]) -> None:
    """Hold the home and run the process tree until SIGTERM, SIGINT or a ``shutdown`` call; children are stopped in order first.

    Args:
        home: prepared.
        processes: started at once; if one of them refuses its first start, everything is stopped and its error is raised.

    Raises:
        Conflict: `home.in-use`, or what a first process refused with (such as `gateway.port-in-use`).
    """

    async def tree() -> None:
        await Supervisor(home).run(processes)

    with HomeLock(home):
        notes = RotatingFileHandler(home.logs / "processes.log", maxBytes=LOG_MAX_BYTES, backupCount=1, encoding="utf-8", delay=True)
        notes.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(notes)
        log.setLevel(logging.INFO)
        try:
            asyncio.run(tree())
        finally:
            log.removeHandler(notes)
            notes.close()
