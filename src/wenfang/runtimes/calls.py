"""Answers calls on a Unix socket, one frame each way. Knows nothing of what is called."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wenfang.core.errors import Broken
from wenfang.core.frames import from_error, listening_socket, pack, read_frame

__all__ = ["serve_calls"]

log = logging.getLogger("wenfang.supervisor")


async def serve_calls(place: Path | socket.socket, answer: Callable[[dict[str, Any]], Any]) -> asyncio.Server:
    """Listen on a path, or on a socket that listens already; answer each frame by ``{"answer"}`` or ``{"error"}``; ``answer`` must return at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await read_frame(reader)
                try:
                    reply = {"answer": answer(message)}
                except Exception as e:  # a bad call must never end the process: the caller gets the error
                    reply = {"error": from_error(e)}
                writer.write(pack(reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, Broken) as e:
            log.debug("a caller hung up: %s", e)
        finally:
            writer.close()

    return await asyncio.start_unix_server(serve, sock=listening_socket(place) if isinstance(place, Path) else place)
