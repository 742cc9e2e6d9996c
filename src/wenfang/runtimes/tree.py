"""The process ``wenfang up`` turns into: ``python -m wenfang.runtimes.tree JSON``. Says when the tree answers, and why if it cannot stand."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from wenfang.core.errors import WenfangError
from wenfang.core.home import Home
from wenfang.core.words import say

from .child import resolve
from .supervisor import Process, supervise

__all__ = ["main", "wait_ready"]


def wait_ready(host: str, port: int, timeout_s: float) -> bool:
    """Whether the gateway and the control process behind it answer 200 within the time."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(host, port, timeout=2.0)
        try:
            if all(_status(connection, path) == 200 for path in ("/readyz", "/control/alive")):
                return True
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.05)
    return False


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    with connection.getresponse() as reply:
        reply.read()
        return reply.status


def _announce(plan: dict[str, Any]) -> None:
    if wait_ready(plan["reach"], plan["port"], plan["ready_timeout_s"]):
        print(say("cli.up-at", url=plan["url"]), file=sys.stderr, flush=True)  # noqa: T201 this is the terminal's process


def main(argv: list[str]) -> int:
    """Run the tree until it is stopped; returns the exit code."""
    plan = json.loads(argv[0])
    if argv[-1] == "--check":
        for process in plan["processes"]:
            resolve(process["entry"])
        return 0
    threading.Thread(target=_announce, args=(plan,), daemon=True).start()
    processes = [Process(p["name"], p["entry"], p["arguments"]) for p in plan["processes"]]
    try:
        again = [sys.executable, "-m", "wenfang.runtimes.tree", argv[0]]
        supervise(Home(Path(plan["home"])), processes, again=again, state=Path(argv[1]) if len(argv) > 1 else None)
    except WenfangError as e:
        print(e, file=sys.stderr, flush=True)  # noqa: T201
        return 1
    print(say("cli.down"), file=sys.stderr, flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
