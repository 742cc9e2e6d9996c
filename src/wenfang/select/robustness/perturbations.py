"""Ways to write a text differently, each a function from text to edits; tables of characters are data. Knows nothing of models or tests.

A perturbation that finds nothing to do gives no edits: the text then takes no part in the test.
"""

from __future__ import annotations

import random
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from wenfang.core.examples import Span

from .edits import Edit

__all__ = ["PERTURBATIONS", "Source"]

TABLES = Path(__file__).parent / "tables"
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


class Source:
    """What a perturbation may look at.

    Args:
        text: to be written differently.
        spans: its gold spans; empty outside tagging.
        entities: texts of the spans of each label, to swap with.
        share: of the characters that may be, how many are touched; at least one.
        rng: of this text.
    """

    def __init__(self, text: str, spans: Sequence[Span], entities: Mapping[str, Sequence[str]], share: float, rng: random.Random) -> None:
        self.text, self.spans, self.entities, self.share, self.rng = text, spans, entities, share, rng

    def some(self, places: Sequence[int]) -> list[int]:
        """The share of ``places``, drawn and sorted."""
        return sorted(self.rng.sample(places, max(1, round(self.share * len(self.text))) if len(places) > self.share * len(self.text) else len(places))) if places else []


Perturbation = Callable[[Source], list[Edit]]


@cache
def _alike(table: str) -> dict[str, str]:
    """Every character of a table of groups with the others of its groups."""
    others: dict[str, str] = {}
    for group in tomllib.loads((TABLES / f"{table}.toml").read_text(encoding="utf-8"))["groups"].split():
        for c in group:
            others[c] = others.get(c, "") + group.replace(c, "")
    return others


@cache
def _pairs() -> dict[str, str]:
    return dict(tomllib.loads((TABLES / "traditional.toml").read_text(encoding="utf-8"))["pairs"].split())


@cache
def _simplified() -> dict[str, str]:
    return {t: s for s, t in _pairs().items()}


@cache
def _negations() -> tuple[re.Pattern[str], dict[str, str]]:
    pairs: dict[str, str] = dict(tomllib.loads((TABLES / "negation.toml").read_text(encoding="utf-8"))["pairs"])
    words = sorted(pairs, key=lambda w: (-len(w), w))
    return re.compile("|".join(rf"\b{re.escape(w)}\b" if w.isascii() else re.escape(w) for w in words), re.IGNORECASE), pairs


@cache
def _neighbours() -> dict[str, str]:
    near: dict[str, str] = {}
    for r, row in enumerate(_ROWS):
        for i, c in enumerate(row):
            beside = row[max(0, i - 1) : i] + row[i + 1 : i + 2]
            near[c] = beside + "".join(other[max(0, i - (o > r)) : i + 1 + (o < r)] for o, other in enumerate(_ROWS) if abs(o - r) == 1)
    return near | {c.upper(): n.upper() for c, n in near.items()}


def _each(source: Source, written: Callable[[str], str]) -> list[Edit]:
    """Every character written another way."""
    return [Edit(i, i + 1, other) for i, c in enumerate(source.text) if (other := written(c)) != c]


def _replaced(source: Source, table: Mapping[str, str]) -> list[Edit]:
    """Some characters replaced by one of those the table has for them."""
    places = source.some([i for i, c in enumerate(source.text) if c in table])
    return [Edit(i, i + 1, source.rng.choice(table[source.text[i]])) for i in places]


def _wide(c: str) -> str:
    return "\u3000" if c == " " else chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c


def _narrow(c: str) -> str:
    return " " if c == "\u3000" else chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else c


def _is_mark(c: str) -> bool:
    return unicodedata.category(c).startswith("P")


def _swap(source: Source) -> list[Edit]:
    text = source.text
    places = [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha() and text[i] != text[i + 1]]
    edits: list[Edit] = []
    for i in source.some(places):
        if not edits or i >= edits[-1].end:
            edits.append(Edit(i, i + 2, text[i + 1] + text[i]))
    return edits


def _drop_punctuation(source: Source) -> list[Edit]:
    # a mark between digits or letters carries meaning (3.5, don't): only marks beside white space, ends or wide characters go
    text = source.text
    return [Edit(i, i + 1, "") for i, c in enumerate(text) if _is_mark(c) and not (text[i - 1 : i].isascii() and text[i - 1 : i].isalnum() and text[i + 1 : i + 2].isalnum())]


def _add_punctuation(source: Source) -> list[Edit]:
    end = len(source.text)
    return [Edit(end, end, source.rng.choice(["。", "！", "~", "..."]))] if source.text.strip() else []


def _add_spaces(source: Source) -> list[Edit]:
    text = source.text
    places = [i for i in range(1, len(text)) if not text[i - 1].isspace() and not text[i].isspace() and (ord(text[i - 1]) > 0x2E7F or ord(text[i]) > 0x2E7F)]
    return [Edit(i, i, " ") for i in source.some(places)] or ([Edit(0, 0, " ")] if text.strip() else [])


def _drop_spaces(source: Source) -> list[Edit]:
    text = source.text
    wide = [i for i, c in enumerate(text) if c.isspace() and (i in {0, len(text) - 1} or ord(text[i - 1]) > 0x2E7F or ord(text[i + 1]) > 0x2E7F)]
    return [Edit(i, i + 1, "") for i in wide]


def _negate(source: Source) -> list[Edit]:
    pattern, pairs = _negations()
    found = pattern.search(source.text)
    if found is None or source.text[max(0, found.start() - 1) : found.start()] in {"不", "没", "别"}:
        return []
    return [Edit(found.start(), found.end(), pairs[found[0].lower()])]


def _swap_entity(source: Source) -> list[Edit]:
    places = [s for s in source.spans if len(set(source.entities.get(s.label, ())) - {source.text[s.start : s.end]}) > 0]
    if not places:
        return []
    span = source.rng.choice(places)
    others = [e for e in source.entities[span.label] if e != source.text[span.start : span.end]]
    return [Edit(span.start, span.end, source.rng.choice(others))]


PERTURBATIONS: dict[str, Perturbation] = {
    "homophones": lambda s: _replaced(s, _alike("homophones")),
    "look_alikes": lambda s: _replaced(s, _alike("shapes")),
    "keyboard": lambda s: _replaced(s, _neighbours()),
    "swap": _swap,
    "full_width": lambda s: _each(s, _wide),
    "half_width": lambda s: _each(s, _narrow),
    "traditional": lambda s: _each(s, lambda c: _pairs().get(c, c)),
    "simplified": lambda s: _each(s, lambda c: _simplified().get(c, c)),
    "upper": lambda s: _each(s, lambda c: c.upper() if c.isascii() else c),
    "lower": lambda s: _each(s, lambda c: c.lower() if c.isascii() else c),
    "drop_punctuation": _drop_punctuation,
    "add_punctuation": _add_punctuation,
    "add_spaces": _add_spaces,
    "drop_spaces": _drop_spaces,
    "negate": _negate,
    "swap_entity": _swap_entity,
}
"""By the name that a test's ``perturbation`` gives."""
