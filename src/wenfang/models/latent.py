"""Texts as dense vectors without a network: character n-grams weighted by rarity, projected onto the directions that texts differ in most.

Learning needs numpy and scipy, answering numpy only: a text's vector is a sum of rows of one table, the same alone and in a batch.
Knows nothing of tasks. Source: Deerwester et al., Indexing by Latent Semantic Analysis, 1990; Halko et al., Finding Structure with
Randomness, 2011, algorithm 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Unsupported

from .bags import Bags, Recipe, bag_texts, count_vocabulary, sum_rows
from .features import GramIndex, ngrams, text_blocks

__all__ = ["Latent", "gram_lengths", "normalised"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CELLS_MAX = 20_000_000
"""Of the table: 40 MB in a bundle."""
LEARNED_FROM_MAX = 60_000
"""Texts that the directions are learned from."""
WORDS = 1
"""Of a word n-gram: single words stand beside the characters where a script has words."""
POWER_STEPS = 2
EXTRA = 16
"""Directions beyond those wanted, for accuracy."""
LEAST_PAIRS = 50
RIDGE = 0.3


@dataclass(slots=True)
class Latent:
    """A projection of bags of grams.

    Args:
        index: the V grams.
        table: vector of each gram, rarity included, shape (V, H).
        longest: characters of the longest character n-gram.
    """

    index: GramIndex
    table: npt.NDArray[np.float16]
    longest: int

    @classmethod
    def learn(cls, texts: Sequence[str], *, dimension: int, longest: int, min_count: int, long_weight: float, flat: float, seed: int) -> Latent:
        """The directions of ``texts``.

        Args:
            texts: n strings.
            dimension: H; fewer where the texts do not have so many directions.
            longest: grams have 1 to ``longest`` characters.
            min_count: a gram must stand in that many texts.
            long_weight: of a gram of two characters against a single one, its square of three, and so on.
            flat: 0 keeps the directions' own weights, 1 makes them all count alike.
            seed: of the random start.

        Raises:
            Unsupported: `model.needs-package` without scipy.

        Cost: 60,000 short texts and 512 directions take about 60 CPU-seconds.
        """
        index, counts = count_vocabulary(texts, Recipe(1, longest, WORDS), min_count=min_count, size_max=max(1, CELLS_MAX // dimension))
        rarity = np.log((1.0 + len(texts)) / (1.0 + counts)) + 1.0
        scale = (rarity * long_weight ** (gram_lengths(texts, index, longest) - 1.0)).astype(np.float32)
        rng = np.random.default_rng(seed)
        chosen: Sequence[str] = texts if len(texts) <= LEARNED_FROM_MAX else [texts[int(i)] for i in np.sort(rng.choice(len(texts), LEARNED_FROM_MAX, replace=False))]
        bags = bag_texts(chosen, index, Recipe(1, longest, WORDS))
        weights, directions = _directions(bags, scale, dimension, rng)
        if not len(weights):
            return cls(index, np.zeros((len(index), 1), np.float16), longest)
        table = scale[:, None] * directions * (weights / weights[0]) ** -flat
        return cls(index, (table / max(1e-12, float(np.abs(table).max(initial=0.0)))).astype(np.float16), longest)

    @property
    def dimension(self) -> int:
        """H."""
        return self.table.shape[1]

    def vectors(self, texts: Sequence[str]) -> F32:
        """One vector of length one for each text, shape (B, H); texts without a known gram share one.

        Cost: about 20 us a short text in a batch.
        """
        out = np.empty((len(texts), self.dimension), np.float32)
        for start, end in text_blocks(texts, 1 << 19):
            out[start:end] = sum_rows(self.table, bag_texts(texts[start:end], self.index, Recipe(1, self.longest, WORDS)))
        return normalised(out)

    def adapted(self, texts: Sequence[str], texts_b: Sequence[str]) -> Latent:
        """Bent so that texts that mean the same lie together: directions in which the given pairs differ count less.

        Args:
            texts: n strings.
            texts_b: n strings that mean the same; with fewer than 50 nothing changes.

        Source: Hatch et al., Within-class Covariance Normalization, 2006.
        """
        if len(texts) < LEAST_PAIRS:
            return self
        apart = (self.vectors(texts) - self.vectors(texts_b)).astype(np.float64)
        spread: F64 = apart.T @ apart / len(apart)
        H = len(spread)
        values, axes = np.linalg.eigh(spread + (RIDGE * np.trace(spread) / H + 1e-9) * np.eye(H))
        table = self.table.astype(np.float32) @ (axes * values**-0.5).astype(np.float32)
        return Latent(self.index, (table / max(1e-12, float(np.abs(table).max(initial=0.0)))).astype(np.float16), self.longest)


def gram_lengths(texts: Sequence[str], index: GramIndex, longest: int) -> I64:
    """How many characters each gram of ``index`` has, 1 for a word, shape (V,); all of them stand in ``texts``."""
    found = np.ones(len(index), np.int64)
    for n in range(2, longest + 1):
        for start, end in text_blocks(texts, 1 << 21):
            rows = index.rows(ngrams(texts[start:end], shortest=n, longest=n).keys)
            found[rows[rows >= 0]] = n
    return found


def normalised(vectors: npt.NDArray[np.floating]) -> F32:
    """Rows at length one; a row of zeros becomes the same direction for all."""
    lengths = np.sqrt(np.add.reduce(vectors.astype(np.float64) ** 2, axis=1, keepdims=True))
    empty = ~(lengths[:, 0] > 1e-9)
    out = (vectors / np.where(empty[:, None], 1.0, lengths)).astype(np.float32)
    out[empty] = np.float32(vectors.shape[1] ** -0.5)
    return out


def _directions(bags: Bags, scale: F32, dimension: int, rng: np.random.Generator) -> tuple[F64, F32]:
    """Singular values and right singular vectors (V, H) of the bags at length one."""
    try:
        from scipy import sparse
    except ModuleNotFoundError as e:
        raise Unsupported("model.needs-package", package=e.name or "scipy") from e
    values = bags.values * scale[bags.rows]
    owner = np.repeat(np.arange(len(bags)), np.diff(bags.starts))
    lengths = np.sqrt(np.bincount(owner, values.astype(np.float64) ** 2, len(bags)))
    values = (values / np.maximum(lengths, 1e-12)[owner]).astype(np.float32)
    X: Any = cast("Any", sparse).csr_matrix((values, bags.rows, bags.starts), shape=(len(bags), len(scale)))
    k = min(dimension, *X.shape)
    if not k:
        return np.zeros(0), np.zeros((len(scale), 0), np.float32)
    turned = X.T.tocsr()
    basis: Any = rng.standard_normal((X.shape[1], min(k + EXTRA, *X.shape))).astype(np.float32)
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(X @ basis)[0]
        basis = np.linalg.qr(turned @ basis)[0]
    small = np.asarray(X @ basis, np.float64)
    squares, axes = np.linalg.eigh(small.T @ small)
    order = np.argsort(-squares)[:k]
    order = order[squares[order] > 1e-8 * max(1e-30, float(squares.max()))]
    return np.sqrt(squares[order]), np.asarray(basis @ axes[:, order].astype(np.float32), np.float32)
