"""Several model versions as one: a graph of steps, and how a request goes through it. Pure: no clock, no socket, no HTTP.

A ``Run`` says which steps can be asked now and is told what they answered; who asks, and how long that may take, is its caller's
business. Steps that do not need each other are offered together. Each text of a request goes its own way through the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wenfang.core.examples import Output

from .expressions import Condition, Row, Template, condition, template

__all__ = ["Asking", "Fallback", "Graph", "Plan", "Run", "Step"]

Failure = Exception


class Fallback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands in for a step that fails; exactly one of these."""

    step: str = ""
    """Name of a step that is asked then, and only then."""
    answer: dict[str, Any] = {}
    """This answer, as ``/predict`` would show it: ``{"label": "other", "score": 0}``."""
    skip: bool = False
    """As if its condition had not held."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One question to one model version."""

    model: str
    """Id of the model version."""
    text: str = "{text}"
    """What it is asked about."""
    text_b: str = ""
    """The second text of a pair."""
    when: str = ""
    """It is left out where this does not hold; empty: always asked."""
    timeout_s: float = 0.0
    """It fails when it takes longer; 0: the request's deadline counts."""
    share: float = 0.0
    """It fails when it takes more than this part of the request's deadline; 0: see ``timeout_s``."""
    top_k: int = 1
    parameters: dict[str, Any] = {}
    """What is asked of generation."""
    cache: bool = True
    """An answer kept from before will do."""
    fallback: Fallback | None = None
    """None: the request fails with it."""


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Steps by name, and which of them answer."""

    steps: dict[str, Step]
    answer: tuple[str, ...]
    """The first of these that was not left out gives the answer; all are of one task."""
    show: tuple[str, ...] = ()
    """Steps whose answers are always shown beside it."""
    otherwise: dict[str, Any] = {}
    """The answer to a text of which all of these were left out; empty: that is an error."""


class _Compiled:
    """A step with what it says made callable."""

    __slots__ = ("constant", "name", "needs", "step", "text", "text_b", "when")

    def __init__(self, name: str, step: Step) -> None:
        self.name = name
        self.step = step
        self.text: Template = template(step.text)
        self.text_b: Template | None = template(step.text_b) if step.text_b else None
        self.when: Condition | None = condition(step.when) if step.when else None
        self.constant = output_of(step.fallback.answer) if step.fallback is not None and step.fallback.answer else None
        self.needs: tuple[str, ...] = ()
        """Steps that must be over before."""

    def mentioned(self) -> set[str]:
        """Steps that its texts and its condition name."""
        places = [*self.text.places, *(self.text_b.places if self.text_b else ()), *(self.when.places if self.when else ())]
        return {place.step for place in places if place.step}


class Plan:
    """A graph ready to run; it must have been checked (``graph_checks``).

    Args:
        graph: as it was made.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps = {name: _Compiled(name, step) for name, step in graph.steps.items()}
        self.spare = frozenset(s.fallback.step for s in graph.steps.values() if s.fallback is not None and s.fallback.step)
        """Steps that are only asked when another fails."""
        for name in self.steps:
            self.steps[name].needs = tuple(sorted(self.needs_of(name) - {name}))
        self.otherwise = output_of(graph.otherwise) if graph.otherwise else None
        self.main = [name for name in self.steps if name not in self.spare]
        self.pairs = any(place.field == "text_b" and not place.step for s in self.steps.values() for t in (s.text, s.text_b) if t for place in t.places)
        """Whether it needs the second texts of pairs."""

    def needs_of(self, name: str) -> set[str]:
        """What a step and everything that may stand in for it mention."""
        found: set[str] = set()
        seen: set[str] = set()
        while name and name not in seen:
            seen.add(name)
            found |= self.steps[name].mentioned()
            fallback = self.steps[name].step.fallback
            name = fallback.step if fallback is not None else ""
        return found

    @property
    def models(self) -> set[str]:
        """Ids of the model versions it asks."""
        return {step.model for step in self.graph.steps.values()}


class Asking(msgspec.Struct, frozen=True):
    """A question that can be put now."""

    name: str
    """Of the step whose place the answers take."""
    step: Step
    """Who is asked: that step, or what stands in for it."""
    rows: list[int]
    texts: list[str]
    texts_b: list[str]
    by: str
    """Name of who is asked."""


