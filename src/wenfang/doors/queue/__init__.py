"""Message queues: a process for each request queue of a service, which has the gateways answer. Knows nothing of how they do."""

from __future__ import annotations

from typing import Any

__all__ = ["main"]


def main(arguments: dict[str, Any]) -> None:
    """Entry of a ``queue`` process.

    Args:
        arguments: ``home`` and ``binding`` (a ``QueueBinding`` as JSON); passwords of brokers are in the settings, never here.

    Raises:
        Unsupported: `plugin.needs-package`.
    """
    import asyncio
    import signal
    import socket
    from pathlib import Path

    import uvloop

    from wenfang.core.discreet import begin_log
    from wenfang.core.home import Home
    from wenfang.core.ids import sha256_hex
    from wenfang.core.records import QueueBinding
    from wenfang.core.settings import load_settings
    from wenfang.doors.channel import listen
    from wenfang.stores import check_bus_url, open_bus
    from wenfang.stores.replies import Replies

    from .gateways import Gateways
    from .worker import Worker

    begin_log()
    home, binding = Home(Path(arguments["home"])), QueueBinding.model_validate(arguments["binding"])
    settings = load_settings(home.root).queue
    url = binding.bus or settings.bus
    check_bus_url(url)
    name = f"{socket.gethostname()[:40]}-{sha256_hex(str(home.root).encode())[:12]}-{binding.id}"

    async def work() -> None:
        replies = await asyncio.to_thread(Replies, home.root / "queues" / f"{binding.id}.db", n_max=settings.remembered, max_bytes=settings.remembered_bytes)
        gateways = Gateways(home.run)
        worker = Worker(binding, connect=lambda: open_bus(url, home), replies=replies, gateways=gateways, name=name, lease_s=settings.lease_s)

        async def metrics(_: dict[str, Any]) -> Any:
            return worker.figures.families()

        async def state(_: dict[str, Any]) -> Any:
            return worker.figures.state()

        channel = await listen(home.run / binding.socket, {"metrics": metrics, "state": state})
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        try:
            await worker.run()
        finally:
            channel.close()
            (home.run / binding.socket).unlink(missing_ok=True)
            gateways.close()
            await asyncio.to_thread(replies.close)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
