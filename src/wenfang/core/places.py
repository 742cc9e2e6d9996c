"""Where a replica is: a path at which its Unix socket lies, or a file there that names a port of another machine.

Across machines both sides show the same certificate and accept no other, so the wire is encrypted and only processes of one installation
meet. A replica that moves has its file written anew: whoever calls by path finds it again. Knows nothing of what is said.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl
import stat
from pathlib import Path

import msgspec

from .durable import write_file

__all__ = ["Place", "connect", "listening_port", "read_place", "tls", "write_place"]

PLACE_MAX_BYTES = 4096


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port somewhere."""

    host: str
    port: int
    certificate: str = ""
    """PEM file with certificate and key that both sides hold; empty: nothing is encrypted, for loopback in tests."""


_decoder = msgspec.json.Decoder(Place)


def write_place(path: Path, place: Place) -> None:
    """Say where the replica called ``path`` is; replaces what was said before."""
    write_file(path, msgspec.json.encode(place), mode=0o600)


def read_place(path: Path | str) -> Place | None:
    """What the file says; None where a socket lies.

    Raises:
        OSError: there is neither, or the file is not one of ours.
    """
    fd = os.open(path, os.O_RDONLY | os.O_PATH)
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
    finally:
        os.close(fd)
    with open(path, "rb") as f:
        data = f.read(PLACE_MAX_BYTES)
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as e:
        raise OSError(f"{Path(path).name} names no place: {e}") from e


def connect(path: Path | str, timeout_s: float) -> socket.socket:
    """A blocking connection to the replica at ``path``; ``timeout_s`` holds for it and for everything after.

    Raises:
        OSError: nobody answers there.
    """
    place = read_place(path)
    if place is not None:
        sock = socket.create_connection((place.host, place.port), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return tls(place.certificate, server=False).wrap_socket(sock) if place.certificate else sock
        except OSError:
            sock.close()
            raise
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def listening_port(host: str, port: int = 0) -> socket.socket:
    """A TCP socket that listens."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this
        sock.bind((host, port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


@functools.lru_cache(maxsize=8)
def tls(certificate: str, *, server: bool) -> ssl.SSLContext:
    """Shows the certificate in the PEM file, and trusts that one and no other.

    Raises:
        OSError: the file is not there or not right.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    if server:
        context.num_tickets = 0  # nobody resumes; and nothing but answers comes after the greeting
    return context
