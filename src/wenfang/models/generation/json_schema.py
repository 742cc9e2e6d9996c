"""JSON of a schema, byte by byte: what may come next, and how to end soonest. Knows nothing of tokens or networks.

A useful part of JSON Schema: objects whose properties come in the schema's order, arrays, strings, numbers, integers, booleans, null,
``enum`` and ``const``. No blanks are written. A state is a tuple of open tasks, the innermost last; nothing in it ever changes, so that
beams may share it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from wenfang.core.errors import Invalid

__all__ = ["Schema", "State"]

DIGITS = frozenset(b"0123456789")
ESCAPED = frozenset(b'"\\/bfnrt')
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
"""What may follow some first bytes of UTF-8 (RFC 3629, section 4)."""
DIGITS_MAX = 15
"""Of the whole part and of the fraction: what every reader of JSON keeps exactly."""
DEPTH_MAX = 32
SIZE_MAX = 2000
_NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$id", "additionalProperties"})
_KNOWN: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "number": frozenset(),
    "integer": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}


@dataclass(frozen=True, slots=True)
class _Words:
    """One of some literals, ``at`` bytes of which stand."""

    choices: tuple[bytes, ...]
    at: int = 0


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of ``node`` begins."""

    node: int


@dataclass(frozen=True, slots=True)
class _String:
    """Inside quotes; ``length`` code points stand, ``pending`` bytes of the last are missing, the next of them in ``[low, high]``."""

    node: int
    length: int = 0
    pending: int = 0
    escaped: bool = False
    low: int = 0x80
    high: int = 0xBF


@dataclass(frozen=True, slots=True)
class _Number:
    """``part``: sign 0, zero 1, whole 2, point 3, fraction 4."""

    fraction: bool
    part: int
    digits: int


@dataclass(frozen=True, slots=True)
class _Object:
    """Before a property or the end; properties before ``at`` are done."""

    node: int
    at: int = 0
    first: bool = True
    comma: bool = False


@dataclass(frozen=True, slots=True)
class _Array:
    """Before an item or the end; ``count`` items stand."""

    node: int
    count: int = 0


@dataclass(frozen=True, slots=True)
class _Name:
    """One of some property names, ``at`` bytes of which stand."""

    node: int
    choices: tuple[int, ...]
    at: int


