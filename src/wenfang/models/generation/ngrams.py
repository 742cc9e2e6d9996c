"""An interpolated n-gram model with modified Kneser-Ney smoothing over any symbols. Knows nothing of what they mean.

Source: Chen and Goodman 1999 (An empirical study of smoothing techniques for language modeling), section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import numpy.typing as npt

__all__ = ["NGrams"]

MASK = (1 << 64) - 1
START, STOP = "\x02", "\x03"


@cache
def _code(symbol: str) -> int:
    h = 0xCBF29CE484222325
    for byte in symbol.encode("utf-8", "surrogatepass"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def _key(codes: Sequence[int]) -> int:
    return reduce(lambda h, c: (((h ^ c) * 0x9E3779B97F4A7C15) & MASK) ^ (h >> 29), codes, 0x2545F4914F6CDD1D + len(codes))


@dataclass(slots=True)
class NGrams:
    """Probabilities of the next symbol behind those before it.

    Args:
        order: symbols of the longest n-gram.
        seen: by hash of an n-gram, its probability given all but its last symbol.
        rest: by hash of a context, what is left for symbols not seen behind it.
        floor: probability of a symbol never seen.
    """

    order: int
    seen: dict[int, float]
    rest: dict[int, float]
    floor: float

    @classmethod
    def learn(cls, texts: Iterable[Sequence[str]], *, order: int, vocabulary: int = 0) -> NGrams:
        """Counted and smoothed; a start stands before every text, a stop behind it.

        Args:
            texts: rows of symbols.
            order: symbols of the longest n-gram.
            vocabulary: how many different symbols there may be, the stop included; 0: those of the texts and one more.
        """
        codes: dict[str, int] = {}
        rows = [[codes.setdefault(s, _code(s)) for s in (START, *text, STOP)] for text in texts]
        grams: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]
        for row in rows:
            for n in range(1, order + 1):
                # shorter n-grams count themselves only where nothing longer ends: at the beginning of a text
                for i in range(n, len(row) + 1):
                    if n in {order, i}:
                        grams[n - 1][tuple(row[i - n : i])] += 1
        for n in range(order - 1, 0, -1):
            for gram in grams[n]:
                grams[n - 1][gram[1:]] += 1  # how many different symbols stand before it
        grams[0].pop((_code(START),), None)
        size = vocabulary or len(codes) + 1
        model = cls(order, {}, {}, 1.0 / size)
        for n in range(1, order + 1):
            model._smooth(grams[n - 1])
        return model

    def _smooth(self, grams: Counter[tuple[int, ...]]) -> None:
        n1, n2, n3, n4 = (sum(c == k for c in grams.values()) for k in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2) if n1 + n2 else 0.5
        discounts = (0.0, *(max(0.05, min(k, k - (k + 1) * y * b / a)) if a else 0.5 * k for k, a, b in ((1, n1, n2), (2, n2, n3), (3, n3, n4))))
        totals: Counter[tuple[int, ...]] = Counter()
        taken: Counter[tuple[int, ...]] = Counter()
        for gram, c in grams.items():
            totals[gram[:-1]] += c
            taken[gram[:-1]] += discounts[min(c, 3)]  # pyright: ignore[reportArgumentType] a sum of fractions
        for context, total in totals.items():
            self.rest[_key(context)] = taken[context] / total
        for gram, c in grams.items():
            below = self._chance(gram[1:-1], gram[-1]) if len(gram) > 1 else self.floor
            self.seen[_key(gram)] = (c - discounts[min(c, 3)]) / totals[gram[:-1]] + self.rest[_key(gram[:-1])] * below

    def _chance(self, context: tuple[int, ...], code: int) -> float:
        share = 1.0
        while True:
            found = self.seen.get(_key((*context, code)))
            if found is not None:
                return share * found
            share *= self.rest.get(_key(context), 1.0)
            if not context:
                return share * self.floor
            context = context[1:]

    def log_chances(self, text: Sequence[str], *, whole: bool = True) -> npt.NDArray[np.float64]:
        """Natural logarithm of the probability of each symbol and, for a whole text, of the stop behind it."""
        codes = [_code(s) for s in (START, *text, *((STOP,) if whole else ()))]
        return np.log([self._chance(tuple(codes[max(0, i - self.order + 1) : i]), codes[i]) for i in range(1, len(codes))])
