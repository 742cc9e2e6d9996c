"""What runs first in every process of the tree: ``python -m wenfang.runtimes.child ENTRY JSON PARENT FD``.

Ties its life to the parent's, then calls the entry. Knows nothing of what the entry does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from wenfang.core.discreet import begin_log
from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import from_error, pack

__all__ = ["EXIT_REFUSED", "die_with", "main", "resolve"]

EXIT_REFUSED = 78
"""The entry raised one of our errors: its frame lies in the pipe."""
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` dies, however it dies. Linux only; elsewhere nothing happens.

    The request must be made after the fork, so the parent may already be gone: then the new parent is somebody else.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def resolve(entry: str) -> Callable[[dict[str, Any]], None]:
    """The function ``module:function``.

    Raises:
        Broken: `runtime.no-entry`.
    """
    module, _, function = entry.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as e:
        raise Broken("runtime.no-entry", entry=entry, reason=str(e)) from e


def main(argv: list[str]) -> int:
    """Run one entry; returns the exit code."""
    entry, arguments, parent, fd = argv
    die_with(int(parent))
    failure = int(fd)
    os.set_inheritable(failure, False)
    begin_log()
    try:
        resolve(entry)(json.loads(arguments))
    except WenfangError as e:
        print(e, file=sys.stderr, flush=True)  # noqa: T201 stderr is the log of this process
        os.write(failure, pack(from_error(e))[:60_000])  # less than a pipe holds: never blocks
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
