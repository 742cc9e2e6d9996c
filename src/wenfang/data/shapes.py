"""JSON objects of the labelling world → text, label or spans. Knows the shapes of doccano, CLUENER, Prodigy and their kin, nothing of files.

Spans of one text are sorted and must not overlap. Where a shape carries the surface of a span it must equal the slice; offsets that
were counted in UTF-16 units (a browser's) are mended and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

from wenfang.core.text import has_surrogate

from .columns import RawSpan
from .imported import LABELS
from .tagging import decode, join_tokens, loose_begin, parse_tag, per_character

__all__ = ["Unusable", "is_labels", "label_of", "labels_of", "spans_key", "spans_of", "split_labels", "string_of", "tokens_of"]

SPAN_KEYS = ("label", "labels", "entities", "spans", "entity_list", "ner_tags", "tags")
LABEL_LIST_KEYS = ("label", "labels", "tags", "categories", "category", "topics", "intents", "标签", "类别")
LABEL_MARKS = ("|", ";", "；", ",", "，", "、")
TOKEN_KEYS = ("tokens", "words", "chars")
Found = tuple[int, int, str, str | None]
"""(start, end, label, surface if the shape tells it)."""


class Unusable(Exception):
    """A row that cannot be used, with the reason's code; it goes to quarantine."""


def string_of(value: object) -> str | None:
    """A cell as text: strings as they are, numbers as JSON writes them; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else None


def _list(value: object) -> list[Any] | None:
    return cast("list[Any]", value) if isinstance(value, list) else None


def _table(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def label_of(value: object) -> str | None:
    """The one label in ``value``: a string, number or a list of one."""
    items = _list(value)
    if items is None:
        return string_of(value)
    if len(items) > 1:
        raise Unusable("several-labels")
    return label_of(items[0]) if items else None


def is_labels(key: str, value: object) -> bool:
    """Whether ``value`` under ``key`` is a list of labels, of any number but one."""
    items = _list(value)
    return items is not None and len(items) != 1 and key.casefold() in LABEL_LIST_KEYS and all(isinstance(item, (str, int)) for item in items)


def labels_of(value: object) -> str | None:
    """The labels in ``value``, each with ``LABELS`` before it; a string as it is, for ``split_labels``."""
    items = _list(value)
    if items is None:
        return string_of(value)
    return LABELS + LABELS.join(name.strip() for name in map(label_of, items) if name)


def split_labels(text: str) -> str:
    """The labels of one cell, sorted and joined by ``LABELS``; they stand between the first of ``LABEL_MARKS`` that occurs.

    >>> split_labels("物流|售后").split(LABELS), split_labels("")
    (['售后', '物流'], '')
    """
    mark = LABELS if text.startswith(LABELS) else next((m for m in LABEL_MARKS if m in text), LABELS)
    return LABELS.join(sorted({part.strip() for part in text.split(mark) if part.strip()}))


def tokens_of(row: dict[str, Any], key: str) -> list[str] | None:
    """The tokens under ``key``, if it holds a list of strings."""
    items = _list(row.get(key))
    return items if items is not None and all(isinstance(t, str) for t in items) else None


def spans_key(row: dict[str, Any]) -> str | None:
    """The key of ``row`` that holds spans, if one does for certain."""
    for key in SPAN_KEYS:
        value = row.get(key)
        if (table := _table(value)) and all(_by_surface(v) for v in table.values()):
            return key
        if items := _list(value):
            if _span_like(items[0]):
                return key
            if tokens_of(row, key) and any(len(tokens_of(row, k) or ()) == len(items) for k in TOKEN_KEYS):
                return key
    return None


def _by_surface(value: object) -> bool:
    table = _table(value)
    return bool(table) and all(_list(places) is not None for places in table.values())


def _span_like(item: object) -> bool:
    try:
        _one(item)
    except Unusable:
        return False
    return True


def _one(item: object) -> Found:
    """The span in one item of a list: ``[s, e, label]`` or an object under any of the usual names."""
    if (triple := _list(item)) is not None:
        if len(triple) != 3 or not isinstance(triple[2], str):
            raise Unusable("bad-span")
        return _int(triple[0]), _int(triple[1]), triple[2], None
    row = _table(item)
    if row is None:
        raise Unusable("bad-span")
    place = _table(row.get("entity_index")) or row
    start = next((place[k] for k in ("start_offset", "start", "begin", "start_idx") if k in place), None)
    end = next((place[k] for k in ("end_offset", "end", "end_idx") if k in place), None)
    label = label_of(next((row[k] for k in ("label", "type", "entity_type", "labels") if k in row), None))
    if label is None:
        raise Unusable("bad-span")
    surface = next((row[k] for k in ("surface", "entity", "text", "word") if isinstance(row.get(k), str)), None)
    return _int(start), _int(end), label, surface


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unusable("bad-span")
    return value


def _found(value: object) -> Iterator[Found]:
    if (items := _list(value)) is not None:
        yield from map(_one, items)
        return
    table = _table(value)
    if table is None:
        raise Unusable("bad-span")
    for label, surfaces in table.items():  # CLUENER: {label: {surface: [[start, last]]}}, the last code point included
        for surface, places in (_table(surfaces) or {"": None}).items():
            for place in _list(places) or [None]:
                pair = _list(place)
                if pair is None or len(pair) != 2:
                    raise Unusable("bad-span")
                yield _int(pair[0]), _int(pair[1]) + 1, label, surface


def spans_of(row: dict[str, Any], text_key: str, key: str) -> tuple[str | None, list[RawSpan] | None, int]:
    """(text, spans, repairs) of one row; None where text or label is missing.

    Raises:
        Unusable: `bad-span`, `span-outside`, `span-overlap`, `span-text-differs`.
    """
    value = row.get(key)
    if (tokens := tokens_of(row, text_key)) is not None:
        tags = tokens_of(row, key)
        if tags is None or len(tags) != len(tokens) or any(parse_tag(t) is None for t in tags):
            raise Unusable("bad-span")
        text, starts, ends = join_tokens(tokens, characters=per_character(tokens))
        return text, *decode(tags, starts, ends, loose=loose_begin(tags))
    text = string_of(row.get(text_key))
    if text is None or value is None:
        return text, None, 0
    spans: set[RawSpan] = set()
    repairs = 0
    for found in _found(value):
        start, end, mended = _placed(text, found)
        repairs += mended
        spans.add((start, end, found[2].strip()))
    ordered = sorted(spans)
    if any(a[1] > b[0] for a, b in pairwise(ordered)):
        raise Unusable("span-overlap")
    return text, ordered, repairs


def _placed(text: str, found: Found) -> tuple[int, int, bool]:
    """(start, end, whether they were mended) of a span, checked against its surface if that is known."""
    start, end, label, surface = found
    if not label.strip() or has_surrogate(label):
        raise Unusable("bad-span")
    inside = 0 <= start < end <= len(text)
    if inside and surface in {None, text[start:end]}:
        return start, end, False
    if surface is not None:
        start, end = _from_utf16(text, start, end)
        if start < end and text[start:end] == surface:
            return start, end, True
    raise Unusable("span-text-differs" if inside else "span-outside")


def _from_utf16(text: str, start: int, end: int) -> tuple[int, int]:
    """Offsets counted in UTF-16 units, as browsers do, in code points; (0, 0) if they are outside."""
    units = text.encode("utf-16-le", errors="surrogatepass")
    if not 0 <= start < end <= len(units) // 2:
        return 0, 0
    return len(units[: 2 * start].decode("utf-16-le", errors="replace")), len(units[: 2 * end].decode("utf-16-le", errors="replace"))
