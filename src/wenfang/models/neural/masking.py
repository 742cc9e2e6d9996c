"""Masked texts to learn a language from: whole words in spans, words found by how firmly characters cling together. Knows nothing of networks.

Source: whole words: Cui et al. 2021, section 3.1; spans: Joshi et al. 2020, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from .batches import Batch, Stacker, buckets, pieces_of
from .tokens import FIRST, UNK, CharTokens, Encoded, Ids

__all__ = ["Cohesion", "MaskedFeed", "encoded_chunks"]

CHUNK = 8192
"""Texts that are held in memory and shuffled together."""
SLOTS = 1 << 22
"""Of the table that counts pairs of characters."""
CLING = 3.0
"""Pairs that stand together e^3 = 20 times as often as by chance are inside of a word."""
SEEN = 5
"""Rarer pairs are never a word."""
WORD_MAX = 4
SPAN_P = 0.4
"""Of ending a span after each word: 2.5 words on average, at most ``SPAN_MAX``."""
SPAN_MAX = 4
AS_IS, OTHER = 0.1, 0.1
"""Shares of chosen characters that stay, and that become another one; the rest are hidden."""


@dataclass(slots=True)
class Cohesion:
    """How firmly neighbouring characters cling together, counted over texts; collisions in the table are rare and harmless."""

    single: npt.NDArray[np.int64]
    """Shape (V,)."""
    pairs: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(SLOTS, np.uint32))

    def add(self, encoded: Iterable[Encoded]) -> None:
        """Count the pairs of some texts."""
        for text in encoded:
            self.single += np.bincount(text.ids, minlength=len(self.single))
            np.add.at(self.pairs, _slots(text.ids), 1)

    def words(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Number of the word that each of T characters belongs to, ascending from 0, shape (T,)."""
        if not len(ids):
            return np.zeros(0, np.int64)
        total = max(1, int(self.single.sum()))
        together = self.pairs[_slots(ids)].astype(np.float64)
        chance = self.single[ids[:-1]] * self.single[ids[1:]].astype(np.float64) / total
        joined = (together >= SEEN) & (np.log(np.maximum(together, 1e-9) / np.maximum(chance, 1e-9)) >= CLING) & (ids[:-1] >= FIRST) & (ids[1:] >= FIRST)
        number, length = np.zeros(len(ids), np.int64), 1
        for i, join in enumerate(joined.tolist(), 1):
            length = length + 1 if join and length < WORD_MAX else 1
            number[i] = number[i - 1] + (length == 1)
        return number


class MaskedFeed:
    """Passes over texts, each time with other characters hidden.

    Args:
        texts: may be read again and again, in the same order.
        tokens: characters.
        cohesion: finds words.
        rate: share of the characters of a text to be guessed.
        size: characters of a text read at once; longer texts are cut.
        batch_tokens: padded tokens of a batch.
        count: characters of all texts with their special tokens, to foresee the number of batches.
    """

    def __init__(self, texts: Iterable[str], tokens: CharTokens, cohesion: Cohesion, *, rate: float, size: int, batch_tokens: int, count: int) -> None:
        self.texts = texts
        self.tokens = tokens
        self.cohesion = cohesion
        self.rate = rate
        self.size = size
        self.batch_tokens = batch_tokens
        self.count = count

    def epoch(self, rng: np.random.Generator) -> tuple[int, Iterator[Batch]]:
        """One pass; memory holds one chunk of texts."""
        return max(1, round(self.count / self.batch_tokens)), self._batches(rng)

    def _batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        texts = iter(self.texts)
        while chunk := list(islice(texts, CHUNK)):
            encoded = [e for e in self.tokens.encode(chunk) if len(e.ids)]
            if not encoded:
                continue
            stacker = Stacker(encoded, pieces_of(encoded, self.size), self.tokens)
            for rows in buckets(stacker.lengths, self.batch_tokens, rng):
                yield self._masked(stacker.stack(rows), rng)

    def _masked(self, batch: Batch, rng: np.random.Generator) -> Batch:
        ids, targets = batch.ids.copy(), np.full(batch.ids.shape, -1, np.int32)
        head = len(self.tokens.prefix)
        for b, length in enumerate(batch.lengths.tolist()):
            row = batch.ids[b, head : head + length]
            at = head + _chosen(self.cohesion.words(row), self.rate, rng)
            targets[b, at] = batch.ids[b, at]
            lot = rng.random(len(at))
            ids[b, at[lot >= AS_IS + OTHER]] = UNK
            other = at[lot < OTHER]
            ids[b, other] = rng.integers(FIRST, len(self.tokens), len(other))
        targets[targets == UNK] = -1  # nobody can spell an unknown character
        return replace(batch, ids=ids, targets=targets)


def _chosen(words: npt.NDArray[np.int64], rate: float, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Positions to guess: spans of whole words until ``rate`` of the characters are covered, at least one."""
    T = len(words)
    wanted = max(1, round(rate * T))
    borders: npt.NDArray[np.intp] = np.searchsorted(words, np.arange(int(words[-1]) + 2))
    taken = np.zeros(T, np.bool_)
    n = len(borders) - 1
    for first in rng.permutation(n).tolist():
        last = min(n, first + min(SPAN_MAX, int(rng.geometric(SPAN_P))))
        while last > first + 1 and taken.sum() + (borders[last] - borders[first]) > wanted:
            last -= 1
        taken[borders[first] : borders[last]] = True
        if taken.sum() >= wanted:
            break
    return np.flatnonzero(taken)


def _slots(ids: Ids) -> npt.NDArray[np.int64]:
    """Where neighbouring pairs are counted, shape (T - 1,)."""
    mixed = ids[:-1].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + ids[1:].astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(SLOTS)).astype(np.int64)


def encoded_chunks(texts: Iterable[str], tokens: CharTokens) -> Iterator[Sequence[Encoded]]:
    """The texts as tokens, a chunk at a time."""
    stream = iter(texts)
    while chunk := list(islice(stream, CHUNK)):
        yield tokens.encode(chunk)
