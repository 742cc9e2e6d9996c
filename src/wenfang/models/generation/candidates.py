"""Texts that could be the answer: pieces of the source as they stand, joined by small words, or with an ending targets often have. Knows nothing of judging."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wenfang.core.text import is_cjk

from .ngrams import NGrams
from .pieces import Choice, Prices, choices_of
from .units import Units

__all__ = ["Candidate", "Phrases", "candidates_of"]

Doubles = npt.NDArray[np.float64]
Words = tuple[str, ...]
PRICES = Prices.grid((0.18, 0.25, 0.33, 0.45), (0.08, 0.3, 0.7), (0.1, 0.25))
ENDINGS_MAX, ENDING_SHARE = 5, 0.01
LINKS_MAX, LINK_SHARE = 8, 0.02


@dataclass(frozen=True, slots=True)
class Candidate:
    """One text that could be the answer."""

    choice: Choice
    words: Words
    text: str
    added: int
    """Units that do not come from the source."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """What targets say that their sources need not."""

    endings: tuple[tuple[Words, float], ...]
    """Last two units of targets, with their share."""
    links: tuple[Words, ...]
    """Single units that stand inside many targets and join what is around them."""

    @classmethod
    def learn(cls, targets: Sequence[Units]) -> Phrases:
        """Those that a share of the targets have."""
        n = max(1, len(targets))
        last = Counter(tuple(t.words[-2:]) for t in targets if len(t) > 2 and not t.mark[-2:].any())
        inside = Counter(w for t in targets for w in {w for w, mark in zip(t.words[1:-1], t.mark[1:-1], strict=True) if not mark})
        endings = tuple((w, c / n) for w, c in last.most_common(ENDINGS_MAX) if c > 1 and c >= ENDING_SHARE * n)
        return cls(endings, tuple((w,) for w, c in inside.most_common(LINKS_MAX) if c > 1 and c >= LINK_SHARE * n))


def candidates_of(units: Units, odds: Doubles, phrases: Phrases, language: NGrams) -> list[Candidate]:
    """All different ones.

    Args:
        units: T of the source.
        odds: of being kept, beginning, ending, shape (T, 3).
        phrases: what may be added.
        language: of targets; chooses what joins two pieces.
    """
    found: dict[Words, Candidate] = {}
    for choice in choices_of(units, odds, PRICES):
        bare = _candidate(units, choice, [], ())
        links = _links(units, choice, phrases.links, language)
        best = _candidate(units, choice, links, ()) if any(links) else bare
        for candidate in (bare, best, *_ended(units, best, links, phrases)):
            found.setdefault(candidate.words, candidate)
    return list(found.values())


def _ended(units: Units, base: Candidate, links: list[Words], phrases: Phrases) -> Iterator[Candidate]:
    for ending, _ in phrases.endings:
        if ending not in set(pairwise(base.words)):
            yield _candidate(units, base.choice, links, ending)


def _links(units: Units, choice: Choice, links: Sequence[Words], language: NGrams) -> list[Words]:
    """What joins each two neighbouring pieces best; perhaps nothing."""
    chosen: list[Words] = []
    for (_, end), (start, _) in pairwise(choice.pieces):
        left, right = units.words[max(0, end - 2) : end], units.words[start : start + 2]
        scored = [(float(language.log_chances([*left, *link, *right], whole=False)[len(left) :].mean()), link) for link in ((), *links)]
        chosen.append(max(scored)[1])
    return chosen


def _candidate(units: Units, choice: Choice, links: Sequence[Words], ending: Words) -> Candidate:
    words: list[str] = []
    parts: list[str] = []
    between = [*links, *[()] * (len(choice.pieces) - len(links))]
    for (start, end), link in zip(choice.pieces, between, strict=True):
        words += [*units.words[start:end], *link]
        parts += [units.text[units.spans[start][0] : units.spans[end - 1][1]], *link]
    return Candidate(choice, (*words, *ending), spelled([*parts, *ending]), sum(map(len, between)) + len(ending))


def spelled(parts: Sequence[str]) -> str:
    """Parts as one text, with blanks between words of scripts that have them.

    >>> spelled(["用", "deep", "learning", "写诗"])
    '用deep learning写诗'
    """
    text = ""
    for part in parts:
        blank = text and part and all(c.isalnum() and not is_cjk(c) for c in (text[-1], part[0]))
        text += f" {part}" if blank else part
    return text
