"""A typed Python client of one service: one file with dataclasses, a client and an async client over httpx, errors as exceptions."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from wenfang.core.version import __version__
from wenfang.serve.interface import WRITING, ByName, Interface, Kind, Many, Part, Scalar, Shape

from . import _client_code as code
from .base import Spec, shapes

__all__ = ["Python"]

_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "Mapping[str, Any]"}
_ALIASES = {"label": "Label", "labels": "Label", "scores": "Label", "role": "Role", "finish": "Finish"}


class Python(Spec):
    """A module that needs nothing but httpx."""

    file_name: ClassVar[str] = "client.py"
    media_type: ClassVar[str] = "text/x-python; charset=utf-8"

    def write(self, interface: Interface) -> str:
        """The module."""
        writes = interface.task in WRITING
        asked, told = shapes(interface.question, interface.parameters), [s for s in shapes(interface.reply) if s.name != "Message"]
        aliases = _aliases([*asked, *told])
        body = [*_aliases_code(aliases), *(line for s in [*asked, *told] for line in _dataclass(s, aliases)), *([code.PIECE] if writes else [])]
        body += [code.ERRORS, *_writing(interface), *(line for s in told for line in _reader(s)), code.READING]
        body += [code.STREAM_READING, *_clients(interface, writes=True)] if writes else _clients(interface, writes=False)
        text = "\n".join(body)
        names: list[str] = sorted([*aliases, *(s.name for s in [*asked, *told]), *code.PUBLIC, *(["Piece"] if writes else [])])
        return "\n".join([_head(interface, text, names, writes=writes), text]).replace("\n\n\n\n", "\n\n\n").rstrip("\n") + "\n"


def _head(interface: Interface, text: str, names: list[str], *, writes: bool) -> str:
    used = [n for n in ("AsyncIterator", "Iterator", "Mapping", "Sequence") if f"{n}[" in text]
    typing = [n for n in ("Any", "Literal", "Self", "TypeAlias", "cast") if f"{n}[" in text or f": {n}" in text or f"-> {n}" in text or f"{n}(" in text]
    dataclasses = ["asdict", "dataclass", *(["field"] if "field(" in text else [])]
    listed = ["__all__ = [", *(f'    "{n}",' for n in names), "]"]
    lines = [
        f'"""Client of the service {interface.service} ({interface.task}), as {_plain(interface.model)} answers it.',
        "",
        f"Made by Wenfang {__version__}; it needs httpx. Do not change it: have it made anew.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import json",
        f"from collections.abc import {', '.join(used)}",
        f"from dataclasses import {', '.join(dataclasses)}",
        "from types import TracebackType",
        f"from typing import {', '.join(typing)}",
        "",
        "import httpx",
        "",
        *listed,
        "",
        f"SERVICE = {_quoted(interface.service)}",
        f"MODEL = {_quoted(interface.model)}",
        '"""The model version this was made of; replies name the one that answered."""',
        f'PATH = "/predict/{quote(interface.service, safe="")}"',
        "",
    ]
    return "\n".join(lines if writes else [x for x in lines if x != "import json"])


# ------------------------------------------------------------ types
def _aliases(found: list[Shape]) -> dict[str, tuple[str, ...]]:
    """Names of sets of words, and the words."""
    aliases: dict[str, tuple[str, ...]] = {}
    for shape in found:
        for part in shape.parts:
            if names := _names(part.kind):
                aliases.setdefault(_ALIASES[part.name], names)
    return aliases


def _names(kind: Kind) -> tuple[str, ...]:
    match kind:
        case Scalar():
            return kind.names
        case Many():
            return _names(kind.of)
        case _:
            return ()


def _aliases_code(aliases: dict[str, tuple[str, ...]]) -> list[str]:
    lines: list[str] = []
    for name, words in sorted(aliases.items()):
        quoted = [_quoted(word) for word in words]
        lines += [f"{name}: TypeAlias = Literal[", *(f"    {word}," for word in quoted), "]"] if len(quoted) > 1 else [f"{name}: TypeAlias = Literal[{''.join(quoted)}]"]
    if lines and "Label" in aliases:
        lines.append('"""Labels of this version; a later one may add some, which come through as they are."""')
    return [*lines, ""]


def _type(part: Part, aliases: dict[str, tuple[str, ...]]) -> str:
    def of(kind: Kind) -> str:
        match kind:
            case Shape():
                return kind.name
            case Many():
                return f"Sequence[{of(kind.of)}]"
            case ByName():
                return f"Mapping[str, {of(kind.of)}]"
            case Scalar():
                return _ALIASES[part.name] if kind.names and _ALIASES[part.name] in aliases else _TYPES[kind.kind]

    return of(part.kind)


