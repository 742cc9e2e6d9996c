"""Replicas without a supervisor: what selection measures is what serving serves, a real process behind a real socket."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import BY_STATUS, Broken
from wenfang.core.examples import Output
from wenfang.core.frames import recv_frame, send_frame
from wenfang.core.text import encodable

from .processes import Child, spawn

__all__ = ["LocalReplica", "LocalReplicaHost"]

_OUTPUTS = list[Output]


class LocalReplica:
    """One replica process; one caller at a time.

    Args:
        child: its process.
        sock: connected, ``hello`` already read.
        folder: temporary, goes with it.
        hello: what it said of itself.
    """

    def __init__(self, child: Child, sock: socket.socket, folder: tempfile.TemporaryDirectory[str], hello: dict[str, Any]) -> None:
        self.hello = hello
        self._child = child
        self._sock = sock
        self._folder = folder
        self._ids = itertools.count()

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each text, in order: a real round trip.

        Raises:
            Broken: `process.not-answering` when the process died; `serve.model-failed`.
        """
        return self._ask({"texts": [encodable(t) for t in texts], "top_k": top_k})

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each pair, in order; raises what ``predict`` does."""
        return self._ask({"texts": [encodable(t) for t in texts], "texts_b": [encodable(t) for t in texts_b], "top_k": top_k})

    def generate(self, texts: Sequence[str], options: Sequence[Generation]) -> list[Output]:
        """One generated text for each, in order; raises what ``predict`` does. ``predict`` asks a generating model with options of its own."""
        return self._ask({"texts": [encodable(t) for t in texts], "options": list(options)})

    def _ask(self, question: dict[str, Any]) -> list[Output]:
        try:
            send_frame(self._sock, {"type": "ask", "id": next(self._ids), **question})
            while (reply := recv_frame(self._sock))["type"] != "answer":
                pass  # a sign of life
        except (OSError, EOFError) as e:
            raise Broken("process.not-answering", socket="replica", reason=str(e)) from e
        for error in reply["errors"].values():
            raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
        return msgspec.convert(reply["outputs"], _OUTPUTS)

    def memory_bytes(self) -> int:
        """Proportional memory (PSS) of the process now."""
        return self._child.memory_bytes()

    def cpu_s(self) -> float:
        """Processor time of the process so far."""
        return self._child.cpu_s()

    @property
    def path(self) -> Path:
        """Its socket: others may call it, too."""
        return Path(self._folder.name) / "s"

    def close(self) -> None:
        """Stop it."""
        self._sock.close()
        self._child.close()
        self._folder.cleanup()


class LocalReplicaHost:
    """Starts replicas as processes of this machine.

    Args:
        keys: folder of the trusted public keys.
        entry: ``module:function`` of the replica process.
        start_timeout_s: until it must answer.
        arguments: more arguments for the entry.
    """

    def __init__(self, keys: Path, *, entry: str = "wenfang.serve.replica:main", start_timeout_s: float = 120.0, arguments: Mapping[str, Any] | None = None) -> None:
        self.keys = keys
        self.entry = entry
        self.start_timeout_s = start_timeout_s
        self.arguments = dict(arguments or {})
        # the kernel ends a child with the *thread* that started it: one thread of ours starts them all and stays
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="replica-starter")

    def spawn(self, entry: str, arguments: Mapping[str, Any], log: Path) -> Child:
        """Start any process of ours, ``module:function``; it ends with this one.

        Raises:
            Broken: `runtime.start-failed`.
        """
        return self._starter.submit(spawn, entry, arguments, log).result()

    def start(self, bundle: Path, **arguments: Any) -> LocalReplica:
        """Start a replica of the unpacked bundle and wait until it answers.

        Args:
            bundle: its folder.
            arguments: for the entry, over the host's own.

        Raises:
            WenfangError: what the replica refused with (`bundle.bad-signature` ...).
            Broken: `runtime.child-died`, `runtime.not-ready`.
        """
        folder = tempfile.TemporaryDirectory(prefix="wf-")
        path, log = Path(folder.name) / "s", Path(folder.name) / "log"
        try:
            given = {"bundle": str(bundle), "socket": str(path), "keys": str(self.keys), "name": bundle.name, **self.arguments, **arguments}
            child = self.spawn(self.entry, given, log)
            try:
                sock = self._connected(child, path, log)
                return LocalReplica(child, sock, folder, recv_frame(sock))
            except BaseException:
                child.close(0.0)
                raise
        except BaseException:
            folder.cleanup()
            raise

    def _connected(self, child: Child, path: Path, log: Path) -> socket.socket:
        until = time.monotonic() + self.start_timeout_s
        while True:
            code = child.popen.poll()
            if code is not None:
                if error := child.failure():
                    raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
                raise Broken("runtime.child-died", name="replica", code=code, log=_tail(log))
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(60.0)
            try:
                sock.connect(os.fspath(path))
                return sock
            except OSError:
                sock.close()
            if time.monotonic() > until:
                raise Broken("runtime.not-ready", name="replica", timeout_s=self.start_timeout_s, log=_tail(log))
            time.sleep(0.01)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return lines[-1][:300] if lines else str(log)
