"""The small process above all others: starts children by name, watches them, starts them again, stops them in order.

Imports nothing heavy and opens no store: it must outlive every fault of what it watches. Knows nothing of what the children do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from wenfang.core.errors import BY_STATUS, Broken, Conflict, Unsupported, WenfangError
from wenfang.core.frames import from_error, listening_socket
from wenfang.core.home import Home, HomeLock

from .calls import serve_calls
from .processes import LOG_MAX_BYTES, rotate_log, spawn
from .renewal import renew
from .upgrading import BLOCKED, adopted_child, check_next, read_state, turn_into, write_state
from .watched import BACKOFF_FIRST_S, Process, Watched, told

__all__ = ["Process", "Supervisor", "supervise"]

BACKOFF_MAX_S = 10.0
ALIVE_RESETS_S = 30.0
STOOD_S = 5.0
"""One that lived so long did not fail in starting: it is started again at once, however often that was so."""
ORDER = ("queue", "gateway", "job", "replica", "control", "cluster")
"""Stopped in this order: first nothing new comes in, at last the one that keeps the books."""
GRACE_S = {"queue": 15.0, "gateway": 20.0, "job": 10.0, "replica": 5.0, "control": 10.0, "cluster": 15.0}
EXITED_KEPT = 200
log = logging.getLogger("wenfang.supervisor")


class Supervisor:
    """A tree of processes over one home.

    Args:
        home: prepared; its lock is held by the caller.
        again: the command that starts this program; empty: it cannot be upgraded.
    """

    def __init__(self, home: Home, again: Sequence[str] = ()) -> None:
        self.home = home
        self.again = [*again]
        self.handing_over = False
        self._watched: dict[str, Watched] = {}
        self._exited: deque[str] = deque()
        self._stopping = asyncio.Event()
        self._hurry = False
        self._fatal: dict[str, Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._refusal: dict[str, Any] | None = None
        """Why the last upgrade did not begin."""
        self._socket_fd = -1

    # ------------------------------------------------------------ one process
    def ensure(self, process: Process, *, first: bool = False) -> None:
        """Have it running; a no-op if it runs or waits for its next start."""
        if self._stopping.is_set():
            raise Conflict("runtime.shutting-down")
        known = self._watched.get(process.name)
        if known is not None and known.state == "stopping":
            known.successor = process
        elif known is None or known.state == "exited":
            watched = self._watched[process.name] = Watched(process, first)
            if known is not None:
                self._exited.remove(process.name)
            self._start(watched)

    def _start(self, watched: Watched) -> None:
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
        self._watch(watched)

    def _watch(self, watched: Watched) -> None:
        assert watched.child is not None
        pidfd = os.pidfd_open(watched.child.pid)
        asyncio.get_running_loop().add_reader(pidfd, self._exit_seen, watched, pidfd)

    def _exit_seen(self, watched: Watched, pidfd: int) -> None:
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

    def _after_exit(self, watched: Watched, alive_s: float) -> None:
        watched.gone.set()
        wanted = watched.state != "stopping" and watched.process.restart and not self._stopping.is_set()
        if wanted and watched.first and watched.starts == 1 and watched.error is not None and alive_s < ALIVE_RESETS_S:
            self._fatal = watched.error
            self._set_exited(watched)
            self._stopping.set()
        elif wanted:
            if alive_s >= STOOD_S:
                watched.backoff_s = BACKOFF_FIRST_S
            watched.state = "backing-off"
            asyncio.get_running_loop().call_later(watched.backoff_s, self._again, watched)
            watched.backoff_s = min(BACKOFF_MAX_S, watched.backoff_s * 2)
        else:
            self._set_exited(watched)
            if watched.successor is not None and not self._stopping.is_set():
                self.ensure(watched.successor)

    def _set_exited(self, watched: Watched) -> None:
        watched.state = "exited"
        self._exited.append(watched.process.name)
        while len(self._exited) > EXITED_KEPT:
            del self._watched[self._exited.popleft()]

    def _again(self, watched: Watched) -> None:
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

    async def _end(self, group: list[Watched], grace_s: float) -> None:
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
        if call in {"replace", "took-over"}:
            return (self.make_room if call == "replace" else self.took_over)(message["process"], int(message["pid"]))
        if call == "processes":
            return {name: w.as_message() for name, w in self._watched.items()}
        if call == "shutdown":
            return self.shutdown()
        if call == "upgrade":
            return self.upgrade()
        if call == "upgrade_state":
            return {"checking": self._checking is not None and not self._checking.done(), "refusal": self._refusal}
        raise Broken("runtime.unknown-call", socket="supervisor.sock", call=str(call)[:80])

    def shutdown(self) -> None:
        """Begin to stop everything in order; a second time: kill what is left."""
        self._hurry = self._stopping.is_set()
        self._stopping.set()

    def upgrade(self) -> None:
        """Begin to turn into the program that is installed now; the children go on and are then replaced.

        Raises:
            Unsupported: `runtime.no-upgrade`; Conflict: `runtime.upgrade-under-way`.
        """
        if not self.again:
            raise Unsupported("runtime.no-upgrade")
        if self.handing_over or any(task is not None and not task.done() for task in (self._renewing, self._checking)):
            raise Conflict("runtime.upgrade-under-way")
        self._refusal = None
        self._checking = asyncio.get_running_loop().create_task(self._turn())

    async def _turn(self) -> None:
        try:
            await asyncio.to_thread(check_next, self.again)
        except WenfangError as e:
            log.error("not upgraded: %s", e)  # noqa: TRY400 the sentence says it all
            self._refusal = from_error(e)
            return
        self.handing_over = True
        self._stopping.set()

    def state(self, lock_fd: int) -> dict[str, Any]:
        """What the next program must know."""
        children = [
            {**told(w), "restart": w.process.restart and w.state == "running", **w.child.told()}
            for w in self._watched.values()
            if w.child is not None and w.state in {"running", "stopping"}
        ]
        waiting = [told(w) for w in self._watched.values() if w.state == "backing-off"]
        return {"lock": lock_fd, "socket": self._socket_fd, "children": children, "waiting": waiting}

    def names(self, kind: str) -> list[str]:
        """Processes of a kind that run."""
        return sorted(name for name, w in self._watched.items() if w.process.kind == kind and w.state == "running")

    def state_of(self, name: str) -> str:
        """``running``, ``stopping``, ``backing-off`` or ``exited``."""
        return self._watched[name].state if name in self._watched else "exited"

    def begin_succession(self, name: str) -> str:
        """Start a successor beside a process; what the old one is called from now on."""
        if f"{name}~" in self._exited:  # of an earlier succession
            self._exited.remove(f"{name}~")
        old = self._watched.pop(name)
        process = old.process
        old.process = replace(process, name=f"{name}~", restart=False)
        self._watched[old.process.name] = old
        self.ensure(replace(process, arguments={**process.arguments, "succeeds": True}))
        return old.process.name

    def make_room(self, name: str, pid: int) -> bool:
        """Start a successor beside process ``name``, which goes on until ``took_over`` is said; False: it does not run as ``pid``, or its own predecessor has not left."""
        watched, before = self._watched.get(name), self._watched.get(f"{name}~")
        if watched is None or watched.state != "running" or watched.child is None or watched.child.pid != pid or self._stopping.is_set():
            return False
        if before is not None and before.state != "exited":
            return False
        log.info("%s, pid %d, gets a successor", name, pid)
        self.begin_succession(name)
        return True

    def took_over(self, name: str, pid: int) -> None:
        """The successor ``pid`` answers: its predecessor is told by SIGUSR1 to leave as soon as nobody needs it."""
        watched, before = self._watched.get(name), self._watched.get(f"{name}~")
        if watched is not None and watched.child is not None and watched.child.pid == pid and before is not None and before.child is not None:
            before.child.signal(signal.SIGUSR1)

    def take_back(self, name: str, old: str) -> None:
        """The successor is no good: end it, the old one has its name again."""
        new, before = self._watched.pop(name), self._watched.pop(old)
        new.process = replace(new.process, name=f"{name}!", restart=False)
        self._watched[new.process.name] = new
        self.stop(new.process.name, 0.0)
        before.process = replace(before.process, name=name, restart=True)
        self._watched[name] = before

    def start_again(self, name: str) -> None:
        """Stop a process and start it."""
        process = self._watched[name].process
        self.stop(name, GRACE_S.get(process.kind, 5.0))
        self.ensure(process)

    def adopt(self, state: dict[str, Any]) -> None:
        """Go on with the children of the program before."""
        for one in state["children"]:
            process = Process(one["name"], one["entry"], one["arguments"], one["restart"])
            watched = self._watched[process.name] = Watched(process, first=False, state="running", child=adopted_child(one), starts=one["starts"])
            self._watch(watched)
        for one in state["waiting"]:
            self.ensure(Process(one["name"], one["entry"], one["arguments"]))

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

    def _upgrade_asked(self) -> None:
        try:
            self.upgrade()
        except WenfangError as e:
            log.error("not upgraded: %s", e)  # noqa: TRY400 the sentence says it all

    async def run(self, processes: Sequence[Process], adopted: dict[str, Any] | None = None) -> None:
        """Start ``processes``, or go on with the ``adopted``; answer calls, and return when everything has been stopped or is handed over."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.shutdown)
        loop.add_signal_handler(signal.SIGUSR2, self._upgrade_asked)
        if adopted is None:
            self._remove_sockets()
        sock = listening_socket(self.home.run / "supervisor.sock") if adopted is None else socket.socket(fileno=adopted["socket"])
        self._socket_fd = os.dup(sock.fileno())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
        server = await serve_calls(sock, self.answer)
        rotation = loop.create_task(self._rotate_logs())
        try:
            if adopted is None:
                for process in processes:
                    self.ensure(process, first=True)
            else:
                self.adopt(adopted)
                self._renewing = loop.create_task(renew(self))
            await self._stopping.wait()
            if not self.handing_over:
                await self._stop_all()
        finally:
            rotation.cancel()
            if self._renewing is not None:
                self._renewing.cancel()
            server.close()
            if self.handing_over:
                signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
            else:
                self._remove_sockets()
                os.close(self._socket_fd)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
                loop.remove_signal_handler(number)
        if self._fatal is not None:
            raise BY_STATUS.get(self._fatal["status"], Broken)(self._fatal["code"], **self._fatal["fields"])