class Run:
    """One request of B texts on its way.

    Args:
        plan: of the graph.
        texts: B strings.
        texts_b: B strings, or none.
    """

    def __init__(self, plan: Plan, texts: Sequence[str], texts_b: Sequence[str] = ()) -> None:
        self.plan = plan
        self.answers: list[dict[str, tuple[Output, str]]] = [{} for _ in texts]
        """For each text by step: the answer, and the text it was asked about."""
        self.stood_in: list[dict[str, str]] = [{} for _ in texts]
        """For each text by step: who answered in its place; ``=`` for a given answer."""
        self.counts: dict[tuple[str, str], int] = {}
        """(step, ``answered``, ``left-out``, ``stood-in`` or ``failed``): texts."""
        self.error: Failure | None = None
        """The request failed with it."""
        seconds = texts_b or [""] * len(texts)
        self._rows = [Row(text, text_b, known) for text, text_b, known in zip(texts, seconds, self.answers, strict=True)]
        self._open: dict[str, int] = {}
        """By step that was begun: texts that have neither an answer nor been left out."""
        self._over: set[str] = set()
        self._waiting = list(plan.main)

    @property
    def over(self) -> bool:
        """Nothing more will be asked."""
        return self.error is not None or (not self._waiting and not self._open)

    def begin(self) -> list[Asking]:
        """Everything that can be asked now and was not; call again after each answer."""
        found: list[Asking] = []
        again = True
        while again and self.error is None:
            again = False
            for name in [n for n in self._waiting if self._over.issuperset(self.plan.steps[n].needs)]:
                self._waiting.remove(name)
                asking = self._ask(name, name, range(len(self._rows)), first=True)
                self._open[name] = len(asking.rows)
                if asking.rows:
                    found.append(asking)
                else:
                    self._end(name)
                    again = True
        return found

    def _ask(self, name: str, by: str, rows: Sequence[int], *, first: bool) -> Asking:
        """The question for those of the rows whose condition holds and whose texts have all their places; the others are left out."""
        compiled = self.plan.steps[by]
        asking = Asking(name, compiled.step, [], [], [], by)
        for i in rows:
            row = self._rows[i]
            text = compiled.text.fill(row) if compiled.when is None or compiled.when.holds(row) else None
            text_b = None if text is None or compiled.text_b is None else compiled.text_b.fill(row)
            if text is None or (compiled.text_b is not None and text_b is None):
                self._count(name, "left-out")
                if not first:
                    self._settle(name)
                continue
            asking.rows.append(i)
            asking.texts.append(text)
            if text_b is not None:
                asking.texts_b.append(text_b)
        return asking

    def answered(self, asking: Asking, outputs: Sequence[Output]) -> None:
        """Take the answers to a question, one for each of its rows."""
        for i, text, output in zip(asking.rows, asking.texts, outputs, strict=True):
            self._take(asking.name, i, output, text, "" if asking.by == asking.name else asking.by)

    def failed(self, asking: Asking, error: Failure) -> list[Asking]:
        """A question was not answered. What to ask instead; nothing when a given answer stands in, the step is left out, or the request has failed."""
        compiled = self.plan.steps[asking.by]
        fallback = compiled.step.fallback
        if fallback is None:
            self._count(asking.name, "failed", len(asking.rows))
            self.error = self.error or error
            return []
        if fallback.step:
            instead = self._ask(asking.name, fallback.step, asking.rows, first=False)
            return [instead] if instead.rows else []
        for i, text in zip(asking.rows, asking.texts, strict=True):
            if compiled.constant is not None:
                self._take(asking.name, i, compiled.constant, text, "=")
            else:
                self._count(asking.name, "left-out")
                self._settle(asking.name)
        return []

    def _take(self, name: str, index: int, output: Output, text: str, by: str) -> None:
        self.answers[index][name] = (output, text)
        if by:
            self.stood_in[index][name] = by
        self._count(name, "stood-in" if by else "answered")
        self._settle(name)

    def _settle(self, name: str) -> None:
        self._open[name] -= 1
        if not self._open[name]:
            self._end(name)

    def _end(self, name: str) -> None:
        self._open.pop(name, None)
        self._over.add(name)

    def _count(self, name: str, what: str, n: int = 1) -> None:
        self.counts[name, what] = self.counts.get((name, what), 0) + n

    # ------------------------------------------------------------ what came of it
    def answer(self, index: int) -> tuple[Output, str] | None:
        """The answer to one text, and the text that it was asked about; None: there is none."""
        known = self.answers[index]
        for name in self.plan.graph.answer:
            if name in known:
                return known[name]
        return None if self.plan.otherwise is None else (self.plan.otherwise, self._rows[index].text)


def output_of(answer: Mapping[str, Any]) -> Output:
    """An answer that is given as ``/predict`` shows it.

    Raises:
        msgspec.ValidationError: it is none.

    >>> output_of({"label": "other", "score": 0}).label
    'other'
    """
    given = dict(answer)
    if isinstance(given.get("spans"), list):
        given["spans"] = [[s.get("start"), s.get("end"), s.get("label")] if isinstance(s, dict) else s for s in given["spans"]]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if unknown := sorted(set(given) - {"label", "labels", "score", "spans", "text", "finish"}):
        raise msgspec.ValidationError(f"{unknown[0]} is none of label, labels, score, spans, text, finish")
    return msgspec.convert(given, Output)
