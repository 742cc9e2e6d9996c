"""From scores to texts: greedy, sampled and beam search, many texts at once, each under its own rules. Knows nothing of the network or the task.

Every text is a group of lines, one unless beams are asked for; all lines of all groups step together. What a text becomes does not
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wenfang.models.base import Emit

from .rules import NEVER, Line, Rules
from .stepping import Steps

__all__ = ["Batch", "Tell", "Written", "write"]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Finish = Literal["stop", "length"]
Tell = Callable[[str], object]
"""Takes a piece of a text as soon as it is certain."""


@dataclass(frozen=True, slots=True)
class Written:
    """One finished text."""

    text: str
    finish: Finish
    tokens: int
    """Written, an end that was written among them."""
    logprobs: tuple[float, ...]


@dataclass(slots=True)
class _Group:
    """One text: its open lines and, with beams, those that ended."""

    rules: Rules
    rng: np.random.Generator
    lines: list[Line]
    tell: Tell | None = None
    ended: list[tuple[float, Line, Finish]] = field(default_factory=list[tuple[float, Line, Finish]])
    told: int = 0
    """Characters emitted."""
    written: Written | None = None


class Batch:
    """Texts that step together: new ones join between two steps, written ones leave.

    Args:
        steps: the network.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._groups: dict[int, _Group] = {}
        self._cache: Any = None
        self._scores: Floats = np.zeros((0, 0), np.float32)
        """Of the next token of each open line, in the order of the groups."""
        self._next = 0

    @property
    def lines(self) -> int:
        """Texts in the making, beams counted."""
        return sum(max(len(group.lines), group.rules.beams) for group in self._groups.values())

    def add(self, prompts: Sequence[Sequence[int]], rules: Sequence[Rules], tell: Sequence[Tell | None]) -> list[int]:
        """Read B prompts: they take part from the next step on, under the numbers that come back."""
        cache, scores = self._steps.begin(prompts)
        self._cache = cache if not self._groups else self._steps.together([self._cache, cache])
        self._scores = scores if not self._groups else np.concatenate([self._scores, scores])
        numbers = list(range(self._next, self._next + len(prompts)))
        self._next += len(prompts)
        for number, rule, told in zip(numbers, rules, tell, strict=True):
            self._groups[number] = _Group(rule, np.random.default_rng(rule.seed), [rule.start()], told)
        return numbers

    def drop(self, numbers: Collection[int]) -> None:
        """Nobody wants these any more; what is not here is let be."""
        kept: list[int] = []
        first = 0
        for number, group in self._groups.items():
            if number not in numbers:
                kept += range(first, first + len(group.lines))
            first += len(group.lines)
        if len(kept) < first:
            self._groups = {number: group for number, group in self._groups.items() if number not in numbers}
            self._scores = self._scores[kept]
            self._cache = self._cache.take(np.array(kept, np.intp)) if kept else None

    def step(self) -> list[tuple[int, Written]]:
        """Give every text its next token; returns those that are written now, which leave."""
        rows: list[int] = []
        first = 0
        written: list[tuple[int, Written]] = []
        for number, group in self._groups.items():
            count = len(group.lines)
            rows += [first + parent for parent in _advance(group, self._scores[first : first + count])]
            first += count
            _tell(group)
            if group.written is not None:
                written.append((number, group.written))
        for number, _ in written:
            del self._groups[number]
        if self._groups:
            if rows != list(range(first)):
                self._cache = self._cache.take(np.array(rows, np.intp))
            self._cache, self._scores = self._steps.step(self._cache, [line.ids[-1] for group in self._groups.values() for line in group.lines])
        return written


def write(steps: Steps, prompts: Sequence[Sequence[int]], rules: Sequence[Rules], emit: Emit | None = None) -> list[Written]:
    """One text behind each prompt.

    Args:
        steps: the network.
        prompts: B, as numbers; none is longer than the network can stand in.
        rules: B.
        emit: told (row, piece) at every step, the piece empty until more is certain; the pieces of a row joined are its text.

    Cost: a reading of each prompt, then one step of the network for each token of the longest text.
    """
    if not prompts:
        return []
    batch = Batch(steps)
    batch.add(prompts, rules, [None if emit is None else partial(emit, row) for row in range(len(prompts))])
    found: dict[int, Written] = {}
    while len(found) < len(prompts):
        found.update(batch.step())
    return [found[row] for row in range(len(prompts))]


def _tell(group: _Group) -> None:
    """Tell what is certain by now; an empty piece where nothing new is: whoever waits hears that work goes on, and may end it."""
    if group.tell is None:
        return
    text = ""  # the best beam may still change
    if group.written is not None:
        text = group.written.text
    elif len(group.lines) == 1 and group.rules.beams == 1:
        said = group.lines[0].said
        text = group.rules.speech.text(said[: group.rules.certain(said)])
    group.tell(text[group.told :])
    group.told = max(group.told, len(text))


