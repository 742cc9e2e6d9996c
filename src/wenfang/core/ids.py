"""Sortable prefixed ids and content hashes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import UTC, datetime

__all__ = ["new_id", "now", "sha256_hex"]

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_lock = threading.Lock()
_last = 0


def now() -> datetime:
    """The present moment, aware, UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """A new id such as ``dv_01jd3k…``: 48 bits of milliseconds, then 80 random bits; ids made later by this process sort later.

    >>> a, b = new_id("dv"), new_id("dv")
    >>> a < b, len(a)
    (True, 29)
    """
    global _last
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
        _last = value = fresh if fresh > _last else _last + 1
    digits: list[str] = []
    for _ in range(26):
        digits.append(ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(digits))}"


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of ``data``, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
