"""Bytes that survive a crash: write = temporary file + fsync + rename + directory fsync.

Every step passes a counted crash point. A test sets ``WENFANG_CRASH_AT=n`` and the process kills itself (SIGKILL) at the n-th
point, so that every possible half state can be produced and inspected; ``WENFANG_CRASH_LOG=FILE`` only lists the points.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from .errors import Broken

__all__ = ["crash_point", "disk_error", "fsync_folder", "publish_file", "write_file"]

_count = 0
_lock = threading.Lock()


def crash_point(step: str) -> None:
    """A place where a test may kill this process; does nothing otherwise.

    Cost: two dictionary look-ups.
    """
    at, log = os.environ.get("WENFANG_CRASH_AT"), os.environ.get("WENFANG_CRASH_LOG")
    if at is None and log is None:
        return
    global _count
    with _lock:
        _count += 1
        if log is not None:
            with open(log, "a", encoding="utf-8") as f:
                f.write(f"{_count} {step}\n")
        if at is not None and _count == int(at):
            os.kill(os.getpid(), signal.SIGKILL)


def disk_error(e: OSError, path: Path | str) -> Broken:
    """Our error for a failed write: disk full, no permission, read-only."""
    return Broken("home.write-failed", path=str(path), reason=e.strerror or str(e))


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        crash_point("fsync-folder")
        os.fsync(fd)
    finally:
        os.close(fd)


def publish_file(temporary: Path, path: Path) -> None:
    """Fsync a finished temporary file and rename it to ``path`` (same file system), durably."""
    with open(temporary, "rb+") as f:
        crash_point("fsync")
        os.fsync(f.fileno())
    crash_point("rename")
    temporary.replace(path)
    fsync_folder(path.parent)


def write_file(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Write ``path`` so that after a crash it holds either its old bytes or all the new ones.

    Raises:
        Broken: `home.write-failed`; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(fd, "wb") as f:
            os.fchmod(f.fileno(), mode)
            crash_point("write")
            for chunk in (data,) if isinstance(data, bytes) else data:
                f.write(chunk)
        publish_file(temporary, path)
        temporary = None
    except OSError as e:
        raise disk_error(e, path) from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