def _advance(group: _Group, scores: Floats) -> list[int]:
    """Give each line its next token; returns which line each of the new ones continues, none when the text is written."""
    if group.rules.beams > 1:
        return _advance_beams(group, scores)
    line, rules = group.lines[0], group.rules
    following, finish = _next(line, rules, scores[0], group.rng)
    if finish is None:
        following, finish = _ended(rules, following)
    if finish is not None:
        group.written = _written(rules, following, finish)
        group.lines = []
        return []
    group.lines = [following]
    return [0]


def _next(line: Line, rules: Rules, scores: Floats, rng: np.random.Generator) -> tuple[Line, Finish | None]:
    """The line with its next token, and ``stop`` if that token ends it."""
    z = rules.adjusted(line, scores)
    while True:
        token = _drawn(z, rules, rng)
        if z[token] == NEVER:  # nothing may follow
            return line, "stop"
        given = (*line.logprobs, float(_log_softmax(scores)[token])) if rules.logprobs else ()
        if token in rules.speech.ends:
            return replace(line, ids=(*line.ids, token), logprobs=given), "stop"
        following = rules.extended(line, token)
        if following is not None:
            return replace(following, logprobs=given), None
        z[token] = NEVER  # drawing again without it is drawing from what is allowed


def _drawn(z: Floats, rules: Rules, rng: np.random.Generator) -> int:
    if rules.temperature == 0.0:
        return int(z.argmax())
    z = z.astype(np.float64) / rules.temperature
    order = np.argsort(-z, kind="stable")
    if rules.top_k:
        order = order[: rules.top_k]
    p = np.exp(z[order] - z[order[0]]) if np.isfinite(z[order[0]]) else np.ones(len(order))
    p /= p.sum()
    if rules.top_p < 1.0:
        kept = int(np.searchsorted(p.cumsum(), rules.top_p)) + 1
        order, p = order[:kept], p[:kept] / p[:kept].sum()
    return int(order[min(int(np.searchsorted(p.cumsum(), rng.random(), side="right")), len(order) - 1)])


def _ended(rules: Rules, line: Line) -> tuple[Line, Finish | None]:
    """Whether a line that has just grown is at its end: a stop string, whole JSON, or the last token allowed."""
    at = rules.stopped(line)
    if at is not None:
        return replace(line, said=line.said[:at]), "stop"
    if rules.whole(line):
        return line, "stop"
    return line, "length" if len(line.ids) >= rules.max_tokens else None


def _written(rules: Rules, line: Line, finish: Finish) -> Written:
    return Written(rules.speech.text(line.said), finish, len(line.ids), line.logprobs)


def _advance_beams(group: _Group, scores: Floats) -> list[int]:
    """The best continuations of all beams; ended ones wait until as many have ended as there are beams, or none can overtake them.

    Source: Graves 2012; length normalisation by the mean.
    """
    rules, k = group.rules, group.rules.beams
    found: list[tuple[float, int, Line, Finish | None]] = []
    for parent, (line, row) in enumerate(zip(group.lines, scores, strict=True)):
        for total, following, finish in _continuations(line, rules, row, 2 * k):
            found.append((total, parent, following, finish))
    found.sort(key=lambda f: -f[0])
    kept: list[Line] = []
    parents: list[int] = []
    for total, parent, line, finish in found:
        if finish is not None:
            group.ended.append((total / len(line.ids), line, finish))
        elif len(kept) < k:
            kept.append(line)
            parents.append(parent)
        if len(kept) == k:
            break
    group.ended = sorted(group.ended, key=lambda e: -e[0])[:k]
    best_open = max((line.logprob / len(line.ids) for line in kept), default=-np.inf)
    if not kept or (len(group.ended) == k and best_open <= group.ended[-1][0]):
        if not group.ended:  # nothing may follow any line
            group.ended.append((0.0, group.lines[0], "stop"))
        _, line, finish = group.ended[0]
        group.written, group.lines = _written(rules, line, finish), []
        return []
    group.lines = kept
    return parents


def _continuations(line: Line, rules: Rules, scores: Floats, count: int) -> list[tuple[float, Line, Finish | None]]:
    """The ``count`` likeliest allowed continuations with their totals."""
    z = rules.adjusted(line, scores)
    chances = _log_softmax(z)
    own = _log_softmax(scores) if rules.logprobs else chances
    found: list[tuple[float, Line, Finish | None]] = []
    for token in np.argsort(-z, kind="stable").tolist():
        if z[token] == NEVER or len(found) == count:
            break
        total = line.logprob + float(chances[token])
        given = (*line.logprobs, float(own[token])) if rules.logprobs else ()
        if token in rules.speech.ends:
            found.append((total, replace(line, ids=(*line.ids, token), logprob=total, logprobs=given), "stop"))
            continue
        following = rules.extended(line, token)
        if following is not None:
            found.append((total, *_ended(rules, replace(following, logprob=total, logprobs=given))))
    return found


def _log_softmax(z: Floats) -> Doubles:
    z = z.astype(np.float64)
    top = z.max()
    return z - top - np.log(np.exp(z - top).sum()) if np.isfinite(top) else z
