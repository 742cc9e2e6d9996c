"""One process of ours on a machine of a cluster: what it needs is brought, it is started, looked at and stopped. Runs where the cluster puts it.

Everything that comes and goes is bytes or JSON, errors too. Who is not looked at for long ends: a studio that died leaves nothing behind.
Knows nothing of the cluster or of what the process does.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wenfang.core.errors import Broken
from wenfang.core.frames import from_error
from wenfang.core.places import read_place

from .processes import Child, spawn

__all__ = ["CERTIFICATE", "PLACE", "Agent", "file_of", "files_of", "node_folder"]

CERTIFICATE, PLACE = "certificate.pem", "place"
LOG_PIECE_BYTES = 16 << 10
UNUSED_S = 86_400.0
"""Files that nothing here uses are kept so long: the next version may share them."""


def node_folder() -> Path:
    """Where this machine keeps what it was brought, for this user only.

    Raises:
        Broken: `runtime.node-folder` when somebody else's folder lies there.
    """
    folder = Path(tempfile.gettempdir()) / f"wenfang-node-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise Broken("runtime.node-folder", path=str(folder))
    return folder


def file_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def files_of(folder: Path, below: str, pattern: str = "**/*") -> dict[str, tuple[Path, str]]:
    """What has to be brought: where it will lie, what it is here, and its SHA-256."""
    found = {p: file_of(p) for p in sorted(folder.glob(pattern)) if p.is_file()}
    return {f"{below}/{p.relative_to(folder).as_posix()}": (p, digest) for p, digest in found.items()}


class Agent:
    """Looks after one process.

    Args:
        name: of the process; its folder on this machine is named after it.
        lease_s: how long it may go without being looked at.
    """

    def __init__(self, name: str, lease_s: float) -> None:
        self.name = name
        self.lease_s = lease_s
        self._blobs = node_folder() / "blobs"
        self._blobs.mkdir(exist_ok=True)
        self._folder = node_folder() / f"{name}-{secrets.token_hex(4)}"
        self._folder.mkdir()
        self._child: Child | None = None
        self._digest = ""
        self._log_read = 0
        self._looked_at = time.monotonic()
        # the kernel ends a child with the *thread* that started it: one thread of ours starts them all and stays
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="agent-starter")
        threading.Thread(target=self._end_when_forgotten, name="agent-lease", daemon=True).start()

    # ------------------------------------------------------------ what is needed
    def missing(self, wanted: str) -> str:
        """Which of these digests (a JSON list) are not on this machine."""
        self._looked_at = time.monotonic()
        return json.dumps([digest for digest in json.loads(wanted) if not (self._blobs / digest).is_file()])

    def bring(self, digest: str, part: bytes, last: bool) -> str:
        """The next part of a file; returns an error as JSON, or nothing."""
        self._looked_at = time.monotonic()
        draft = self._folder / "draft"
        try:
            with open(draft, "ab") as f:
                f.write(part)
            if last:
                if file_of(draft) != digest:
                    draft.unlink()
                    raise Broken("runtime.carried-damaged", name=self.name)  # noqa: TRY301
                draft.chmod(0o600)
                draft.replace(self._blobs / digest)
        except (OSError, Broken) as e:
            return json.dumps(from_error(e))
        return ""

    # ------------------------------------------------------------ the process
    def start(self, call: str, certificate: bytes) -> str:
        """Start it (again); returns an error as JSON, or nothing.

        Args:
            call: JSON: ``entry``, ``arguments``, ``files`` (where they lie → digest), ``paths`` (argument → where in this process's folder) and
                ``digest`` of all of it. What ends in ``/`` among the paths is made as an empty folder.
            certificate: PEM that it and its callers hold; it lies here only while the process is wanted. Empty: none.
        """
        self._looked_at = time.monotonic()
        try:
            asked = json.loads(call)
            self._lay_out(asked["files"])
            if certificate:
                pem = self._folder / CERTIFICATE
                pem.touch(mode=0o600)
                pem.write_bytes(certificate)
            (self._folder / PLACE).unlink(missing_ok=True)
            for path in asked["paths"].values():
                if path.endswith("/"):
                    (self._folder / path).mkdir(parents=True, exist_ok=True)
            arguments = {**asked["arguments"], **{name: str(self._folder / path) for name, path in asked["paths"].items()}}
            if self._child is not None:
                self._child.close(0.0)
            self._child = self._starter.submit(spawn, asked["entry"], arguments, self._folder / "log").result()
            self._digest = asked["digest"]
        except (OSError, Broken) as e:
            return json.dumps(from_error(e))
        return ""

    def _lay_out(self, files: Mapping[str, str]) -> None:
        for name, digest in files.items():
            path = self._folder / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(self._blobs / digest, path)
        for blob in self._blobs.iterdir():  # what other processes here use has a second name
            status = blob.stat()
            if status.st_nlink == 1 and time.time() - status.st_mtime > UNUSED_S:
                blob.unlink(missing_ok=True)

    def look(self) -> str:
        """How it is, as JSON: ``running``, ``pid``, ``port`` once it listens, ``code``, ``error``, ``digest`` of what was started, ``log`` since the last look."""
        self._looked_at = time.monotonic()
        child = self._child
        if child is None:
            return json.dumps({"running": False, "pid": None, "port": None, "code": None, "error": None, "digest": "", "log": ""})
        code = child.popen.poll()
        return json.dumps({
            "running": code is None, "pid": child.pid, "port": self._port() if code is None else None, "code": code,
            "error": child.failure() if code is not None else None, "digest": self._digest, "log": self._new_log(child.log),
        })  # fmt: skip

    def _port(self) -> int | None:
        try:
            place = read_place(self._folder / PLACE)
        except FileNotFoundError:
            return None
        return place.port if place is not None else None

    def _new_log(self, log: Path) -> str:
        with open(log, "rb") as f:
            f.seek(self._log_read)
            data = f.read(LOG_PIECE_BYTES)
        self._log_read += len(data)
        return data.decode("utf-8", "replace")

    # ------------------------------------------------------------ what it made
    def made(self, below: str) -> str:
        """The files that lie below a folder of the process, as JSON: where → size."""
        self._looked_at = time.monotonic()
        top = self._folder / below
        return json.dumps({p.relative_to(top).as_posix(): p.stat().st_size for p in sorted(top.rglob("*")) if p.is_file() and not p.is_symlink()})

    def part(self, path: str, offset: int, size: int) -> bytes:
        """Bytes of one of its files; none: it is not there, or not that long."""
        self._looked_at = time.monotonic()
        try:
            with open(self._folder / path, "rb") as f:
                f.seek(offset)
                return f.read(size)
        except FileNotFoundError:
            return b""

    def stop(self, grace_s: float) -> None:
        """End it, and take away what was laid out for it."""
        if self._child is not None:
            self._child.close(grace_s)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_when_forgotten(self) -> None:
        while time.monotonic() - self._looked_at < self.lease_s:
            time.sleep(min(1.0, self.lease_s / 4))
        self.stop(5.0)
        os.kill(os.getpid(), signal.SIGKILL)  # the worker that the cluster lent us
