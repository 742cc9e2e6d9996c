"""What a graph says about answers: conditions (``intent.label == '退款' and intent.score > 0.8``) and texts with places (``"{intent.label}: {text}"``).

A small language of its own, read by Python's parser and made of nothing but what is named here; never evaluated by Python. Pure
functions; knows nothing of graphs, models or requests.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wenfang.core.errors import Invalid
from wenfang.core.examples import Output

__all__ = ["Condition", "Place", "Row", "Template", "condition", "template", "value_of"]

EXPRESSION_MAX_CHARS = 500
TEXT_MAX_CHARS = 10_000
JOINED = "、"
"""Between several values in one text."""
REQUEST = frozenset({"text", "text_b"})
"""What the request itself gives."""
FIELDS = frozenset({"label", "labels", "score", "spans", "text", "answered"})
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Place:
    """A value that is known later: of the request (``step`` empty), or a field of a step's answer."""

    step: str
    field: str
    label: str = ""
    """Of spans: only those of this label."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known about one text so far."""

    text: str
    text_b: str
    answers: Mapping[str, tuple[Output, str]]
    """By step: its answer, and the text it was asked about. A step that was left out is not there."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether a step runs."""

    source: str
    holds: Callable[[Row], bool]
    places: tuple[Place, ...]
    literals: tuple[tuple[Place, str], ...]
    """(place, text it is compared with): labels can be checked before anything runs."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with places; None from ``fill`` where one of them has no value."""

    source: str
    parts: tuple[str | Place, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """What it needs."""
        return tuple(part for part in self.parts if isinstance(part, Place))

    def fill(self, row: Row) -> str | None:
        """The text, for one row."""
        if len(self.parts) == 1 and self.parts[0] == Place("", "text"):
            return row.text
        told: list[str] = []
        for part in self.parts:
            value = part if isinstance(part, str) else value_of(part, row)
            if value is None:
                return None
            told.append(value if isinstance(value, str) else _said(value))
        return "".join(told)


def value_of(place: Place, row: Row) -> Any:
    """The value of a place: text, number, or tuple of texts; None: there is none."""
    if not place.step:
        return row.text if place.field == "text" else row.text_b
    found = row.answers.get(place.step)
    if place.field == "answered":
        return found is not None
    if found is None:
        return None
    output, text = found
    if place.field != "spans" or output.spans is None:
        return getattr(output, place.field)
    return tuple(text[s.start : s.end] for s in output.spans if place.label in {"", s.label})


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return JOINED.join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return f"{value:.4f}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------ texts
def template(source: str) -> Template:
    """A text with places in braces; ``{{`` and ``}}`` are braces themselves.

    Raises:
        Invalid: `graph.bad-text`.

    >>> template("{text}").fill(Row("你好", "", {}))
    '你好'
    >>> template("{{{a.label}}}: {text}").fill(Row("你好", "", {"a": (Output(label="x"), "")}))
    '{x}: 你好'
    """
    if len(source) > TEXT_MAX_CHARS:
        raise Invalid("graph.bad-text", text=source[:60], reason=f"it has more than {TEXT_MAX_CHARS} characters")
    parts: list[str | Place] = []
    at = 0
    for found in _PLACE.finditer(source):
        parts.append(source[at : found.start()])
        at = found.end()
        if found[0] in {"{{", "}}"}:
            parts.append(found[0][0])
        elif found[1] is None:
            raise Invalid("graph.bad-text", text=source[:60], reason=f"a {found[0]} has no other brace; {found[0] * 2} is a brace itself")
        else:
            parts.append(_place_in_text(found[1].strip(), source))
    parts.append(source[at:])
    return Template(source, _joined(parts))


def _joined(parts: Sequence[str | Place]) -> tuple[str | Place, ...]:
    """Neighbouring strings together, empty ones gone."""
    found: list[str | Place] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return tuple(found)


def _place_in_text(words: str, source: str) -> Place:
    step, _, rest = words.partition(".")
    field, _, label = rest.partition(".")
    if not rest and step in REQUEST:
        return Place("", step)
    if field not in FIELDS - {"answered"} or (label and field != "spans"):
        known = ", ".join(["text", "text_b", *(f"STEP.{f}" for f in sorted(FIELDS - {"answered"})), "STEP.spans.LABEL"])
        raise Invalid("graph.bad-text", text=source[:60], reason=f"{{{words[:40]}}} is none of {known}")
    return Place(step, field, label)


# ------------------------------------------------------------ conditions
def condition(source: str) -> Condition:
    """A condition: comparisons (``== != < <= > >= in not in``) of places, texts, numbers and lists of them, with ``and``, ``or``, ``not`` and brackets.

    A comparison with a value that is not there does not hold, whatever it says.

    Raises:
        Invalid: `graph.bad-condition`.

    >>> seen = Row("订单", "", {"a": (Output(label="x", score=0.5), "")})
    >>> condition("a.label == 'x' and not a.score > 0.8").holds(seen), condition("b.label != 'x' or '退' in text").holds(seen)
    (True, False)
    """
    if len(source) > EXPRESSION_MAX_CHARS:
        raise _bad(source, f"it has more than {EXPRESSION_MAX_CHARS} characters")
    if "\\" in source:
        raise _bad(source, "it has a backslash")
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise _bad(source, "it cannot be read") from e
    places: list[Place] = []
    literals: list[tuple[Place, str]] = []
    try:
        holds = _truth(tree, source, places, literals)
    except RecursionError as e:
        raise _bad(source, "its brackets are too deep") from e
    return Condition(source, holds, tuple(places), tuple(literals))


def _bad(source: str, reason: str) -> Invalid:
    return Invalid("graph.bad-condition", condition=source[:80], reason=reason)


def _truth(node: ast.expr, source: str, places: list[Place], literals: list[tuple[Place, str]]) -> Callable[[Row], bool]:
    """What says yes or no."""
    match node:
        case ast.BoolOp(op=op, values=values):
            each = [_truth(v, source, places, literals) for v in values]
            if isinstance(op, ast.And):
                return lambda row: all(one(row) for one in each)
            return lambda row: any(one(row) for one in each)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            one = _truth(operand, source, places, literals)
            return lambda row: not one(row)
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            each = [_comparison(a, op, b, source, places, literals) for a, op, b in zip(sides, ops, others, strict=False)]
            return each[0] if len(each) == 1 else lambda row: all(one(row) for one in each)
        case ast.Attribute(attr="answered"):
            place = _place(node, source)
            places.append(place)
            return lambda row: bool(value_of(place, row))
        case _:
            raise _bad(source, f"{ast.unparse(node)[:40]} is no comparison")


def _comparison(a: ast.expr, op: ast.cmpop, b: ast.expr, source: str, places: list[Place], literals: list[tuple[Place, str]]) -> Callable[[Row], bool]:
    compare = _COMPARE.get(type(op))
    if compare is None:
        raise _bad(source, "only == != < <= > >= in and not in compare")
    left, right = _value(a, source), _value(b, source)
    found = [side for side in (left, right) if isinstance(side, Place)]
    if not found:
        raise _bad(source, f"{ast.unparse(a)[:20]} and {ast.unparse(b)[:20]} are both known already")
    places.extend(found)
    for place, other in ((left, right), (right, left)):
        part = isinstance(op, (ast.In, ast.NotIn)) and place is right  # '退' in a.label looks for a piece of it
        if isinstance(place, Place) and place.field in {"label", "labels"} and not isinstance(other, Place) and not (part and place.field == "label"):
            literals.extend((place, text) for text in (other if isinstance(other, tuple) else (other,)) if isinstance(text, str))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    def holds(row: Row) -> bool:
        x = value_of(left, row) if isinstance(left, Place) else left
        y = value_of(right, row) if isinstance(right, Place) else right
        try:
            return x is not None and y is not None and bool(compare(x, y))
        except TypeError:  # a text is neither below nor above a number
            return False

    return holds


def _value(node: ast.expr, source: str) -> Place | str | float | tuple[str | float, ...]:
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return tuple(_literal(e, source) for e in elements)
        case ast.Name(id=name) if name in REQUEST:
            return Place("", name)
        case ast.Attribute() | ast.Subscript():
            return _place(node, source)
        case _:
            raise _bad(source, f"{ast.unparse(node)[:40]} is neither a text, a number, a list nor a place like STEP.label")


def _literal(node: ast.expr, source: str) -> str | float:
    value = _value(node, source)
    if not isinstance(value, (str, int, float)):
        raise _bad(source, f"in a list {ast.unparse(node)[:40]} is neither a text nor a number")
    return value


def _place(node: ast.expr, source: str) -> Place:
    label = ""
    if isinstance(node, ast.Subscript):
        if not (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)):
            raise _bad(source, "in brackets behind spans there is one label, as in STEP.spans['PER']")
        node, label = node.value, node.slice.value
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)) or node.attr not in FIELDS or (label and node.attr != "spans"):
        raise _bad(source, f"{ast.unparse(node)[:40]} is none of text, text_b, {', '.join(f'STEP.{f}' for f in sorted(FIELDS))}, STEP.spans['LABEL']")
    return Place(node.value.id, node.attr, label)
