"""The messages of ``inference.proto`` as classes, in a descriptor pool of their own: a program may hold another copy of the protocol.

``inference.binpb`` is the compiled form of ``inference.proto`` (``make proto``); a test compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from wenfang.core.errors import Invalid

__all__ = ["SERVICE", "Messages"]

SERVICE = "inference.GRPCInferenceService"
SMALL_BYTES = 4096
"""A message of so many bytes cannot become large."""
FIELDS_MAX = 256
"""Of a message, at its top: two empty bytes there become an object of a hundred."""
_COMPILED = Path(__file__).with_name("inference.binpb")


class Messages:
    """Classes by name, methods by name."""

    def __init__(self) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(_COMPILED.read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        self.service = self.pool.FindServiceByName(SERVICE)
        self._classes: dict[str, Any] = {}

    def read(self, kind: str, data: bytes) -> Any:
        """A message out of its bytes.

        Args:
            kind: its name.
            data: as it came.

        Raises:
            Invalid: `gateway.bad-message`: not of this kind, or with more than ``FIELDS_MAX`` fields.

        Cost: memory and time are bounded by a small multiple of ``data``.
        """
        if len(data) > SMALL_BYTES:
            _few_fields(data)
        try:
            return getattr(self, kind).FromString(data)
        except DecodeError as e:
            raise Invalid("gateway.bad-message", kind=kind, reason="it cannot be decoded") from e

    def __getattr__(self, name: str) -> Any:
        try:
            found = self._classes[name] = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"inference.{name}"))
        except KeyError as e:
            raise AttributeError(name) from e
        setattr(self, name, found)
        return found


def _few_fields(data: bytes) -> None:
    r"""Walk over the fields at the top; what is cut off is left to the parser.

    >>> _few_fields(b"\x2a\x00" * FIELDS_MAX)
    """
    at, size = 0, len(data)
    for _ in range(FIELDS_MAX):
        if at >= size:
            return
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                at = _varint(data, at)[1]
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                at += length
            case 5:
                at += 4
            case _:
                raise Invalid("gateway.bad-message", kind="ModelInferRequest", reason="it has groups")
    if at < size:
        raise Invalid("gateway.bad-message", kind="ModelInferRequest", reason=f"it has more than {FIELDS_MAX} fields")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; at most ten bytes, as in the format."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[at : at + 10], strict=False):
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    return value, len(data)
