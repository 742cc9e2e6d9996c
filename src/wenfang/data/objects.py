"""Parsed JSON objects → looks and batches: the common ground of jsonl, json and nested Parquet. Knows shapes, not files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from wenfang.core.text import has_surrogate

from .columns import Batch, Fields, Look, frame_of, int64
from .shapes import Unusable, is_labels, label_of, labels_of, spans_key, spans_of, string_of, tokens_of
from .tagging import join_tokens, per_character
from .turns import chat_examples, turns_key, whole_conversation

__all__ = ["Objects", "batch_objects", "look_objects"]

Objects = Iterable[tuple[int, dict[str, Any]]]
"""(line, object)."""


def look_objects(objects: Objects, rows: int) -> Look:
    """Columns are the keys of the first ``rows`` objects, in order of appearance."""
    sample: dict[str, list[str]] = {}
    spans: dict[str, int] = {}
    lists: dict[str, int] = {}
    turns: dict[str, int] = {}
    for _, row in islice(objects, rows):
        for key, value in row.items():
            kept = sample.setdefault(key, [])
            if text := "".join(tokens_of(row, key) or ()) or string_of(value):
                kept.append(text)
        if key := spans_key(row):
            spans[key] = spans.get(key, 0) + 1
        elif key := next((k for k, value in row.items() if is_labels(k, value)), None):
            lists[key] = lists.get(key, 0) + 1
        if key := turns_key(row):
            turns[key] = turns.get(key, 0) + 1
    return Look(list(sample), sample, spans=_most(spans), lists=_most(lists), turns=_most(turns))


def _most(times: dict[str, int]) -> str | None:
    return max(times, key=lambda k: times[k]) if times else None


def batch_objects(objects: Objects, fields: Fields, rows: int) -> Iterator[Batch]:
    """The wanted fields of all objects, ``rows`` in a batch."""
    stream = iter(objects)
    while chunk := list(islice(stream, rows)):
        kept = _Kept(fields)
        for line, row in chunk:
            kept.add(line, row)
        yield kept.batch()


class _Kept:
    """The usable rows of one batch while they come in."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._roles = fields.by_role()
        self._columns: dict[str, list[Any]] = {name: [] for name in fields.names()}
        self._lines: list[int] = []
        self._bad: list[tuple[int, str]] = []
        self._repaired = 0

    def add(self, line: int, row: dict[str, Any]) -> None:
        """One object."""
        mended = 0
        try:
            if self._fields.turns:
                found = [{"text": text, "target": target} for text, target in chat_examples(row.get(self._fields.text))]
            else:
                answer, mended = self._answer(row)
                found = [answer]
        except Unusable as e:
            self._bad.append((line, str(e)))
            return
        rest = {role: string_of(row.get(self._roles[role])) for role in ("text_b", "target", "id", "group", "weight") if role in self._roles}
        if self._fields.turns:  # the turns of one conversation stay together
            rest["group"] = rest.get("group") or str(line)
        for k, values in enumerate(found):
            if k and rest.get("id"):
                values["id"] = f"{rest['id']}#{k}"
            for name, value in (rest | values).items():
                self._columns[name].append(value)
            self._lines.append(line)
        self._repaired += mended

    def _answer(self, row: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Text and label, label set or spans of one object."""
        fields = self._fields
        if fields.spans and fields.label is not None:
            text, spans, mended = spans_of(row, fields.text, fields.label)
            return {"text": text, "spans": spans}, mended
        if fields.asked:
            return {"text": _whole_text(row, fields)}, 0
        values: dict[str, Any] = {"text": string_of(row.get(fields.text))}
        if fields.label is not None:
            values["label"] = (labels_of if fields.task == "multilabel" else label_of)(row.get(fields.label))
        return values, 0

    def batch(self) -> Batch:
        """All of them but those that hold a lone surrogate, which no column can."""
        named = [name for name in self._columns if name != "spans"]
        if any(has_surrogate("".join(filter(None, self._columns[name]))) for name in named):
            broken = {i for name in named for i, v in enumerate(self._columns[name]) if v is not None and has_surrogate(v)}
            self._bad.extend((self._lines[i], "lone-surrogate") for i in sorted(broken))
            self._lines = [line for i, line in enumerate(self._lines) if i not in broken]
            self._columns = {name: [v for i, v in enumerate(column) if i not in broken] for name, column in self._columns.items()}
        return Batch(frame_of(self._columns), int64(self._lines), sorted(self._bad), self._repaired)


def _whole_text(row: dict[str, Any], fields: Fields) -> str | None:
    """The text as one string, whether it stands there as such, as tokens or as a conversation."""
    if fields.task == "chat" and isinstance(row.get(fields.text), list):
        return whole_conversation(row[fields.text])
    if (tokens := tokens_of(row, fields.text)) is not None:
        return join_tokens(tokens, characters=per_character(tokens))[0]
    return string_of(row.get(fields.text))
