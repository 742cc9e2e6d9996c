"""The gateway: one port, every hot path, every guard. A process of its own that answers without the control process."""

from __future__ import annotations

from typing import Any

__all__ = ["main"]


def main(arguments: dict[str, Any]) -> None:
    """Entry of a ``gateway`` process.

    Args:
        arguments: ``home``, ``index``, and optionally ``host`` and ``port`` over the settings.

    Raises:
        Conflict: `gateway.port-in-use`.
    """
    import asyncio
    import gc
    from pathlib import Path

    import uvloop

    from wenfang.core.discreet import begin_log
    from wenfang.core.home import Home
    from wenfang.core.settings import load_settings

    from .gateway import Gateway

    begin_log()
    home = Home(Path(arguments["home"]))
    limits = load_settings(home.root).serve

    async def serve() -> None:
        gateway = Gateway(home, int(arguments.get("index", 0)), limits)
        gc.freeze()  # what is here now stays: later collections need not look at it
        gc.set_threshold(20_000, 20, 50)
        await gateway.run(arguments.get("host") or limits.host, limits.port if arguments.get("port") is None else int(arguments["port"]), succeeds=bool(arguments.get("succeeds")))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
