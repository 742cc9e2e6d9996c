"""JSON of a schema, byte by byte: what may come next, and how many bytes it needs to end. Knows nothing of tokens or networks.

A useful part of JSON Schema: objects whose properties come in the schema's order, arrays, strings with a ``pattern``, numbers and integers between
bounds, booleans, null, ``enum``, ``const``, ``anyOf``, ``oneOf`` of what is plainly different, and ``$ref`` to ``$defs``. No blanks are written.

A state is a tuple of stacks, one for each way in which the text may still be meant; a stack is a tuple of open tasks, the innermost last. Nothing in
it ever changes, so that beams may share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .bounds import DIGITS_MAX, Bounds
from .json_nodes import Node, Nodes

__all__ = ["Schema", "State"]

DIGITS = frozenset(b"0123456789")
ESCAPED = {0x22: 0x22, 0x5C: 0x5C, 0x2F: 0x2F, 0x62: 8, 0x66: 12, 0x6E: 10, 0x72: 13, 0x74: 9}
"""What may follow a backslash, and the character it means."""
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
"""What may follow some first bytes of UTF-8 (RFC 3629, section 4)."""
STACKS_MAX = 32
"""Ways that are followed at once; of more, those that end soonest."""
NESTING_MAX = 96
"""Objects and arrays in each other; more than any schema needs (``json_nodes.HEIGHT_MAX``)."""


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
    states: frozenset[int] | None = None
    """Of the pattern, before the character that is not whole."""
    code: int = 0
    """Of that character, as far as it stands."""

    def codes(self) -> tuple[int, int]:
        """Between which code points that character will be."""
        behind = 6 * (self.pending - 1)
        first, last = (self.code << 6 | self.low & 0x3F) << behind, ((self.code << 6 | self.high & 0x3F) + 1 << behind) - 1
        return first, last


@dataclass(frozen=True, slots=True)
class _Number:
    """``text`` stands."""

    bounds: Bounds
    text: str


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
Stack = tuple[_Task, ...]
State = tuple[Stack, ...]
_NONE: State = ()
_QUOTE = frozenset(b'"')
_INNER = frozenset([*range(0x20, 0x80), *range(0xC2, 0xF5)]) - _QUOTE
"""With what a character inside quotes begins."""


class Schema:
    """A compiled schema.

    Args:
        schema: as JSON gives it.

    Raises:
        Invalid: `generation.schema-unsupported`, `generation.schema-wrong`.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._nodes = Nodes(schema)
        self._node = self._nodes.all
        self.start: State = ((_Value(self._nodes.root),),)
        self.first_bytes = lru_cache(maxsize=1024)(self._first_bytes)
        self._leaves = lru_cache(maxsize=None)(self._nodes.leaves)

    def spelled(self) -> set[str]:
        """Characters that names and words of the schema are made of."""
        return {c for node in self._node for word in (*node.words, *node.names) for c in word.decode()}

    def ended(self, state: State) -> bool:
        """Whether the JSON may end here."""
        return state == () or any(self.needs((stack,)) == 0 for stack in state)

    def after(self, state: State, data: bytes) -> State | None:
        """The state behind ``data``, empty when nothing may follow; None: that may not come."""
        for byte in data:
            found = dict.fromkeys(following for stack in state for following in self._step(stack, byte))
            if not found:
                return None
            state = tuple(found)
            if len(state) > STACKS_MAX:
                state = tuple(sorted(state, key=lambda stack: self.needs((stack,)))[:STACKS_MAX])
            if state == ((),):
                state = ()
        return state

    def needs(self, state: State) -> int:
        """Bytes of the shortest end."""
        return min((sum(self._needs(task) for task in stack) for stack in state), default=0)

    def _first_bytes(self, state: State) -> frozenset[int]:
        return frozenset[int]().union(*(self._first(stack) for stack in state))

    def _first(self, stack: Stack) -> frozenset[int]:
        task = stack[-1] if stack else None
        if isinstance(task, _String) and task.states is None and not task.escaped and not task.pending:  # most of what is written
            node = self._node[task.node]
            inner = _INNER if task.length < node.most else frozenset[int]()
            return inner | _QUOTE if task.length >= node.least else inner
        return frozenset(b for b in range(256) if self._step(stack, b))

    # ---- running: each gives the stacks that may follow

    def _step(self, stack: Stack, byte: int) -> State:
        if not stack:
            return _NONE
        rest, task = stack[:-1], stack[-1]
        match task:
            case _Words():
                return _word(rest, task, byte)
            case _Value():
                return tuple(found for leaf in self._leaves(task.node) for found in self._begin(rest, leaf, byte))
            case _String():
                return self._inside(rest, task, byte)
            case _Number():
                following = _digit(task, byte)
                if following is not None:
                    return ((*rest, following),)
                return self._step(rest, byte) if task.bounds.left(task.text) == 0 else _NONE
            case _Object():
                return self._property(rest, task, byte)
            case _Array():
                return self._item(rest, task, byte)
            case _Name():
                return self._named(rest, task, byte)

    def _begin(self, rest: Stack, number: int, byte: int) -> State:
        node = self._node[number]
        if node.words:
            return _word(rest, _Words(node.words), byte)
        types = node.types
        if byte in b"{[" and len(rest) + self._nodes.heights[number] > NESTING_MAX:
            return _NONE
        if byte == ord("{") and "object" in types:
            return ((*rest, _Object(number)),)
        if byte == ord("[") and "array" in types:
            return ((*rest, _Array(number)),)
        if byte == ord('"') and "string" in types:
            return ((*rest, _String(number, states=None if node.pattern is None else node.pattern.start)),)
        if node.bounds is not None:
            following = _digit(_Number(node.bounds, ""), byte)
            if following is not None:
                return ((*rest, following),)
        words = ((b"true", b"false") if "boolean" in types else ()) + ((b"null",) if "null" in types else ())
        return _word(rest, _Words(words), byte)

    def _inside(self, rest: Stack, task: _String, byte: int) -> State:
        node = self._node[task.node]
        if task.escaped:
            return self._with(rest, task, node, (ESCAPED[byte], ESCAPED[byte])) if byte in ESCAPED else _NONE
        if task.pending:
            if not task.low <= byte <= task.high:
                return _NONE
            following = _String(task.node, task.length, task.pending - 1, states=task.states, code=task.code << 6 | byte & 0x3F)
            return self._with(rest, following, node, (following.code, following.code) if following.pending == 0 else following.codes())
        if byte == ord('"'):
            whole = task.length >= node.least and (node.pattern is None or task.states is None or node.pattern.accepts(task.states))
            return (rest,) if whole else _NONE
        if task.length >= node.most or byte < 0x20 or 0x80 <= byte < 0xC2 or byte >= 0xF5:
            return _NONE
        if byte == ord("\\"):
            following = _String(task.node, task.length, escaped=True, states=task.states)
            return ((*rest, following),) if self._needs(following) < 1 << 40 else _NONE
        pending = (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        low, high = _SECOND.get(byte, (0x80, 0xBF))
        following = _String(task.node, task.length, pending, low=low, high=high, states=task.states, code=byte & (0x7F, 0x1F, 0x0F, 0x07)[pending])
        return self._with(rest, following, node, (byte, byte) if pending == 0 else following.codes())

    @staticmethod
    def _with(rest: Stack, task: _String, node: Node, codes: tuple[int, int]) -> State:
        """The string with a character of ``codes`` more, or with part of it."""
        states = task.states
        if node.pattern is not None and states is not None:
            following = node.pattern.after(states, *codes)
            if not following:
                return _NONE
            states = states if task.pending else following
        if task.pending:
            return ((*rest, task),)
        return ((*rest, _String(task.node, task.length + 1, states=states)),)

    def _property(self, rest: Stack, task: _Object, byte: int) -> State:
        node = self._node[task.node]
        if byte == ord("}") and not task.comma:
            return (rest,) if not any(node.required[task.at :]) else _NONE
        if byte == ord(",") and not task.first and not task.comma:
            return ((*rest, _Object(task.node, task.at, first=False, comma=True)),) if task.at < len(node.names) else _NONE
        if byte != ord('"') or (not task.first and not task.comma):
            return _NONE
        reachable = _reachable(node, task.at)
        return ((*rest, _Name(task.node, reachable, 1)),) if reachable else _NONE

    def _named(self, rest: Stack, task: _Name, byte: int) -> State:
        node = self._node[task.node]
        left = tuple(i for i in task.choices if len(node.names[i]) > task.at and node.names[i][task.at] == byte)
        whole = [i for i in left if len(node.names[i]) == task.at + 1]
        if whole:
            return ((*rest, _Object(task.node, whole[0] + 1, first=False), _Value(node.children[whole[0]])),)
        return ((*rest, _Name(task.node, left, task.at + 1)),) if left else _NONE

    def _item(self, rest: Stack, task: _Array, byte: int) -> State:
        node = self._node[task.node]
        if byte == ord("]"):
            return (rest,) if task.count >= node.least else _NONE
        if task.count >= node.most:
            return _NONE
        following: Stack = (*rest, _Array(task.node, task.count + 1), _Value(node.children[0]))
        if task.count == 0:
            return self._step(following, byte)
        return (following,) if byte == ord(",") else _NONE

    # ---- ending

    def _needs(self, task: _Task) -> int:
        lengths = self._nodes.lengths
        match task:
            case _Words():
                return min(map(len, task.choices)) - task.at
            case _Value():
                return lengths[task.node]
            case _String():
                return self._closing(task)
            case _Number():
                return task.bounds.left(task.text) or 0
            case _Object():
                node = self._node[task.node]
                missing = [i for i in range(task.at, len(node.names)) if node.required[i]] or ([task.at] if task.comma else [])
                inner = sum(len(node.names[i]) + lengths[node.children[i]] + 1 for i in missing) - bool(missing)
                return inner + bool(missing and not task.first and not task.comma) + 1
            case _Name():
                node = self._node[task.node]
                return min(len(node.names[i]) - task.at + lengths[node.children[i]] + self._needs(_Object(task.node, i + 1, first=False)) for i in task.choices)
            case _Array():
                node = self._node[task.node]
                missing = max(0, node.least - task.count)
                return missing * (lengths[node.children[0]] + 1) - bool(missing and not task.count) + 1

    def _closing(self, task: _String) -> int:
        pattern = self._node[task.node].pattern
        if pattern is None or task.states is None:
            more = task.length + (task.escaped or task.pending > 0)
            return task.pending + task.escaped + max(0, self._node[task.node].least - more) + 1
        if task.escaped:
            return 2 + min(pattern.left(pattern.after(task.states, c, c)) for c in ESCAPED.values())
        states = pattern.after(task.states, *task.codes()) if task.pending else task.states
        return task.pending + pattern.left(states) + 1


def _word(rest: Stack, task: _Words, byte: int) -> State:
    left = tuple(c for c in task.choices if len(c) > task.at and c[task.at] == byte)
    longer = tuple(c for c in left if len(c) > task.at + 1)
    return ((rest,) if len(longer) < len(left) else ()) + (((*rest, _Words(longer, task.at + 1)),) if longer else ())


def _digit(task: _Number, byte: int) -> _Number | None:
    text, whole = task.text, task.bounds.whole
    digits, point, fraction = text.lstrip("-").partition(".")
    if byte in DIGITS:
        if len(fraction) >= DIGITS_MAX or (not point and (digits == "0" or len(digits) >= DIGITS_MAX)):
            return None
    elif not (byte == ord("-") and not text) and not (byte == ord(".") and digits and not point and not whole):
        return None
    following = text + chr(byte)
    return _Number(task.bounds, following) if task.bounds.left(following) is not None else None


def _reachable(node: Node, at: int) -> tuple[int, ...]:
    """Properties that may come next: up to the first that must."""
    must = next((i for i in range(at, len(node.names)) if node.required[i]), len(node.names) - 1)
    return tuple(range(at, must + 1))
