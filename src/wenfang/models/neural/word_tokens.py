"""Texts of spaced scripts as words with hashed pieces beside them: whole words, their beginnings and endings, and their neighbours.

A Han character is a word of its own, so mixed texts are read too. Offsets are code points of the text as given. Knows nothing of networks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np

from wenfang.core.text import fold

from .tokens import CLS, FIRST, PAD, UNK, Encoded, Ids

__all__ = ["WordTokens", "words_of"]

_HAN = r"\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+|[^\w\s]")
_PIECES = 5
"""Hashed pieces of a word alone: itself, two beginnings, two endings."""
_CACHE = 1 << 16


def words_of(folded: str) -> list[tuple[str, int, int]]:
    """(word, start, end) of each word, Han character and mark.

    >>> words_of("play 周杰伦!")
    [('play', 0, 4), ('周', 5, 6), ('杰', 6, 7), ('伦', 7, 8), ('!', 8, 9)]
    >>> words_of("안녕")
    [('안녕', 0, 2)]
    """
    return [(m[0], m.start(), m.end()) for m in _WORD.finditer(folded)]


class WordTokens:
    """Words of the folded text.

    Args:
        words: the known words; word i has number ``FIRST + i``.
        buckets: piece numbers run over ``1..buckets``; 0 turns pieces off.
    """

    prefix: tuple[int, ...] = (CLS,)
    suffix: tuple[int, ...] = ()
    between: tuple[int, ...] = (CLS,)
    pad = PAD

    def __init__(self, words: Sequence[str], *, buckets: int = 0) -> None:
        self.words = list(words)
        self.buckets = buckets
        self.gram_count = _PIECES + 2 if buckets else 0
        self._number = {word: FIRST + i for i, word in enumerate(self.words)}
        self._pieces = lru_cache(_CACHE)(self._pieces_of)

    @classmethod
    def learn(cls, texts: Sequence[str], *, min_count: int = 1, buckets: int = 0) -> WordTokens:
        """The words that occur at least ``min_count`` times, most frequent first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(word for word, _, _ in words_of(fold(text)))
        return cls(sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w)), buckets=buckets)

    def __len__(self) -> int:
        """V, special tokens included."""
        return FIRST + len(self.words)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text as words.

        Cost: about 2 microseconds a word.
        """
        return [self._encoded(words_of(fold(text))) for text in texts]

    def _encoded(self, found: list[tuple[str, int, int]]) -> Encoded:
        number = self._number
        ids = np.fromiter((number.get(word, UNK) for word, _, _ in found), np.int32, len(found))
        offsets = np.array([(start, end) for _, start, end in found], np.int32).reshape(-1, 2)
        if not self.buckets:
            return Encoded(ids, None, offsets)
        grams = np.zeros((len(found), self.gram_count), np.int32)
        before = ""
        for i, (word, _, _) in enumerate(found):
            grams[i, :_PIECES] = self._pieces(word)
            after = found[i + 1][0] if i + 1 < len(found) else ""
            grams[i, _PIECES] = self._hashed(f"{before} {word}", 5)
            grams[i, _PIECES + 1] = self._hashed(f"{word} {after}", 6)
            before = word
        return Encoded(ids, grams, offsets)

    def _pieces_of(self, word: str) -> Ids:
        parts = (word, word[:2], word[:3], word[-2:], word[-3:])
        return np.array([self._hashed(part, salt) for salt, part in enumerate(parts)], np.int32)

    def _hashed(self, piece: str, salt: int) -> int:
        return 1 + crc32(piece.encode("utf-8", "surrogatepass"), 0x9E3779B1 * (salt + 1) & 0xFFFFFFFF) % self.buckets

    def to_json(self) -> dict[str, Any]:
        """What ``tokens_from_json`` needs."""
        return {"kind": "words", "words": self.words, "buckets": self.buckets}

    def files(self) -> dict[str, bytes]:
        """None."""
        return {}
