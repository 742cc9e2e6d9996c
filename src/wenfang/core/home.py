"""The home: one folder that holds an installation, and the lock that lets one process tree use it at a time."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .errors import Broken, Conflict

__all__ = ["Home", "HomeLock"]


@dataclass(frozen=True, slots=True)
class Home:
    """Where things lie under the home folder. ``cache/`` and ``run/`` are disposable."""

    root: Path

    @property
    def database(self) -> Path:
        """Tables of the embedded default."""
        return self.root / "studio.db"

    @property
    def blobs(self) -> Path:
        """Content-addressed files."""
        return self.root / "blobs"

    @property
    def cache(self) -> Path:
        """Unpacked bundles by hash."""
        return self.root / "cache"

    @property
    def jobs(self) -> Path:
        """Working files and logs, one folder a job."""
        return self.root / "jobs"

    @property
    def pretrained(self) -> Path:
        """Local pretrained directories, by name."""
        return self.root / "pretrained"

    @property
    def keys(self) -> Path:
        """Private keys of this installation, mode 0700."""
        return self.root / "keys"

    @property
    def run(self) -> Path:
        """Sockets, pids, the routing table."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Log files of the process tree."""
        return self.root / "logs"

    @property
    def control_socket(self) -> Path:
        """HTTP over a Unix socket: the control process; it is there while ``wenfang up`` runs."""
        return self.run / "control.sock"

    def prepare(self) -> Home:
        """Create the folders.

        Raises:
            Broken: `home.not-writable`, `home.path-too-long` (a Unix socket's path may have 107 bytes).
        """
        if len(os.fsencode(str(self.run.absolute()))) > 80:
            raise Broken("home.path-too-long", path=str(self.root), max_bytes=76)
        try:
            for folder in (self.root, self.blobs, self.cache, self.jobs, self.run, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            self.keys.mkdir(mode=0o700, exist_ok=True)
            self.run.chmod(0o700)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as e:
            raise Broken("home.not-writable", path=str(self.root), reason=e.strerror or str(e)) from e
        return self


class HomeLock:
    """An exclusive lock on a home; the kernel frees it when the process dies, however it dies.

    Raises:
        Conflict: `home.in-use`, with the process id of the holder.
    """

    def __init__(self, home: Home) -> None:
        self.path = home.root / "lock"
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "?"
            os.close(fd)
            raise Conflict("home.in-use", path=str(home.root), pid=holder) from e
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    @classmethod
    def inherited(cls, home: Home, fd: int) -> Self:
        """The lock that an earlier program of this process holds."""
        lock = cls.__new__(cls)
        lock.path, lock._fd = home.root / "lock", fd
        return lock

    def fileno(self) -> int:
        """The open file that holds it."""
        return self._fd

    def release(self) -> None:
        """Give the home back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
