"""Warm starts: what did well on data like these, in earlier selections of this installation.

Pure: descriptions and recipes in, recipes out. Knows nothing of stores.
Source: Feurer et al. 2015 (Efficient and robust automated machine learning, section 3.1: nearest data sets by meta-features).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wenfang.core.examples import Examples

__all__ = ["Earlier", "Meta", "Recipe", "describe", "distance", "earlier_from", "nearest_recipes"]

SCRIPT_TEXTS = 2000
"""Texts looked at for the shares of scripts."""
FAR = 2.5
"""Selections farther away than this say nothing about these data."""
NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class Meta:
    """Data in a few figures that do not tell what the texts say."""

    task: str
    rows: int
    labels: int
    length_mean: float
    """Code points."""
    length_p95: int
    han: float
    """Share of letters that are Chinese characters, 0..1."""
    latin: float
    imbalance: float
    """One less the entropy of the labels over its maximum: 0 all equal, 1 one label only."""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Meta | None:
        """The description that ``document`` tells of; None when it is of another make."""
        try:
            return cls(**document)
        except TypeError:
            return None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters of one family that did well somewhere."""

    family: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Earlier:
    """One earlier selection: what the data were like, and each family's best recipe, the best family first."""

    meta: Meta
    recipes: tuple[Recipe, ...]


def describe(examples: Examples) -> Meta:
    """The figures of some examples.

    Args:
        examples: n of them; more than none.
    """
    lengths = sorted(len(t) for t in examples.texts)
    han = latin = other = 0
    step = max(1, len(examples) // SCRIPT_TEXTS)
    for text in examples.texts[::step]:
        for c in text:
            if "㐀" <= c <= "鿿" or "\U00020000" <= c <= "\U0003ffff":
                han += 1
            elif c.isalpha():
                latin, other = (latin + 1, other) if c < "ɐ" else (latin, other + 1)
    letters = max(1, han + latin + other)
    counts = Counter(examples.labels or [n for names in examples.label_sets for n in names] or [s.label for spans in examples.spans for s in spans])
    total = sum(counts.values())
    entropy = -sum(c / total * math.log(c / total) for c in counts.values()) if total else 0.0
    balance = entropy / math.log(len(counts)) if len(counts) > 1 else 1.0
    return Meta(
        examples.task, len(examples), len(examples.label_names()), sum(lengths) / len(lengths), lengths[math.ceil(0.95 * len(lengths)) - 1], han / letters, latin / letters,
        max(0.0, 1 - balance),
    )  # fmt: skip


def distance(a: Meta, b: Meta) -> float:
    """How unlike two sets of data are; infinite between tasks. A factor of e in rows, labels or length counts 1; another script 3.

    >>> m = Meta("classification", 1000, 10, 20.0, 40, 1.0, 0.0, 0.0)
    >>> distance(m, m)
    0.0
    """
    if a.task != b.task:
        return math.inf
    ratios = ((a.rows, b.rows), (a.labels, b.labels), (a.length_mean, b.length_mean))
    parts = [math.log((x + 1) / (y + 1)) for x, y in ratios]
    parts += [3 * (a.han - b.han), 3 * (a.latin - b.latin), 2 * (a.imbalance - b.imbalance)]
    return math.sqrt(math.fsum(p * p for p in parts))


def nearest_recipes(meta: Meta, earlier: Sequence[Earlier], *, most: int = NEIGHBOURS) -> list[Recipe]:
    """Recipes of the nearest selections, nearest first, at most ``most`` of each family.

    Args:
        meta: of the data at hand.
        earlier: in any order.
        most: of one family.
    """
    near = sorted(((d, i) for i, e in enumerate(earlier) if (d := distance(meta, e.meta)) <= FAR))
    found: list[Recipe] = []
    for _, i in near:
        for recipe in earlier[i].recipes:
            if recipe not in found and sum(r.family == recipe.family for r in found) < most:
                found.append(recipe)
    return found


def earlier_from(document: Mapping[str, Any]) -> Earlier | None:
    """What a selection's document teaches later ones; None when it holds no description of its data."""
    meta = Meta.from_document(document["meta"]) if document.get("meta") else None
    if meta is None:
        return None
    best: dict[str, Mapping[str, Any]] = {}
    for run in document["runs"]:
        score = run["metrics"].get("score")
        if run["state"] != "failed" and run.get("share", 1.0) == 1 and score is not None and score > best.get(run["family"], {"metrics": {"score": -math.inf}})["metrics"]["score"]:
            best[run["family"]] = run
    ordered = sorted(best.values(), key=lambda r: -r["metrics"]["score"])
    return Earlier(meta, tuple(Recipe(r["family"], dict(r["params"])) for r in ordered))