def _optional(part: Part, kind: str) -> tuple[str, str]:
    """Type and default of a field that may be left out."""
    match part.kind:
        case Many():
            return kind, "()"
        case ByName():
            return kind, "field(default_factory=dict[str, Any])"
        case Scalar(kind="number") if part.default is not None:
            return kind, repr(part.default)
        case _:
            return f"{kind} | None", "None"


def _dataclass(shape: Shape, aliases: dict[str, tuple[str, ...]]) -> list[str]:
    lines = ["", "@dataclass(frozen=True, slots=True)", f"class {shape.name}:", f'    """{_sentence(shape.says)}', "", "    Attributes:"]
    parts = sorted(shape.parts, key=lambda p: not p.required)
    lines += [f"        {p.name}: {_sentence(p.says + _range(p))}" for p in parts]
    lines += ["", '    """', ""]
    for part in parts:
        kind = _type(part, aliases)
        if part.required:
            lines.append(f"    {part.name}: {kind}")
        else:
            kind, default = _optional(part, kind)
            lines.append(f"    {part.name}: {kind} = {default}")
    return [*lines, ""]


def _range(part: Part) -> str:
    match part.kind:
        case Scalar() as kind:
            bounds = [f"{sign} {bound:.16g}" for sign, bound in ((">", kind.above), (">=", kind.least), ("<=", kind.most)) if bound is not None and abs(bound) < 2**53]
            if kind.length_max is not None:
                bounds.append(f"at most {kind.length_max} code points")
            return f" ({', '.join(bounds)})" if bounds else ""
        case _:
            return ""


# ------------------------------------------------------------ functions
def _writing(interface: Interface) -> list[str]:
    """How a request is written."""
    bare = interface.bare
    lines = ["", f"def _body(inputs: {_inputs(interface)}, parameters: Parameters | None, *, stream: bool = False) -> dict[str, Any]:"]
    lines.append(f"    alone = isinstance(inputs, {'str | Question' if bare else 'Question'})")
    listed = "[inputs] if alone else inputs"
    lines += [f"    questions = cast({_quoted(f'Sequence[{_one(interface)}]')}, {listed})"]
    lines.append('    body: dict[str, Any] = {"inputs": [_question(each) for each in questions]}')
    lines += ["    if parameters is not None:", '        body["parameters"] = {name: value for name, value in asdict(parameters).items() if value is not None and value != ()}']
    lines += ["    if stream:", '        body["stream"] = True', "    return body", "", ""]
    lines.append(f"def _question(question: {_one(interface)}) -> Any:")
    if bare:
        lines += ["    if isinstance(question, str):", "        return question"]
    lines += ["    return {name: value for name, value in asdict(question).items() if value is not None and value != ()}", ""]
    return lines


def _one(interface: Interface) -> str:
    return "str | Question" if interface.bare else "Question"


def _inputs(interface: Interface) -> str:
    return f"{_one(interface)} | Sequence[{_one(interface)}]"


def _reader(shape: Shape) -> list[str]:
    """How a shape is read."""
    lines = ["", f"def _read_{shape.name.lower()}(told: Any) -> {shape.name}:", f"    return {shape.name}("]
    lines += [f"        {p.name}={_read(p)}," for p in sorted(shape.parts, key=lambda p: not p.required)]
    return [*lines, "    )", ""]


def _read(part: Part) -> str:
    def found(default: str) -> str:
        return f'told["{part.name}"]' if part.required else f'told.get("{part.name}"{default})'

    match part.kind:
        case Many(of=Shape(name=name)):
            return f"tuple(_read_{name.lower()}(each) for each in {found(', ()')})"
        case Many():
            return f"tuple({found(', ()')})"
        case ByName():
            return f"dict({found(', {}')})"
        case _:
            return found("" if part.default is None else f", {part.default!r}")


def _clients(interface: Interface, *, writes: bool) -> list[str]:
    inputs = _inputs(interface)
    streams = {"STREAM": code.STREAM if writes else "", "ASYNC_STREAM": code.ASYNC_STREAM if writes else ""}
    text = code.CLIENTS
    for name, value in {**streams, "INPUTS": inputs}.items():
        text = text.replace(f"%{name}%", value)
    return [text]


def _plain(text: str) -> str:
    """As a docstring can hold it."""
    return text.replace("\\", "").replace('"', "'")


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def _quoted(text: str) -> str:
    r"""A string literal.

    >>> print(_quoted("文"), _quoted('say "a"'), _quoted("a\\nb"))
    "文" 'say "a"' "a\\nb"
    """
    quote_by = "'" if '"' in text and "'" not in text else '"'
    escaped = {quote_by: f"\\{quote_by}", "\\": "\\\\"}
    inside = "".join(escaped.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)
    return f"{quote_by}{inside}{quote_by}"
