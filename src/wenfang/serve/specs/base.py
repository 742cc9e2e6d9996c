"""What a format is: a file's name, its media type, and how an interface becomes its text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from wenfang.serve.interface import Interface, Kind, Many, Shape

__all__ = ["Spec", "identifier", "shapes"]


class Spec(ABC):
    """One format."""

    name: ClassVar[str]
    file_name: ClassVar[str]
    """What its document is called, such as ``openapi.json``; also its path at the gateway, ``/predict/{service}/openapi.json``."""
    media_type: ClassVar[str] = "application/json"

    @abstractmethod
    def write(self, interface: Interface) -> str:
        """The document; equal interfaces give equal texts."""


def shapes(*roots: Shape) -> list[Shape]:
    """Every shape under ``roots``, each once, after those it is made of."""
    found: list[Shape] = []

    def walk(kind: Kind) -> None:
        match kind:
            case Shape():
                for part in kind.parts:
                    walk(part.kind)
                if kind not in found:
                    found.append(kind)
            case Many(of):
                walk(of)
            case _:
                return

    for root in roots:
        walk(root)
    return found


def identifier(service: str) -> str:
    """The name of a service in letters, digits and underscores; no two services have the same.

    >>> identifier("intent"), identifier("shop-2.文"), identifier("4ever")
    ('intent', 'shop_d2_o_u6587', '_n4ever')
    """
    spelt = {"_": "__", "-": "_d", ".": "_o"}
    name = "".join(c if c.isascii() and c.isalnum() else spelt.get(c, f"_u{ord(c):04x}") for c in service)
    return f"_n{name}" if name[:1].isdigit() else name
