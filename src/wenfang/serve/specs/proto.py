"""Protocol Buffers of a service, with the messages of its task by name. Numbers of fields never change their meaning."""

from __future__ import annotations

from typing import ClassVar

from wenfang.serve.interface import ByName, Interface, Kind, Many, Part, Scalar, Shape

from .base import Spec, identifier, shapes

__all__ = ["PACKAGE", "Proto", "field_type"]

PACKAGE = "wenfang.services."
"""Before ``identifier(service)``."""
_SCALARS = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool", "object": "string"}


class Proto(Spec):
    """A ``.proto`` file; a package for each service, so that clients of several services go into one program."""

    file_name: ClassVar[str] = "service.proto"
    media_type: ClassVar[str] = "text/plain; charset=utf-8"

    def write(self, interface: Interface) -> str:
        """The file."""
        lines = [
            f"// The service {interface.service} ({interface.task}), as {interface.model} answers it.",
            'syntax = "proto3";',
            "",
            f"package {PACKAGE}{identifier(interface.service)};",
        ]
        asked, told = _without_stream(interface.request), interface.reply
        for shape in reversed(shapes(asked, told)):
            lines += ["", f"// {shape.says}", f"message {shape.name} {{", *(f"  {line}" for p in shape.parts for line in _field(p)), "}"]
        return "\n".join(lines) + "\n"


def _without_stream(shape: Shape) -> Shape:
    """Texts in pieces are the Open Inference Protocol's: ``ModelStreamInfer``."""
    return Shape(shape.name, shape.says, tuple(p for p in shape.parts if p.name != "stream"))


def _field(part: Part) -> list[str]:
    word, repeated = field_type(part.kind)
    optional = "repeated " if repeated else "" if part.required or not isinstance(part.kind, Scalar) else "optional "
    note = [f"// {part.says}{_range(part.kind)}"]
    names = part.kind.of.names if isinstance(part.kind, Many) and isinstance(part.kind.of, Scalar) else part.kind.names if isinstance(part.kind, Scalar) else ()
    note += [f"//   {_one_line(name)}" for name in names]
    return [*note, f"{optional}{word} {part.name} = {part.number};"]


def field_type(kind: Kind) -> tuple[str, bool]:
    """The word for a kind, and whether it is repeated; an object of any form is JSON in a string."""
    match kind:
        case Shape():
            return kind.name, False
        case Many():
            return field_type(kind.of)[0], True
        case ByName():
            return f"map<string, {field_type(kind.of)[0]}>", False
        case Scalar():
            return _SCALARS[kind.kind], False


def _range(kind: Kind) -> str:
    match kind:
        case Scalar(kind="object"):
            return "; as JSON"
        case Scalar(names=names) if names:
            return "; one of"
        case Many(of=Scalar(names=names)) if names:
            return "; each one of"
        case Scalar():
            said = [f"{sign} {bound:.16g}" for sign, bound in ((">", kind.above), (">=", kind.least), ("<=", kind.most)) if bound is not None and abs(bound) < 2**53]
            if kind.length_max is not None:
                said.append(f"at most {kind.length_max} code points")
            return f" ({', '.join(said)})" if said else ""
        case Many(most=most) if most is not None:
            return f" (at most {most})"
        case _:
            return ""


def _one_line(name: str) -> str:
    r"""A label as a comment can hold it.

    >>> _one_line("a\nb")
    'a\\nb'
    """
    return name.encode("unicode_escape").decode() if not name.isprintable() else name