_Task = _Words | _Value | _String | _Number | _Object | _Array | _Name
State = tuple[_Task, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    types: frozenset[str]
    words: tuple[bytes, ...] = ()
    """enum and const."""
    names: tuple[bytes, ...] = ()
    """Properties with quotes and colon."""
    children: tuple[int, ...] = ()
    """Of each property, or of the items."""
    required: tuple[bool, ...] = ()
    least: int = 0
    most: int = 1 << 30


class Schema:
    """A compiled schema.

    Args:
        schema: as JSON gives it.

    Raises:
        Invalid: `generation.schema-unsupported`, `generation.schema-wrong`.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._nodes: list[_Node] = []
        self.start: State = (_Value(self._compile(schema, "$", 0)),)
        self.first_bytes = cache(self._first_bytes)

    def spelled(self) -> set[str]:
        """Characters that names and words of the schema are made of."""
        return {c for node in self._nodes for word in (*node.words, *node.names) for c in word.decode()}

    # ---- compiling

    def _compile(self, schema: Any, where: str, depth: int) -> int:
        if not isinstance(schema, dict) or depth > DEPTH_MAX or len(self._nodes) >= SIZE_MAX:
            raise Invalid("generation.schema-wrong", where=where)
        given: dict[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
        own = len(self._nodes)
        self._nodes.append(_Node(frozenset()))
        self._nodes[own] = self._of_words(given, where) if "enum" in given or "const" in given else self._of_types(given, where, depth)
        return own

    def _of_words(self, given: dict[str, Any], where: str) -> _Node:
        self._refuse_others(given, {"enum", "const", "type"}, where)
        values = given["enum"] if "enum" in given else [given["const"]]
        if not isinstance(values, list) or not values:
            raise Invalid("generation.schema-wrong", where=f"{where}.enum")
        try:
            words = tuple(dict.fromkeys(json.dumps(v, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() for v in values))  # pyright: ignore[reportUnknownVariableType]
        except (ValueError, TypeError) as e:
            raise Invalid("generation.schema-wrong", where=f"{where}.enum") from e
        if any(one != other and other.startswith(one) for one in words for other in words):  # 1 and 12: where one ends the other goes on
            raise Invalid("generation.schema-unsupported", where=where, keyword="enum")
        return _Node(frozenset(), words=words)

    def _of_types(self, given: dict[str, Any], where: str, depth: int) -> _Node:
        wanted = given.get("type", "object" if "properties" in given else None)
        types = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(types, list) or not types or not all(isinstance(t, str) and t in _KNOWN for t in types):  # pyright: ignore[reportUnknownVariableType]
            raise Invalid("generation.schema-unsupported", where=where, keyword="type")
        names: list[str] = types  # pyright: ignore[reportUnknownVariableType]
        self._refuse_others(given, {"type"}.union(*(_KNOWN[t] for t in names)), where)
        node = _Node(frozenset(names))
        if "string" in names:
            node = _Node(node.types, least=_count(given, "minLength", where, 0), most=_count(given, "maxLength", where, 1 << 30))
        if "array" in names:
            node = _Node(
                node.types,
                children=(self._compile(given.get("items"), f"{where}[]", depth + 1),),
                least=_count(given, "minItems", where, 0),
                most=_count(given, "maxItems", where, 1 << 30),
            )
        if "object" in names:
            node = self._of_object(given, node, where, depth)
        if len({"string", "array", "object"} & set(names)) > 1 or node.least > node.most:
            raise Invalid("generation.schema-unsupported", where=where, keyword="type")
        return node

    def _of_object(self, given: dict[str, Any], node: _Node, where: str, depth: int) -> _Node:
        properties, required = given.get("properties", {}), given.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list) or not {*required} <= {*properties}:
            raise Invalid("generation.schema-wrong", where=f"{where}.required")
        pairs: list[tuple[str, Any]] = list(properties.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        names = tuple(f"{json.dumps(name, ensure_ascii=False)}:".encode() for name, _ in pairs)
        children = tuple(self._compile(child, f"{where}.{name}", depth + 1) for name, child in pairs)
        return _Node(node.types, names=names, children=children, required=tuple(name in required for name, _ in pairs))

    @staticmethod
    def _refuse_others(given: dict[str, Any], known: set[str], where: str) -> None:
        other = sorted(set(given) - known - _NOTES)
        if other or isinstance(given.get("additionalProperties"), dict):
            raise Invalid("generation.schema-unsupported", where=where, keyword=other[0] if other else "additionalProperties")

    # ---- running

    def ended(self, state: State) -> bool:
        """Whether the JSON may end here."""
        return all(isinstance(task, _Number) and task.part in {1, 2, 4} for task in state) and len(state) <= 1

    def after(self, state: State, data: bytes) -> State | None:
        """The state behind ``data``; None: that may not come."""
        for byte in data:
            following = self._step(state, byte)
            if following is None:
                return None
            state = following
        return state

    def _first_bytes(self, state: State) -> frozenset[int]:
        return frozenset(b for b in range(256) if self._step(state, b) is not None)

    def _step(self, state: State, byte: int) -> State | None:
        if not state:
            return None
        rest, task = state[:-1], state[-1]
        match task:
            case _Words():
                left = tuple(c for c in task.choices if len(c) > task.at and c[task.at] == byte)
                return None if not left else rest if any(len(c) == task.at + 1 for c in left) else (*rest, _Words(left, task.at + 1))
            case _Value():
                return self._begin(rest, task.node, byte)
            case _String():
                return self._inside(rest, task, byte)
            case _Number():
                following = _digit(task, byte)
                if following is not None:
                    return (*rest, following)
                return self._step(rest, byte) if task.part in {1, 2, 4} else None
            case _Object():
                return self._property(rest, task, byte)
            case _Array():
                return self._item(rest, task, byte)
            case _Name():
                return self._named(rest, task, byte)

    def _begin(self, rest: State, number: int, byte: int) -> State | None:
        node = self._nodes[number]
        if node.words:
            return self._step((*rest, _Words(node.words)), byte)
        types = node.types
        if byte == ord("{") and "object" in types:
            return (*rest, _Object(number))
        if byte == ord("[") and "array" in types:
            return (*rest, _Array(number))
        if byte == ord('"') and "string" in types:
            return (*rest, _String(number))
        if "number" in types or "integer" in types:
            following = _digit(_Number("number" in types, -1, 0), byte)
            if following is not None:
                return (*rest, following)
        words = ((b"true", b"false") if "boolean" in types else ()) + ((b"null",) if "null" in types else ())
        return self._step((*rest, _Words(words)), byte) if words else None

    def _inside(self, rest: State, task: _String, byte: int) -> State | None:
        node = self._nodes[task.node]
        if task.escaped:
            return (*rest, _String(task.node, task.length)) if byte in ESCAPED else None
        if task.pending:
            return (*rest, _String(task.node, task.length, task.pending - 1)) if task.low <= byte <= task.high else None
        if byte == ord('"'):
            return rest if task.length >= node.least else None
        if task.length >= node.most or byte < 0x20 or 0x80 <= byte < 0xC2 or byte >= 0xF5:
            return None
        pending = (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        low, high = _SECOND.get(byte, (0x80, 0xBF))
        return (*rest, _String(task.node, task.length + 1, pending, escaped=byte == ord("\\"), low=low, high=high))

    def _property(self, rest: State, task: _Object, byte: int) -> State | None:
        node = self._nodes[task.node]
        if byte == ord("}") and not task.comma:
            return rest if not any(node.required[task.at :]) else None
        if byte == ord(",") and not task.first and not task.comma:
            return (*rest, _Object(task.node, task.at, first=False, comma=True)) if task.at < len(node.names) else None
        if byte != ord('"') or (not task.first and not task.comma):
            return None
        reachable = _reachable(node, task.at)
        return (*rest, _Name(task.node, reachable, 1)) if reachable else None

    def _named(self, rest: State, task: _Name, byte: int) -> State | None:
        node = self._nodes[task.node]
        left = tuple(i for i in task.choices if len(node.names[i]) > task.at and node.names[i][task.at] == byte)
        whole = [i for i in left if len(node.names[i]) == task.at + 1]
        if whole:
            return (*rest, _Object(task.node, whole[0] + 1, first=False), _Value(node.children[whole[0]]))
        return (*rest, _Name(task.node, left, task.at + 1)) if left else None

    def _item(self, rest: State, task: _Array, byte: int) -> State | None:
        node = self._nodes[task.node]
        if byte == ord("]"):
            return rest if task.count >= node.least else None
        if task.count >= node.most:
            return None
        following: State = (*rest, _Array(task.node, task.count + 1), _Value(node.children[0]))
        if task.count == 0:
            return self._step(following, byte)
        return following if byte == ord(",") else None

    # ---- ending

    def ending(self, state: State) -> bytes:
        """The shortest way to end: bytes that make the JSON whole."""
        return b"".join(self._ending(task) for task in reversed(state))

    def _ending(self, task: _Task) -> bytes:
        match task:
            case _Words():
                return min(task.choices, key=len)[task.at :]
            case _Value():
                return self._least(task.node)
            case _String():
                return bytes([task.low, 0x80, 0x80][: task.pending]) + (b"n" if task.escaped else b"") + b"a" * max(0, self._nodes[task.node].least - task.length) + b'"'
            case _Number():
                return b"" if task.part in {1, 2, 4} else b"0"
            case _Object():
                node = self._nodes[task.node]
                missing = [i for i in range(task.at, len(node.names)) if node.required[i]] or ([task.at] if task.comma else [])
                inner = b",".join(node.names[i] + self._least(node.children[i]) for i in missing)
                return (b"," if inner and not task.first and not task.comma else b"") + inner + b"}"
            case _Name():
                node = self._nodes[task.node]
                return min((node.names[i][task.at :] + self._least(node.children[i]) + self._ending(_Object(task.node, i + 1, first=False)) for i in task.choices), key=len)
            case _Array():
                node = self._nodes[task.node]
                missing = max(0, node.least - task.count)
                inner = b",".join([self._least(node.children[0])] * missing) if missing else b""
                return (b"," if inner and task.count else b"") + inner + b"]"

    def _least(self, number: int) -> bytes:
        node = self._nodes[number]
        if node.words:
            return min(node.words, key=len)
        for kind, shortest in (("integer", b"0"), ("number", b"0"), ("null", b"null"), ("boolean", b"true")):
            if kind in node.types:
                return shortest
        if "string" in node.types:
            return b'"' + b"a" * node.least + b'"'
        if "array" in node.types:
            return b"[" + self._ending(_Array(number))
        return b"{" + self._ending(_Object(number))


def _digit(task: _Number, byte: int) -> _Number | None:
    part, digits = task.part, task.digits
    if byte in DIGITS:
        if part == 1 or (part in {2, 4} and digits >= DIGITS_MAX):
            return None
        if part in {3, 4}:
            return _Number(task.fraction, 4, 1 if part == 3 else digits + 1)
        return _Number(task.fraction, 1 if byte == ord("0") and part < 1 else 2, digits + 1)
    if byte == ord("-") and part == -1:
        return _Number(task.fraction, 0, 0)
    return _Number(task.fraction, 3, 0) if byte == ord(".") and task.fraction and part in {1, 2} else None


def _reachable(node: _Node, at: int) -> tuple[int, ...]:
    """Properties that may come next: up to the first that must."""
    must = next((i for i in range(at, len(node.names)) if node.required[i]), len(node.names) - 1)
    return tuple(range(at, must + 1))


def _count(given: dict[str, Any], name: str, where: str, default: int) -> int:
    value: Any = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Invalid("generation.schema-wrong", where=f"{where}.{name}")
    return value
