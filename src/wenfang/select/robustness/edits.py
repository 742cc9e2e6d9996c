"""Edits of a text and what they do to spans: every perturbation is a list of edits, so that offsets stay exact. Knows nothing of why a text is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wenfang.core.examples import Span

__all__ = ["Edit", "apply", "moved"]


@dataclass(frozen=True, slots=True)
class Edit:
    """Code points ``[start, end)`` of the text become ``text``."""

    start: int
    end: int
    text: str


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The edited text; edits are sorted and do not overlap.

    >>> apply("很好吃", [Edit(0, 1, "不"), Edit(3, 3, "!")])
    '不好吃!'
    """
    pieces: list[str] = []
    at = 0
    for edit in edits:
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*pieces, text[at:]])


def moved(spans: Sequence[Span], edits: Sequence[Edit]) -> tuple[Span, ...] | None:
    """Where ``spans`` lie in the edited text; None when an edit reaches over the border of a span.

    A span whose words all disappear is left out; what is inserted at a border stands outside.

    >>> moved([Span(1, 3, "菜")], [Edit(0, 0, "真 "), Edit(2, 2, " ")])
    (Span(start=3, end=6, label='菜'),)
    """
    found: list[Span] = []
    for span in spans:
        before = within = 0
        for edit in edits:
            grown = len(edit.text) - (edit.end - edit.start)
            if edit.end <= span.start:
                before += grown
            elif edit.start >= span.end:
                break
            elif span.start <= edit.start and edit.end <= span.end:
                within += grown
            else:
                return None
        if (end := span.end + before + within) > span.start + before:
            found.append(Span(span.start + before, end, span.label))
    return tuple(found)
