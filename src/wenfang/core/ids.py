"""Sortable prefixed ids and content hashes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import UTC, datetime

__all__ = ["new_id", "now", "sha256_hex"]

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_RANDOM_BITS = 80
_lock = threading.Lock()
_last = 0
_head = (-1, "")
"""The millisecond that was written last, and how."""


def now() -> datetime:
    """The present moment, aware, UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """A new id such as ``dv_01jd3k…``: 48 bits of milliseconds, then 80 random bits; ids made later by this process sort later.

    >>> a, b = new_id("dv"), new_id("dv")
    >>> a < b, len(a)
    (True, 29)
    """
    global _last, _head
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | int.from_bytes(os.urandom(10), "big")
        _last = value = fresh if fresh > _last else _last + 1
        moment, head = _head
        if moment != value >> _RANDOM_BITS:
            moment = value >> _RANDOM_BITS
            head = "".join([_PAIRS[moment >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
            _head = (moment, head)
    # two digits at a time: every request has an id
    high, low = value >> 40 & 0xFFFFFFFFFF, value & 0xFFFFFFFFFF
    p = _PAIRS
    return f"{prefix}_{head}{p[high >> 30]}{p[high >> 20 & 1023]}{p[high >> 10 & 1023]}{p[high & 1023]}{p[low >> 30]}{p[low >> 20 & 1023]}{p[low >> 10 & 1023]}{p[low & 1023]}"


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of ``data``, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
