"""What a language model is asked where the answer is a label, several, spans or a grade, and how its words are read. Knows nothing of servers.

Each answer but a plain label is a small JSON document, with a schema for servers that keep to one. Spans are quoted, not counted: models
quote well and count badly, so each quote is looked for in the text behind the one before it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from wenfang.core.examples import Examples, Output, Span
from wenfang.core.records import Task
from wenfang.core.text import fold

__all__ = ["Form", "Read", "form_of", "located", "spread"]

SPREAD_MAX = 2000
"""Rows among which examples to show are looked for."""
_LABEL = "Classify the user's text. Answer with exactly one of these labels and nothing else: {labels}"
_PAIR = "The user gives two texts, A and B. Say how they stand to each other. Answer with exactly one of these labels and nothing else: {labels}"
_GRADE = 'The user gives two texts, A and B. Say how alike they are in meaning, from 0 (not at all) to 1 (the same). Answer with JSON and nothing else: {"grade": 0.5}'
_SEVERAL = 'Say which of these labels hold for the user\'s text: {labels}. Several may hold, or none. Answer with JSON and nothing else: {"labels": ["..."]}'
_SPANS = (
    "Find the spans of the user's text that have one of these labels: {labels}. Quote each exactly as it stands there, in the order of the text, and again each time it is "
    'mentioned. Answer with JSON and nothing else: {"spans": [{"text": "...", "label": "..."}]}; an empty list if there are none.'
)
_FENCE = re.compile(r"^```\w*\s*|\s*```$")


@dataclass(frozen=True, slots=True)
class Read:
    """What an answer said."""

    output: Output
    """Without a score, unless it is a grade."""
    lost: int = 0
    """Spans or labels it named that are not there."""


@dataclass(frozen=True, slots=True)
class Form:
    """Question and answer of one task.

    Args:
        task: classification, multilabel, tagging or matching.
        labels: L names; none for grades.
    """

    task: Task
    labels: tuple[str, ...] = ()

    @property
    def graded(self) -> bool:
        """Whether pairs get a number."""
        return self.task == "matching" and not self.labels

    @property
    def instruction(self) -> str:
        """The system message; ``{labels}`` stands for the labels."""
        if self.task == "matching":
            return _GRADE if self.graded else _PAIR
        return {"classification": _LABEL, "multilabel": _SEVERAL, "tagging": _SPANS}[self.task]

    @property
    def schema(self) -> dict[str, Any] | None:
        """Of the answer, for servers that keep to one; None: a bare label."""
        name = {"type": "string", "enum": list(self.labels)}
        if self.graded:
            return _object(grade={"type": "number", "minimum": 0, "maximum": 1})
        if self.task == "multilabel":
            return _object(labels={"type": "array", "items": name})
        return _object(spans={"type": "array", "items": _object(text={"type": "string"}, label=name)}) if self.task == "tagging" else None

    def room(self, text: str) -> int:
        """Tokens an answer may take."""
        return 64 if self.schema is None or self.graded else 64 + 16 * len(self.labels) if self.task == "multilabel" else min(4096, 256 + 3 * len(text))

    def question(self, text: str, text_b: str = "") -> str:
        """What the user says."""
        return f"A: {text}\nB: {text_b}" if self.task == "matching" else text

    def answer(self, examples: Examples, row: int) -> str:
        """What would have been right, as a server should say it."""
        if self.graded:
            return json.dumps({"grade": round(examples.grades[row], 3)})
        if self.task == "multilabel":
            return json.dumps({"labels": sorted(examples.label_sets[row])}, ensure_ascii=False)
        if self.task == "tagging":
            text = examples.texts[row]
            return json.dumps({"spans": [{"text": text[s.start : s.end], "label": s.label} for s in sorted(examples.spans[row], key=_order)]}, ensure_ascii=False)
        return examples.labels[row]

    def right(self, output: Output, examples: Examples, row: int) -> bool:
        """Whether an answer is all that it should be."""
        if self.graded:
            return abs((output.score or 0.0) - examples.grades[row]) <= 0.1
        if self.task == "multilabel":
            return sorted(output.labels or ()) == sorted(examples.label_sets[row])
        return set(output.spans or ()) == set(examples.spans[row]) if self.task == "tagging" else output.label == examples.labels[row]

    def usual(self, train: Examples) -> Output:
        """What is answered when an answer says nothing: the most frequent label, the mean grade, no labels, no spans."""
        if self.graded:
            return Output(score=sum(train.grades) / len(train))
        if self.task in {"multilabel", "tagging"}:
            return Output(labels=()) if self.task == "multilabel" else Output(spans=())
        return Output(label=Counter(train.labels).most_common(1)[0][0])

    def read(self, said: str, text: str) -> Read | None:
        """What an answer says; None: nothing that could be understood.

        Args:
            said: the server's words.
            text: what it was asked about.
        """
        if self.schema is None:
            return self._label(said)
        name = "grade" if self.graded else "labels" if self.task == "multilabel" else "spans"
        document = _json(said)
        wanted: Any = cast("dict[str, Any]", document).get(name) if isinstance(document, dict) else document
        if self.graded:
            told = isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and math.isfinite(wanted)
            return Read(Output(score=min(1.0, max(0.0, float(wanted))))) if told else None
        if not isinstance(wanted, list):
            return None
        items = cast("list[Any]", wanted)
        known = {label.casefold(): label for label in self.labels}
        if self.task == "multilabel":
            found = [known.get(str(item).strip().casefold()) for item in items]
            labels = tuple(dict.fromkeys(label for label in found if label is not None))
            return Read(Output(labels=labels), lost=found.count(None))
        quotes = [_quote(item, known) for item in items]
        spans = located(text, [q for q in quotes if q is not None])
        return Read(Output(spans=spans), lost=len(items) - len(spans))

    def _label(self, said: str) -> Read | None:
        said = said.strip().strip("\"'`。.“”").casefold()
        exact = [label for label in self.labels if label.casefold() == said]
        found = exact or [label for label in self.labels if label.casefold() in said]
        return Read(Output(label=found[0])) if len(found) == 1 else None


def form_of(task: Task, labels: Sequence[str]) -> Form | None:
    """The form of a task; None: its answer is free text or a vector."""
    return Form(task, tuple(labels)) if task in {"classification", "multilabel", "tagging", "matching"} else None


def located(text: str, quotes: Iterable[tuple[str, str]]) -> tuple[Span, ...]:
    """Where quotes stand: each behind the one before it, else at its first free place; what stands nowhere is left out, and no two overlap.

    Args:
        text: quoted from.
        quotes: (words, label), in the order of the text if the one who quotes keeps to it; width, case and kind of blank do not matter.

    >>> [(s.start, s.label) for s in located("张三和张三", [("张三", "P"), ("张三", "P"), ("李四", "P")])]
    [(0, 'P'), (3, 'P')]
    """
    view, behind = fold(text), 0
    taken: list[Span] = []
    for words, label in quotes:
        wanted = fold(words.strip())
        start = _free(view, wanted, behind, taken) if wanted else -1
        if start < 0 and wanted:
            start = _free(view, wanted, 0, taken)
        if start >= 0:
            taken.append(Span(start, start + len(wanted), label))
            behind = start + len(wanted)
    return tuple(sorted(taken, key=_order))


def _free(view: str, wanted: str, begin: int, taken: Sequence[Span]) -> int:
    """The first place from ``begin`` on where ``wanted`` stands and nothing is taken; -1: none."""
    at = view.find(wanted, begin)
    while at >= 0 and any(s.start < at + len(wanted) and at < s.end for s in taken):
        at = view.find(wanted, at + 1)
    return at


def spread(rows: Sequence[int], examples: Examples, most: int) -> list[int]:
    """Rows to show, so that every label is seen as evenly as they allow; rows in front are preferred.

    Args:
        rows: to choose from.
        examples: of a task with labels.
        most: how many.
    """
    labels: list[set[str]] = [set(names) for names in examples.label_sets] or [{s.label for s in spans} for spans in examples.spans] or [{label} for label in examples.labels]
    if not labels:
        return list(rows[:most])
    seen: Counter[str] = Counter()
    left, chosen = list(rows[:SPREAD_MAX]), list[int]()
    while left and len(chosen) < most:
        best = max(range(len(left)), key=lambda i: (sum(1 / (1 + seen[label]) ** 2 for label in labels[left[i]]), -i))
        chosen.append(left.pop(best))
        seen.update(labels[chosen[-1]])
    return chosen


def _order(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _quote(item: Any, known: Mapping[str, str]) -> tuple[str, str] | None:
    if not isinstance(item, dict):
        return None
    quote = cast("dict[str, Any]", item)
    words, label = quote.get("text"), known.get(str(quote.get("label")).strip().casefold())
    return (words, label) if isinstance(words, str) and label is not None else None


def _json(said: str) -> Any:
    """The document in an answer, also between fences or among words; None: there is none."""
    said = _FENCE.sub("", said.strip())
    ends = [(said.find(a), said.rfind(b) + 1) for a, b in ("{}", "[]")]
    for start, end in [(0, len(said)), *sorted((s, e) for s, e in ends if 0 <= s < e)]:
        try:
            return json.loads(said[start:end])
        except (ValueError, RecursionError):
            continue
    return None
