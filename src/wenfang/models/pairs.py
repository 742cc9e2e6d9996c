"""Two texts side by side: which n-grams they share and which stand on one side only, as figures and as sparse features.

Everything is vectorised over the batch and needs numpy only; a pair gets the same features alone and among others. Knows nothing of
labels or models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wenfang.core.text import common_subsequence, fold

from .features import U64, mix, ngrams

__all__ = ["FIGURES", "Compared", "Rarity", "compare", "crossings", "figures", "sides"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LENGTHS = (1, 2, 3, 4)
"""Of the n-grams that figures are made of."""
NEGATION = re.compile(r"[不没無无非别別未否]|\bno\b|\bnot\b|n't|\bnever\b|\bwithout\b")
DIGITS = re.compile(r"\d+(?:\.\d+)?")
LCS_MAX = 2000
"""Characters of a text that the common subsequence looks at."""
_SHARED, _APART, _LEFT, _RIGHT, _CROSS = (np.uint64(i) for i in (1, 2, 3, 4, 5))
_BY_GRAM = ("cosine", "overlap", "inside_least", "inside_most", "loudest_apart", "quietest_apart")
FIGURES = (
    *(f"{name}_{n}" for n in LENGTHS for name in _BY_GRAM),
    "length_ratio", "shorter", "longer", "subsequence", "subsequence_inside", "same_start", "same_end", "negation_differs", "numbers_differ",
    "first_longer", "inside_first", "inside_second",
)  # fmt: skip
"""What ``figures`` gives, in order; the last three know which text came first."""
DIRECTED = 3
"""How many of the last ``FIGURES`` change when a pair is turned around."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The distinct n-grams of B pairs: how often each stands left and right, ordered by pair."""

    pair: I64
    keys: U64
    left: F64
    right: F64

    def only_left(self) -> Bools:
        """Cells whose gram the second text lacks."""
        return (self.left > 0) & (self.right == 0)

    def only_right(self) -> Bools:
        """Cells whose gram the first text lacks."""
        return (self.right > 0) & (self.left == 0)


def compare(texts: Sequence[str], texts_b: Sequence[str], n: int) -> Compared:
    """The n-grams of both sides of each pair.

    Args:
        texts: B strings.
        texts_b: B strings.
        n: length of the grams.
    """
    one, two = (ngrams(side, shortest=n, longest=n) for side in (texts, texts_b))
    keys = np.concatenate([one.keys, two.keys])
    pair = np.concatenate([one.text_of, two.text_of]).astype(np.int64)
    right = np.arange(len(keys)) >= len(one.keys)
    order = np.lexsort((keys, pair))
    keys, pair, right = keys[order], pair[order], right[order]
    new = np.ones(len(keys), np.bool_)
    new[1:] = (keys[1:] != keys[:-1]) | (pair[1:] != pair[:-1])
    at = np.flatnonzero(new)
    both = np.diff(np.append(at, len(keys))).astype(np.float64)
    on_right: F64 = np.add.reduceat(right.astype(np.float64), at) if len(at) else np.zeros(0)
    return Compared(pair[at], keys[at], both - on_right, on_right)


@dataclass(frozen=True, slots=True)
class Rarity:
    """How rare grams are: the inverse document frequency of those counted, the highest for all others.

    Args:
        keys: V sorted gram hashes.
        values: shape (V,).
        unseen: of a gram that was not counted.
    """

    keys: U64
    values: F32
    unseen: float

    @classmethod
    def count(cls, texts: Sequence[str], n: int, *, size_max: int = 200_000) -> Rarity:
        """Counted over ``texts``; the ``size_max`` most frequent grams that stand in two texts or more are kept."""
        grams = ngrams(texts, shortest=n, longest=n)
        order = np.lexsort((grams.keys, grams.text_of))
        keys, owner = grams.keys[order], grams.text_of[order]
        new = np.ones(len(keys), np.bool_)
        new[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
        distinct, counts = np.unique(keys[new], return_counts=True)
        kept = np.flatnonzero(counts >= 2)
        if len(kept) > size_max:
            kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:size_max]])
        total = 1.0 + len(texts)
        return cls(distinct[kept], (np.log(total / (1.0 + counts[kept])) + 1.0).astype(np.float32), float(np.log(total / 2.0) + 1.0))

    def __call__(self, keys: U64) -> F64:
        """Of each gram."""
        if not len(self.keys):
            return np.full(len(keys), self.unseen)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.values[at], self.unseen)


