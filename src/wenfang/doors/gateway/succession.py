"""How a gateway takes over from the one before it: the listening socket itself changes hands, so that nobody who knocks meanwhile is turned away.

A second socket on the same port would not do: what has knocked at a socket that closes is lost, and the kernel shares out by itself.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import FrameClient, listening_socket

__all__ = ["Predecessor", "give", "inherit", "retired"]

TIMEOUT_S = 10.0


class Predecessor:
    """The gateway that is there already.

    Args:
        client: connected to its channel.
        sock: its listening socket.
        stats: what it says of itself.
    """

    def __init__(self, client: FrameClient, sock: socket.socket, stats: dict[str, Any]) -> None:
        self.sock = sock
        self.grpc_port: int = stats["grpc_port"]
        self._client = client

    def retire(self) -> None:
        """Have it take nothing new, finish what it has and end."""
        try:
            self._client.call("drain", gently=True)
        finally:
            self._client.close()


def retired(path: Path) -> Path:
    """Where the channel of a gateway that has a successor is: it still hears of new routing tables."""
    return path.with_name(f"{path.stem}-old.sock")


def inherit(path: Path) -> Predecessor | None:
    """The listening socket of the gateway whose channel is at ``path``; None if there is none. The path is free afterwards."""
    own = path.with_name(f"{path.stem}-heir")
    try:
        if not path.exists() and retired(path).exists():  # an heir before this one got no further
            retired(path).rename(path)
        client = FrameClient(path, TIMEOUT_S)
    except (OSError, Broken):
        return None
    listener = listening_socket(own)
    listener.settimeout(TIMEOUT_S)
    try:
        stats = client.call("stats")
        client.call("hand_over", path=str(own))
        with listener.accept()[0] as giver:
            giver.settimeout(TIMEOUT_S)
            fds = socket.recv_fds(giver, 1, 1)[1]
        if not fds:
            raise Broken("gateway.nothing-handed-over")
        path.rename(retired(path))
        sock = socket.socket(fileno=fds[0])
        sock.setblocking(False)
        os.set_inheritable(fds[0], False)
        return Predecessor(client, sock, stats)
    except (OSError, WenfangError) as e:
        client.close()
        raise Broken("gateway.nothing-handed-over") from e
    finally:
        listener.close()
        own.unlink(missing_ok=True)


def give(path: Path, sock: socket.socket) -> None:
    """Send a listening socket to the heir that waits at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way:
        way.settimeout(TIMEOUT_S)
        way.connect(str(path))
        socket.send_fds(way, [b"s"], [sock.fileno()])
