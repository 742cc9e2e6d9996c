"""Slices: how the model does on parts of the examples, each compared with the rest, the worst named. Knows nothing of models.

Parts by length, by script, by the values of columns, by how frequent the label is (head, torso, tail of the training labels), and by
rules of the user: a column's value, a pattern, bounds of length. Rows are numbers; no text enters a result.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from wenfang.core.examples import Examples
from wenfang.stats.bootstrap import interval
from wenfang.stats.groups import against_the_rest
from wenfang.stats.paired import holm
from wenfang.stats.scores import Counts

from .patterns import compiled, matching

__all__ = ["ALPHA", "LEAST", "Slice", "SliceRule", "judge_slices", "worst_slice"]

ALPHA = 0.05
LEAST = 20
"""Parts (or rests) with fewer examples are counted, not tested."""
VALUES_MAX = 12
"""Values of a column that get slices of their own, the most frequent first."""
HEAD, TORSO = 0.5, 0.9
"""The most frequent labels that make up half of the training examples are the head; up to nine tenths the torso."""
RESAMPLES = (1000, 2000)
"""Fewest and most; many examples get fewer, so that correlations of thousands of pairs stay affordable while p can still fall below 0.05 / 40."""
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
Mask = npt.NDArray[np.bool_]


class SliceRule(BaseModel):
    """A slice of the user: an example belongs to it when every field that is given holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = None
    value: str | None = None
    """Of the column."""
    pattern: str | None = Field(None, max_length=500)
    """A regular expression found anywhere in the text."""
    min_length: int | None = Field(None, ge=0)
    """Code points."""
    max_length: int | None = Field(None, ge=0)
    label: str | None = None
    """In the gold."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            compiled(pattern)
        return pattern


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of the examples."""

    kind: str
    """``length``, ``script``, ``frequency``, ``column`` or ``own``."""
    name: dict[str, Any]
    """Key of the catalogue and fields."""
    n: int
    score: float
    low: float
    high: float
    rest: float
    """Score of the other examples."""
    difference: float
    p: float | None = None
    """Against the rest; None: too few to test."""
    p_holm: float | None = None
    """Corrected for the number of slices."""

    @property
    def worse(self) -> bool:
        """Significantly below the rest."""
        return self.p_holm is not None and self.p_holm <= ALPHA and self.difference < 0

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "worse": self.worse}


