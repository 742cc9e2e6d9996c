"""A process's own socket, such as ``run/gateway-<i>.sock``: framed calls of the control process and of the processes beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import from_error, listening_socket, pack, read_frame

__all__ = ["Call", "ask", "listen"]

Call = Callable[[dict[str, Any]], Awaitable[Any]]
log = logging.getLogger("wenfang.channel")


async def listen(path: Path, calls: dict[str, Call]) -> asyncio.Server:
    """Answer ``{"call": name, …}`` by ``calls[name]``; errors travel back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await read_frame(reader)
                try:
                    call = str(message.pop("call", ""))
                    if call not in calls:
                        raise Broken("runtime.unknown-call", socket=path.name, call=call[:80])  # noqa: TRY301
                    reply = {"answer": await calls[call](message)}
                except Exception as e:  # the caller gets it
                    if not isinstance(e, WenfangError):
                        log.exception("a call on %s failed", path.name)
                    reply = {"error": from_error(e)}
                writer.write(pack(reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, Broken, msgspec.MsgspecError, AttributeError) as e:
            log.debug("a caller hung up: %s", e)
        except asyncio.CancelledError:  # the process ends with the line open: streams would log that as a fault
            return
        finally:
            writer.close()

    return await asyncio.start_unix_server(serve, sock=listening_socket(path))


async def ask(path: Path, call: str, timeout_s: float = 2.0, **arguments: Any) -> Any:
    """One call to another process; None if it does not answer."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(pack({"call": call, **arguments}))
                return (await read_frame(reader)).get("answer")
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as e:
        log.debug("%s did not answer: %s", path.name, e)
        return None