def supervise(home: Home, processes: Sequence[Process], *, again: Sequence[str] = (), state: Path | None = None) -> None:
    """Hold the home and run the process tree until SIGTERM, SIGINT or a ``shutdown`` call; children are stopped in order first.

    Args:
        home: prepared.
        processes: started at once; if one of them refuses its first start, everything is stopped and its error is raised.
        again: the command that starts this program, for an upgrade.
        state: what the program before has written down: its children live, and ``processes`` are among them.

    Raises:
        Conflict: `home.in-use`, or what a first process refused with (such as `gateway.port-in-use`).
    """
    adopted = read_state(state) if state is not None else None
    with HomeLock(home) if adopted is None else HomeLock.inherited(home, adopted["lock"]) as lock:
        notes = RotatingFileHandler(home.logs / "processes.log", maxBytes=LOG_MAX_BYTES, backupCount=1, encoding="utf-8", delay=True)
        notes.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(notes)
        log.setLevel(logging.INFO)
        try:
            while True:
                supervisor = Supervisor(home, again)
                asyncio.run(supervisor.run(processes, adopted))
                if not supervisor.handing_over:
                    break
                path = write_state(home.run, supervisor.state(lock.fileno()))
                try:
                    turn_into(supervisor.again, path)
                except OSError as e:
                    log.error("not upgraded: %s", e)  # noqa: TRY400 the sentence says it all
                    adopted = read_state(path)
        finally:
            log.removeHandler(notes)
            notes.close()