def judge_slices(
    counts: Counts,
    examples: Examples,
    *,
    train: Examples,
    columns: Mapping[str, Sequence[str]] | None = None,
    rules: Mapping[str, SliceRule] | None = None,
    matched: Mapping[str, Sequence[bool]] | None = None,
    seed: int = 0,
) -> tuple[list[Slice], list[Mask]]:
    """Every slice with its score, and which examples belong to it.

    Args:
        counts: of the headline metric, n rows.
        examples: n.
        train: where the frequency of labels is taken from.
        columns: n values each, by name.
        rules: the user's slices, by name.
        matched: which examples their patterns match, where that is known.
        seed: of resamples.

    Cost: one bootstrap and one permutation test for each of about ten slices: 0.1 CPU-s for accuracy, 0.4 for span F1, 2.5 for ROUGE at 10,000 examples; Spearman 4 at 2,000.
    """
    parts = [*_lengths(examples), *_scripts(examples), *_frequencies(examples, train), *_columns(columns or {}), *_own(examples, columns or {}, rules or {}, matched or {})]
    resamples = max(RESAMPLES[0], min(RESAMPLES[1], 8_000_000 // max(1, len(examples))))
    found: list[Slice] = []
    masks: list[Mask] = []
    for kind, name, mask in parts:
        n = int(mask.sum())
        if n < (1 if kind == "own" else LEAST) or n == len(mask):
            continue
        own, rest = interval(counts.take(mask), resamples=resamples, seed=seed), interval(counts.take(~mask), resamples=10, seed=seed)
        p = against_the_rest(counts, mask, resamples=resamples, seed=seed).p if n >= LEAST and len(mask) - n >= LEAST else None
        found.append(Slice(kind, name, n, own.score, own.low, own.high, rest.score, own.score - rest.score, p))
        masks.append(mask)
    adjusted = iter(holm([s.p for s in found if s.p is not None]))
    return [s if s.p is None else replace(s, p_holm=next(adjusted)) for s in found], masks


def worst_slice(slices: Sequence[Slice]) -> Slice | None:
    """The one with the lowest score among those significantly below the rest."""
    return min((s for s in slices if s.worse), key=lambda s: s.score, default=None)


Part = tuple[str, dict[str, Any], Mask]


def _named(key: str, **fields: Any) -> dict[str, Any]:
    return {"key": f"slice.{key}", "fields": fields}


def _sizes(examples: Examples) -> npt.NDArray[np.int64]:
    second = examples.texts_b or [""] * len(examples)
    return np.array([len(a) + len(b) for a, b in zip(examples.texts, second, strict=True)], np.int64)


def _lengths(examples: Examples) -> Iterator[Part]:
    if not len(examples):
        return
    sizes = _sizes(examples)
    low, high, long = (int(np.quantile(sizes, q, method="lower")) for q in (1 / 3, 2 / 3, 0.95))
    if low < high:
        yield "length", _named("short", upto=low), sizes <= low
        yield "length", _named("middle", above=low, upto=high), (sizes > low) & (sizes <= high)
        yield "length", _named("long", above=high), sizes > high
    if long > high:
        yield "length", _named("longest", above=long), sizes > long


def _scripts(examples: Examples) -> Iterator[Part]:
    han, latin = (np.array([len(pattern.findall(t)) for t in examples.texts], np.float64) for pattern in (_HAN, _LATIN))
    words = latin / 4  # a Latin word of the usual length weighs as much as one character
    total = np.maximum(han + words, 1e-9)
    neither = han + words == 0
    yield "script", _named("chinese"), ~neither & (han / total >= 0.8)
    yield "script", _named("latin"), ~neither & (words / total >= 0.8)
    yield "script", _named("mixed"), ~neither & (han / total < 0.8) & (words / total < 0.8)
    yield "script", _named("neither"), neither


def _gold_labels(examples: Examples) -> list[set[str]]:
    if examples.task == "tagging":
        return [{s.label for s in spans} for spans in examples.spans]
    if examples.task == "multilabel":
        return [set(labels) for labels in examples.label_sets]
    return [{label} for label in examples.labels]


def _frequencies(examples: Examples, train: Examples) -> Iterator[Part]:
    """By the rarest gold label of each example."""
    times = Counter(label for labels in _gold_labels(train) for label in labels)
    if len(times) < 5 or (ranked := times.most_common())[0][1] < 2 * ranked[-1][1]:  # nearly even labels have no tail
        return
    tier: dict[str, int] = {}
    before = 0
    for label, n in ranked:
        tier[label] = 0 if before < HEAD * times.total() else 1 if before < TORSO * times.total() else 2
        before += n
    rarest = np.array([max((tier.get(label, 2) for label in labels), default=-1) for labels in _gold_labels(examples)] or [-1])
    if len(rarest) != len(examples):
        return
    for number, name in enumerate(("head", "torso", "tail")):
        yield "frequency", _named(name, labels_n=sum(t == number for t in tier.values())), rarest == number


def _columns(columns: Mapping[str, Sequence[str]]) -> Iterator[Part]:
    for column, values in columns.items():
        common = Counter(values).most_common(VALUES_MAX)
        for value, n in common:
            if n >= LEAST:
                yield "column", _named("column", column=column, value=value), np.array([v == value for v in values])


def _own(examples: Examples, columns: Mapping[str, Sequence[str]], rules: Mapping[str, SliceRule], matched: Mapping[str, Sequence[bool]]) -> Iterator[Part]:
    sizes = _sizes(examples)
    for name, rule in rules.items():
        mask = np.ones(len(examples), np.bool_)
        if rule.column is not None:
            values = columns.get(rule.column, [""] * len(examples))
            mask &= np.array([v == rule.value if rule.value is not None else bool(v) for v in values], np.bool_)
        if rule.pattern is not None:
            mask &= np.array(matched[name] if name in matched else matching(name, rule.pattern, examples.texts), np.bool_)
        if rule.min_length is not None:
            mask &= sizes >= rule.min_length
        if rule.max_length is not None:
            mask &= sizes <= rule.max_length
        if rule.label is not None:
            mask &= np.array([rule.label in labels for labels in _gold_labels(examples)], np.bool_)
        yield "own", _named("own", name=name), mask
