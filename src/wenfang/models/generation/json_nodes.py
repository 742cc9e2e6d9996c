"""A JSON schema as nodes that refer to each other by number, and how soon each can end. Knows nothing of states or bytes that were written.

Size, depth, alternatives and patterns are bounded, and lengths are counted, never spelled: a hostile schema costs a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any, cast

from wenfang.core.errors import Invalid

from .bounds import Bounds
from .patterns import NEVER, Pattern, UnsupportedPattern

__all__ = ["Node", "Nodes"]

DEPTH_MAX = 32
SIZE_MAX = 2000
OPTIONS_MAX = 64
HEIGHT_MAX = 48
"""Objects and arrays that must stand in each other."""
APART_DEPTH = 4
_NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions", "additionalProperties"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_KNOWN: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "number": _BOUNDS,
    "integer": _BOUNDS,
    "boolean": frozenset(),
    "null": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Node:
    """One kind of value."""

    where: str
    types: frozenset[str] = frozenset()
    words: tuple[bytes, ...] = ()
    """enum and const."""
    options: tuple[int, ...] = ()
    """anyOf and oneOf."""
    names: tuple[bytes, ...] = ()
    """Properties with quotes and colon."""
    children: tuple[int, ...] = ()
    """Of each property, or of the items."""
    required: tuple[bool, ...] = ()
    least: int = 0
    most: int = 1 << 30
    bounds: Bounds | None = None
    pattern: Pattern | None = None


class Nodes:
    """A compiled schema.

    Args:
        schema: as JSON gives it.

    Raises:
        Invalid: `generation.schema-unsupported`, `generation.schema-wrong`.
    """

    def __init__(self, schema: Any) -> None:
        self.all: list[Node] = []
        self._schema = schema
        self._refs: dict[str, int] = {}
        self._resolving: set[str] = set()
        self._differ: list[tuple[str, tuple[int, ...]]] = []
        self.root = self._compile(schema, "$", 0)
        self.lengths, self.heights = self._least()
        for where, options in self._differ:
            if not all(self._apart(one, other, APART_DEPTH) for one, other in combinations(options, 2)):
                raise Invalid("generation.schema-unsupported", where=where, keyword="oneOf")

    def leaves(self, number: int) -> list[int]:
        """What a value of this node may be, alternatives of alternatives laid out."""
        found: dict[int, None] = {}
        seen, open_nodes = {number}, [number]
        while open_nodes:
            at = open_nodes.pop()
            if not self.all[at].options:
                found[at] = None
            for option in self.all[at].options[::-1]:
                if option not in seen:
                    seen.add(option)
                    open_nodes.append(option)
        return list(found)

    # ---- compiling

    def _compile(self, schema: Any, where: str, depth: int, pointer: str = "") -> int:
        if not isinstance(schema, dict) or depth > DEPTH_MAX or len(self.all) >= SIZE_MAX:
            raise Invalid("generation.schema-wrong", where=where)
        given = cast("dict[str, Any]", schema)
        if "$ref" in given:
            self._refuse_others(given, {"$ref"}, where)
            return self._referred(given["$ref"], where, depth)
        own = len(self.all)
        self.all.append(Node(where))
        if pointer or depth == 0:
            self._refs[pointer or "#"] = own
        several = [k for k in ("anyOf", "oneOf") if k in given]
        if several:
            self.all[own] = self._of_options(given, several[0], where, depth)
        elif "enum" in given or "const" in given:
            self.all[own] = self._of_words(given, where)
        else:
            self.all[own] = self._of_types(given, where, depth)
        return own

    def _referred(self, pointer: Any, where: str, depth: int) -> int:
        if isinstance(pointer, str) and pointer in self._refs:
            return self._refs[pointer]
        parts = pointer.split("/") if isinstance(pointer, str) else []
        if pointer != "#" and (len(parts) != 3 or parts[0] != "#" or parts[1] not in {"$defs", "definitions"}):
            raise Invalid("generation.schema-unsupported", where=where, keyword="$ref")
        name = parts[-1].replace("~1", "/").replace("~0", "~")
        found: Any = {"#": self._schema} if pointer == "#" else self._schema.get(parts[1])
        if pointer in self._resolving or not isinstance(found, dict) or name not in found:
            raise Invalid("generation.schema-wrong", where=f"{where}.$ref")
        self._resolving.add(pointer)
        self._refs[pointer] = self._compile(found[name], "/".join(parts), depth + 1, pointer)
        self._resolving.discard(pointer)
        return self._refs[pointer]

    def _of_options(self, given: dict[str, Any], keyword: str, where: str, depth: int) -> Node:
        self._refuse_others(given, {keyword}, where)
        options: Any = given[keyword]
        if not isinstance(options, list) or not 0 < len(cast("list[Any]", options)) <= OPTIONS_MAX:
            raise Invalid("generation.schema-wrong", where=f"{where}.{keyword}")
        numbers = tuple(self._compile(option, f"{where}.{keyword}[{i}]", depth + 1) for i, option in enumerate(cast("list[Any]", options)))
        if keyword == "oneOf":
            self._differ.append((where, numbers))
        return Node(where, options=numbers)

    def _of_words(self, given: dict[str, Any], where: str) -> Node:
        self._refuse_others(given, {"enum", "const", "type"}, where)
        values = given["enum"] if "enum" in given else [given["const"]]
        if not isinstance(values, list) or not values:
            raise Invalid("generation.schema-wrong", where=f"{where}.enum")
        try:
            words = tuple(dict.fromkeys(json.dumps(v, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() for v in cast("list[Any]", values)))
        except (ValueError, TypeError) as e:
            raise Invalid("generation.schema-wrong", where=f"{where}.enum") from e
        return Node(where, words=words)

    def _of_types(self, given: dict[str, Any], where: str, depth: int) -> Node:
        wanted = given.get("type", "object" if "properties" in given else None)
        types: Any = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(types, list) or not types or not all(isinstance(t, str) and t in _KNOWN for t in cast("list[Any]", types)):
            raise Invalid("generation.schema-unsupported", where=where, keyword="type")
        names = cast("list[str]", types)
        self._refuse_others(given, {"type"}.union(*(_KNOWN[t] for t in names)), where)
        kinds = frozenset(names)
        if len({"string", "array", "object"} & kinds) > 1:
            raise Invalid("generation.schema-unsupported", where=where, keyword="type")
        bounds = _bounds(given, where, whole="number" not in kinds) if kinds & {"number", "integer"} else None
        node = Node(where, kinds, bounds=bounds)
        if "string" in kinds:
            pattern = _pattern(given, where)
            node = Node(where, kinds, least=_count(given, "minLength", where, 0), most=_count(given, "maxLength", where, 1 << 30), bounds=bounds, pattern=pattern)
        elif "array" in kinds:
            item = self._compile(given.get("items"), f"{where}[]", depth + 1)
            node = Node(where, kinds, children=(item,), least=_count(given, "minItems", where, 0), most=_count(given, "maxItems", where, 1 << 30), bounds=bounds)
        elif "object" in kinds:
            node = self._of_object(given, kinds, where, depth, bounds)
        if node.least > node.most:
            raise Invalid("generation.schema-wrong", where=where)
        return node

    def _of_object(self, given: dict[str, Any], kinds: frozenset[str], where: str, depth: int, bounds: Bounds | None) -> Node:
        properties, required = given.get("properties", {}), given.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list) or not all(r in properties for r in cast("list[Any]", required)):
            raise Invalid("generation.schema-wrong", where=f"{where}.required")
        pairs = list(cast("dict[str, Any]", properties).items())
        names = tuple(f"{json.dumps(name, ensure_ascii=False)}:".encode() for name, _ in pairs)
        children = tuple(self._compile(child, f"{where}.{name}", depth + 1) for name, child in pairs)
        return Node(where, kinds, names=names, children=children, required=tuple(name in required for name, _ in pairs), bounds=bounds)

    @staticmethod
    def _refuse_others(given: dict[str, Any], known: set[str], where: str) -> None:
        other = sorted(set(given) - known - _NOTES)
        if other or isinstance(given.get("additionalProperties"), dict):
            raise Invalid("generation.schema-unsupported", where=where, keyword=other[0] if other else "additionalProperties")

    # ---- measuring

    def _least(self) -> tuple[list[int], list[int]]:
        """Bytes of the shortest value of each node, and how many objects and arrays stand in each other there."""
        lengths, heights = [NEVER] * len(self.all), [0] * len(self.all)
        for _ in range(HEIGHT_MAX):
            changed = False
            for number in range(len(self.all) - 1, -1, -1):
                length, height = self._shortest(self.all[number], lengths, heights)
                if length < lengths[number]:
                    lengths[number], heights[number], changed = length, height, True
            if not changed:
                break
        else:
            raise Invalid("generation.schema-wrong", where="$")
        if NEVER in lengths:
            raise Invalid("generation.schema-wrong", where=self.all[lengths.index(NEVER)].where)
        return lengths, heights

    def _shortest(self, node: Node, lengths: list[int], heights: list[int]) -> tuple[int, int]:
        if node.words:
            return min(map(len, node.words)), 0
        if node.options:
            return min((lengths[option], heights[option]) for option in node.options)
        found: list[tuple[int, int]] = [(4, 0)] * bool(node.types & {"null", "boolean"})
        if node.bounds is not None:
            found.append((NEVER if (left := node.bounds.left("")) is None else left, 0))
        if "string" in node.types:
            found.append((2 + (node.least if node.pattern is None else node.pattern.left(node.pattern.start)), 0))
        if "array" in node.types:
            inner = node.least * (lengths[node.children[0]] + 1) - 1 if node.least else 0
            found.append((2 + inner, 1 + (heights[node.children[0]] if node.least else 0)))
        if "object" in node.types:
            must = [i for i, wanted in enumerate(node.required) if wanted]
            inner = sum(len(node.names[i]) + lengths[node.children[i]] + 1 for i in must) - bool(must)
            found.append((2 + inner, 1 + max((heights[node.children[i]] for i in must), default=0)))
        length, height = min(found)
        return min(length, NEVER), height

    def _apart(self, one: int, other: int, depth: int) -> bool:
        """Whether no value is of both, as far as that is plain."""
        a, b = self.all[one], self.all[other]
        if a.options or b.options:
            return depth > 0 and all(self._apart(x, y, depth - 1) for x in self.leaves(one) for y in self.leaves(other))
        if a.words and b.words:
            return not {_plain(w) for w in a.words} & {_plain(w) for w in b.words}
        kinds, others = _kinds(a), _kinds(b)
        if not kinds & others:
            return True
        if kinds & others != frozenset({"object"}) or a.words or b.words or depth == 0:
            return False
        shared = [(a.names.index(name), b.names.index(name)) for name in set(a.names) & set(b.names)]
        return any(a.required[i] and b.required[j] and self._apart(a.children[i], b.children[j], depth - 1) for i, j in shared)


def _kinds(node: Node) -> frozenset[str]:
    """Types of the values of a node, whole numbers among the numbers."""
    first = {b"{": "object", b"[": "array", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null"}
    found = {first.get(w[:1], "number") for w in node.words} or node.types
    return frozenset("number" if kind == "integer" else kind for kind in found)


def _plain(word: bytes) -> str:
    """A value so that equal ones are equal: 1 and 1.0."""
    value: Any = json.loads(word)
    return repr(Fraction(str(value))) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value, sort_keys=True)


def _count(given: dict[str, Any], name: str, where: str, default: int) -> int:
    value: Any = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 30:
        raise Invalid("generation.schema-wrong", where=f"{where}.{name}")
    return value


def _bounds(given: dict[str, Any], where: str, *, whole: bool) -> Bounds:
    found: dict[str, Fraction] = {}
    for name in sorted(_BOUNDS & set(given)):
        value: Any = given[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 10**15:
            raise Invalid("generation.schema-wrong", where=f"{where}.{name}")
        found[name] = Fraction(str(value))
    low, high = (_sharper(found.get(a), found.get(b), pick) for a, b, pick in (("minimum", "exclusiveMinimum", max), ("maximum", "exclusiveMaximum", min)))
    return Bounds(whole, low, high, above=low is not None and low == found.get("exclusiveMinimum"), below=high is not None and high == found.get("exclusiveMaximum"))


def _sharper(one: Fraction | None, other: Fraction | None, pick: Callable[..., Fraction]) -> Fraction | None:
    given = [v for v in (one, other) if v is not None]
    return pick(given) if given else None


def _pattern(given: dict[str, Any], where: str) -> Pattern | None:
    if "pattern" not in given:
        return None
    if {"minLength", "maxLength"} & set(given) or not isinstance(given["pattern"], str):
        raise Invalid("generation.schema-unsupported", where=where, keyword="pattern")
    try:
        return Pattern(given["pattern"], _cost)
    except UnsupportedPattern as e:
        raise Invalid("generation.schema-unsupported", where=f"{where}.pattern", keyword=f"pattern {e}".strip()) from e


def _cost(low: int, high: int) -> int:
    """Bytes of the cheapest character in ``[low, high]`` inside quotes."""
    if any(low <= c <= high for c in range(max(low, 0x20), min(high, 0x7F) + 1) if c not in {0x22, 0x5C}):
        return 1
    if any(low <= c <= high for c in (8, 9, 10, 12, 13, 0x22, 0x5C)) or (low <= 0x7FF and high >= 0x80):
        return 2
    if (low <= 0xD7FF and high >= 0x800) or (low <= 0xFFFF and high >= 0xE000):
        return 3
    return 4 if high >= 0x10000 else NEVER
