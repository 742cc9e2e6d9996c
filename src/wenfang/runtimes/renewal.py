"""After an upgrade: every process of the tree makes way for one that runs the new program, in an order in which nobody is without an answer.

Gateways first, one after another: the new one takes over the listening socket while the old one finishes what it has. Then control. The
replicas are control's to renew; it finds the note. Jobs end as they began.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Protocol

from wenfang.core.home import Home

__all__ = ["RENEW_FILE", "renew"]

TIMEOUT_S = 90.0
RENEW_FILE = "renew.json"
log = logging.getLogger("wenfang.supervisor")


class Tree(Protocol):
    """What must be done is the supervisor's."""

    home: Home

    def names(self, kind: str) -> list[str]:
        """Processes of a kind that run."""
        ...

    def state_of(self, name: str) -> str:
        """``running``, ``stopping``, ``backing-off`` or ``exited``."""
        ...

    def begin_succession(self, name: str) -> str:
        """Start a successor beside a process; what the old one is called from now on."""
        ...

    def take_back(self, name: str, old: str) -> None:
        """The successor is no good: end it, the old one has its name again."""
        ...

    def start_again(self, name: str) -> None:
        """Stop a process and start it."""
        ...


async def renew(tree: Tree) -> None:
    """Renew all; stops at the first gateway that has no good successor."""
    for name in tree.names("gateway"):
        old = tree.begin_succession(name)
        if not await _taken_over(tree, name, old):
            tree.take_back(name, old)
            log.error("the upgrade ends here: the new %s does not stand, the old one goes on", name)
            return
    for name in tree.names("control"):
        tree.start_again(name)
        until = time.monotonic() + TIMEOUT_S
        await asyncio.sleep(0.05)
        while not (tree.state_of(name) == "running" and tree.home.control_socket.exists()) and time.monotonic() < until:
            await asyncio.sleep(0.05)
    (tree.home.run / RENEW_FILE).write_text(json.dumps({"before": time.time()}), encoding="utf-8")
    log.info("upgraded; control renews the replicas")


async def _taken_over(tree: Tree, name: str, old: str) -> bool:
    """Whether the old process has ended because the new one stands."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        if tree.state_of(name) != "running":
            return False
        if tree.state_of(old) == "exited":
            return True
        await asyncio.sleep(0.02)
    return False