def figures(texts: Sequence[str], texts_b: Sequence[str], rarities: Sequence[Rarity]) -> F64:
    """How alike the texts of each pair are, seen in many ways.

    Args:
        texts: B strings.
        texts_b: B strings.
        rarities: one for each of ``LENGTHS``.

    Returns:
        shape (B, len(FIGURES)).

    Cost: 60 us a pair in a batch.
    """
    B = len(texts)
    columns: list[F64] = []
    inside = np.zeros((B, 2))
    for n, rarity in zip(LENGTHS, rarities, strict=True):
        compared = compare(texts, texts_b, n)
        more, inside = _gram_figures(compared, rarity(compared.keys), B)
        columns += more
    return np.concatenate([np.stack(columns, axis=1), _text_figures([fold(t) for t in texts], [fold(t) for t in texts_b]), inside], axis=1)


def _gram_figures(c: Compared, weight: F64, B: int) -> tuple[list[F64], F64]:
    def total(values: F64) -> F64:
        return np.bincount(c.pair, values, B).astype(np.float64)

    def loudest(cells: Bools) -> F64:
        top = np.zeros(B)
        np.maximum.at(top, c.pair[cells], weight[cells])
        return top

    one, two = np.log1p(c.left) * weight, np.log1p(c.right) * weight
    cosine = total(one * two) / np.sqrt(np.maximum(total(one**2) * total(two**2), 1e-12))
    shared, whole_one, whole_two = total(np.minimum(c.left, c.right) * weight), total(c.left * weight), total(c.right * weight)
    in_one, in_two = shared / np.maximum(whole_one, 1e-9), shared / np.maximum(whole_two, 1e-9)
    left, right = loudest(c.only_left()), loudest(c.only_right())
    overlap = shared / np.maximum(whole_one + whole_two - shared, 1e-9)
    seen = [cosine, overlap, np.minimum(in_one, in_two), np.maximum(in_one, in_two), np.maximum(left, right), np.minimum(left, right)]
    return seen, np.stack([in_one, in_two], axis=1)


def _text_figures(texts: Sequence[str], texts_b: Sequence[str]) -> F64:
    rows: list[tuple[float, ...]] = []
    for a, b in zip(texts, texts_b, strict=True):
        short, long = sorted((len(a), len(b)))
        common = common_subsequence(a[:LCS_MAX], b[:LCS_MAX])
        least = max(1, min(short, LCS_MAX))
        rows.append(
            (
                (short + 1) / (long + 1), np.log1p(short), np.log1p(long), 2 * common / max(1, min(len(a), LCS_MAX) + min(len(b), LCS_MAX)), common / least,
                _common_start(a, b) / max(1, short), _common_start(a[::-1], b[::-1]) / max(1, short),
                (len(NEGATION.findall(a)) - len(NEGATION.findall(b))) % 2, set(DIGITS.findall(a)) != set(DIGITS.findall(b)),
                np.log((len(a) + 1) / (len(b) + 1)),
            )
        )  # fmt: skip
    return np.array(rows, np.float64).reshape(-1, 10)


def _common_start(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def sides(c: Compared, *, directed: bool) -> tuple[U64, I64]:
    """Each gram with where it stands: on both sides, or on one (which one, when ``directed``); hashes and their pairs."""
    alone_left, alone_right = (_LEFT, _RIGHT) if directed else (_APART, _APART)
    kind = np.where(c.only_left(), alone_left, np.where(c.only_right(), alone_right, _SHARED))
    return mix(c.keys + kind * np.uint64(0x9E3779B97F4A7C15)), c.pair


def crossings(c: Compared, weight: F64, *, directed: bool, most: int) -> tuple[U64, I64]:
    """A gram that only the first text has with a gram that only the second has: what stands for what; hashes and their pairs.

    Args:
        c: the grams.
        weight: rarity of each cell.
        directed: which came first matters.
        most: grams of a side, the rarest first.
    """
    left, right = (_rarest(c, weight, cells, most) for cells in (c.only_left(), c.only_right()))
    ends = np.searchsorted(c.pair[right], c.pair[left], "right")
    first = np.searchsorted(c.pair[right], c.pair[left], "left")
    n = ends - first
    one = np.repeat(left, n)
    two = right[np.repeat(first - np.concatenate([[0], np.cumsum(n)[:-1]]) if len(n) else first, n) + np.arange(int(n.sum()))]
    a, b = c.keys[one], c.keys[two]
    low, high = (a, b) if directed else (np.minimum(a, b), np.maximum(a, b))
    return mix(mix(low + _CROSS) + high), c.pair[one]


def _rarest(c: Compared, weight: F64, cells: Bools, most: int) -> npt.NDArray[np.intp]:
    """Of the chosen cells, the ``most`` heaviest of each pair, in order of pairs."""
    at = np.flatnonzero(cells)
    order = at[np.lexsort((-weight[at], c.pair[at]))]
    pair = c.pair[order]
    place = np.arange(len(order)) - np.searchsorted(pair, pair, "left")
    return order[place < most]
