"""How much memory a replica may take, and how much it has taken. Linux only; elsewhere nothing is limited and nothing grows.

The cap is the kernel's on writable data (``RLIMIT_DATA``): an allocation beyond it fails before a page of it is touched, so that one
model cannot have the kernel kill others. Files that are mapped and only read do not count: the kernel takes those pages back by itself.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import sys
from pathlib import Path

from wenfang.core.errors import Conflict, WenfangError

__all__ = ["cap_memory", "held_bytes", "memory_error", "memory_there"]

RESERVE_SHARE = 0.03
RESERVE_BYTES = 64 << 20
"""Left to everybody else, at least."""
_CGROUP = Path("/sys/fs/cgroup")
log = logging.getLogger("wenfang.replica")


def memory_there() -> tuple[int, int]:
    """Bytes this process could still take without anybody being killed for it, and of how many; of the machine or of its control group, whatever is less."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if ":" in line)
    free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    try:
        most = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        held = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no control group of our own, or one without a limit ("max")
        return free, total
    return min(free, max(0, most - held)), min(total, most)


def _data_bytes() -> int:
    """Writable data of this process, touched or not."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * os.sysconf("SC_PAGE_SIZE")


def held_bytes() -> int:
    """Memory that is this process's alone, about.

    Cost: 30 to 90 microseconds.
    """
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:  # not Linux
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def cap_memory(memory_bytes: int = 0) -> int:
    """Have allocations fail beyond ``memory_bytes``, and beyond what the machine has now less a reserve; the cap, 0 where there is none.

    Args:
        memory_bytes: 0: only the machine limits.
    """
    if not sys.platform.startswith("linux"):
        return 0
    there, total = memory_there()
    machine = _data_bytes() + max(0, there - max(RESERVE_BYTES, int(RESERVE_SHARE * total)))
    cap = min(memory_bytes, machine) if memory_bytes else machine
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        cap = min(cap, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, hard))
    log.info("memory is capped at %d MiB", cap >> 20)
    return cap


def memory_error(error: BaseException, name: str, cap_bytes: int) -> WenfangError | None:
    """What to tell of a model that met the cap while it was loaded; None: ``error`` is about something else.

    Args:
        error: raised by whatever library loads it; their words for no memory are many.
        name: of the model version.
        cap_bytes: see ``cap_memory``.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or getattr(seen, "errno", None) == errno.ENOMEM or _says_so(str(seen)):
            return Conflict("serve.memory-short", model=name, cap_mb=cap_bytes >> 20)
        seen = seen.__cause__ or seen.__context__
    return None


def _says_so(words: str) -> bool:
    words = words.lower()
    return "alloc" in words and any(word in words for word in ("memory", "bad", "fail", "unable"))
