"""Whose work this is part of: the identity of a distributed trace, read from the headers a caller sends and written into those we send.

Knows nothing of spans, times or HTTP. Source: W3C Trace Context, levels 1 and 2 (``traceparent``, ``tracestate``).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextvars import ContextVar

import msgspec

from .ids import ALPHABET

__all__ = ["CARRIED", "Trace", "begun", "continued", "read_state"]

STATE_MAX_CHARS = 512
"""What the recommendation wants passed on at least; longer states lose entries."""
STATE_MEMBERS_MAX = 32
SAMPLED, RANDOM = 1, 2
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_KEY = re.compile(r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


class Trace(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One place in a trace: the span at work, and what goes with it."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """Of the span at work, 16 hexadecimal digits."""
    parent_id: str = ""
    """Of the span it was asked by; empty: the trace begins here."""
    flags: int = 0
    state: str = ""
    """``tracestate`` as it is passed on."""

    @property
    def sampled(self) -> bool:
        """Whether whoever began the trace records it."""
        return bool(self.flags & SAMPLED)

    def child(self) -> Trace:
        """A span below this one."""
        return Trace(self.trace_id, _span_id(), self.span_id, self.flags, self.state)

    def parent(self) -> str:
        """As ``traceparent`` of what is asked of others.

        >>> Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", flags=1).parent()
        '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
        """
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def headers(self) -> dict[str, str]:
        """``traceparent``, and ``tracestate`` where there is one."""
        return {"traceparent": self.parent(), "tracestate": self.state} if self.state else {"traceparent": self.parent()}


CARRIED: ContextVar[Sequence[Trace | None]] = ContextVar("carried", default=())
"""The traces of the texts a model is being asked about, one for each in order, or none at all."""


def continued(parent: bytes, state: bytes | None = None) -> Trace | None:
    """A span of ours below the caller's; None where ``traceparent`` is not valid: then a trace begins, and ``tracestate`` is nobody's.

    >>> found = continued(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"a=1")
    >>> found.trace_id[:4], found.parent_id, found.sampled, found.state
    ('4bf9', '00f067aa0ba902b7', True, 'a=1')
    >>> continued(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01") is None
    True
    """
    found = _PARENT.fullmatch(parent.strip(b" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None) or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    return Trace(trace_id.decode(), _span_id(), parent_id.decode(), int(flags, 16) & (SAMPLED | RANDOM), "" if state is None else read_state(state))


def begun(request_id: str = "") -> Trace:
    """A trace that begins here, recorded. Its id is the request's, where that is one of ours: 128 bits both.

    >>> begun("rq_01jd3kabcdefghjkmnpqrst012").trace_id
    '019347352d8d73e1194e95b5f19d0022'
    """
    digits = request_id.removeprefix("rq_")
    number = 0
    if request_id.startswith("rq_") and len(digits) == 26 and all(digit in ALPHABET for digit in digits):
        for digit in digits:
            number = number << 5 | ALPHABET.index(digit)
    number &= (1 << 128) - 1
    return Trace(f"{number or random.getrandbits(128) or 1:032x}", _span_id(), flags=SAMPLED)


def read_state(given: bytes) -> str:
    """``tracestate`` as it is passed on: as it came where it is valid, else nothing.

    One that is too long loses entries above 128 characters first, then those on its right, which are the oldest.
    """
    try:
        members = [member.strip(" \t") for member in given.decode("ascii").split(",")]
    except UnicodeDecodeError:
        return ""
    members = [member for member in members if member]
    pairs = [member.partition("=") for member in members]
    if len(members) > STATE_MEMBERS_MAX or len({key for key, _, _ in pairs}) < len(pairs):
        return ""
    if not all(_KEY.fullmatch(key) and _VALUE.fullmatch(value) for key, _, value in pairs):
        return ""
    if len(",".join(members)) > STATE_MAX_CHARS:
        members = [member for member in members if len(member) <= 128]
        while len(",".join(members)) > STATE_MAX_CHARS:
            members.pop()
    return ",".join(members)


def _span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"
