"""From scores to texts: greedy, sampled and beam search, many texts at once, each under its own rules. Knows nothing of the network or the task.

Every text is a group of lines, one unless beams are asked for; all lines of all groups step together. What a text becomes does not
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from wenfang.models.base import Emit

from .rules import NEVER, Line, Rules
from .stepping import Steps

__all__ = ["Written", "write"]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Finish = Literal["stop", "length"]


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
    ended: list[tuple[float, Line, Finish]] = field(default_factory=list[tuple[float, Line, Finish]])
    told: int = 0
    """Characters emitted."""
    written: Written | None = None


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
    groups = [_Group(r, np.random.default_rng(r.seed), [r.start()]) for r in rules]
    cache, scores = steps.begin(prompts)
    open_groups = list(range(len(groups)))
    while open_groups:
        rows: list[int] = []
        first = 0
        for g in open_groups:
            group = groups[g]
            count = len(group.lines)
            parents = _advance(group, scores[first : first + count])
            rows += [first + p for p in parents]
            first += count
            _tell(g, group, emit)
        open_groups = [g for g in open_groups if groups[g].written is None]
        if open_groups:
            if rows != list(range(first)):
                cache = cache.take(np.array(rows, np.intp))
            cache, scores = steps.step(cache, [line.ids[-1] for g in open_groups for line in groups[g].lines])
    return [g.written for g in groups if g.written is not None]


def _tell(row: int, group: _Group, emit: Emit | None) -> None:
    """Emit what is certain by now; an empty piece where nothing new is: whoever waits hears that work goes on, and may end it."""
    if emit is None:
        return
    text = ""  # the best beam may still change
    if group.written is not None:
        text = group.written.text
    elif len(group.lines) == 1 and group.rules.beams == 1:
        said = group.lines[0].said
        text = group.rules.speech.text(said[: group.rules.certain(said)])
    emit(row, text[group.told :])
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
