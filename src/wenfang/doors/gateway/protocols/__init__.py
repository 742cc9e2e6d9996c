"""The ways of asking a model over HTTP: one file, one protocol, found by its file name."""

from wenfang.core.registry import Registry

from .base import Desk, Protocol

__all__ = ["Desk", "Protocol", "protocols"]

protocols: Registry[Protocol] = Registry("protocol", package="wenfang.doors.gateway.protocols", base=Protocol)
