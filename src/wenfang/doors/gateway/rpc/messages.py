"""The messages of ``inference.proto`` as classes, in a descriptor pool of their own: a program may hold another copy of the protocol.

``inference.binpb`` is the compiled form of ``inference.proto`` (``make proto``); a test compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["SERVICE", "Messages"]

SERVICE = "inference.GRPCInferenceService"
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

    def __getattr__(self, name: str) -> Any:
        try:
            found = self._classes[name] = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"inference.{name}"))
        except KeyError as e:
            raise AttributeError(name) from e
        setattr(self, name, found)
        return found
