"""Where callers come into a replica: a Unix socket, or a port that only holders of the same certificate enter. Knows nothing of frames."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path

from wenfang.core.frames import listening_socket
from wenfang.core.places import Place, listening_port, tls, write_place

__all__ = ["Entrance", "read_some"]

ENTER_TIMEOUT_S = 5.0
ENTERING_MAX = 64
PIECE_BYTES = 1 << 20
log = logging.getLogger("wenfang.replica")


class Entrance:
    """A listener and those who are on their way in. Never waits for anybody.

    Args:
        path: of the Unix socket; with ``host``: of the file that says which port it became.
        host: address to listen on; None: the Unix socket.
        certificate: PEM file that both sides hold.
        timeout_s: given to the sockets of those who are in.
    """

    def __init__(self, path: Path, *, host: str | None = None, certificate: str = "", timeout_s: float = 30.0) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self._tls = tls(certificate, server=True) if host is not None and certificate else None
        self._entering: dict[ssl.SSLSocket, float] = {}
        if host is None:
            self.listener = listening_socket(path)
        else:
            self.listener = listening_port(host)
            write_place(path, Place(host, self.listener.getsockname()[1], certificate))
        self.listener.setblocking(False)
        self._mark = path.stat().st_ino

    def accept(self) -> socket.socket | None:
        """Whoever knocks: in, or with a handshake to come first (``is_in`` says which); None: gone already."""
        self._turn_away()
        try:
            sock, _ = self.listener.accept()
        except OSError as e:
            log.info("a caller left at the door: %s", e)
            return None
        if self._tls is None:
            sock.settimeout(self.timeout_s)
            return sock
        sock.setblocking(False)
        try:
            wrapped = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError as e:
            log.info("a caller left at the door: %s", e)
            sock.close()
            return None
        self._entering[wrapped] = time.monotonic() + ENTER_TIMEOUT_S
        return wrapped

    def is_in(self, sock: socket.socket) -> bool:
        """Whether nothing is left to do but to greet."""
        return sock not in self._entering

    def step(self, sock: socket.socket) -> bool | None:
        """Go on with a handshake: True, in; None, not yet; False, turned away."""
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as e:
            log.warning("a caller was turned away: %s", e)
            self._entering.pop(sock, None)
            return False
        self._entering.pop(sock, None)
        sock.settimeout(self.timeout_s)
        return True

    def _turn_away(self) -> None:
        """Hang up on those who stand in the door too long, and of too many on the first: they become readable as closed, and are dropped where they are read."""
        now = time.monotonic()
        for sock in [s for n, (s, until) in enumerate(self._entering.items()) if until < now or len(self._entering) - n >= ENTERING_MAX]:
            del self._entering[sock]
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of TLS nothing was said yet
            except OSError as e:
                log.debug("it had gone: %s", e)

    def close(self) -> None:
        """Nobody comes in any more."""
        self.listener.close()
        for sock in self._entering:
            sock.close()
        self._entering.clear()
        with suppress(OSError):  # it has gone
            if self.path.stat().st_ino == self._mark:  # else a successor listens there
                self.path.unlink()


def read_some(sock: socket.socket) -> bytes | None:
    """What a caller that is in has sent; empty: it hung up; None: not a whole record yet.

    Raises:
        OSError: the connection broke.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return sock.recv(PIECE_BYTES)
    timeout_s = sock.gettimeout()
    sock.setblocking(False)
    try:
        data = sock.recv(PIECE_BYTES)
        while data and sock.pending():
            data += sock.recv(PIECE_BYTES)
        return data
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    finally:
        sock.settimeout(timeout_s)
