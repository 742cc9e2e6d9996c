"""What a network is asked: texts, or pairs of texts in one window with a separator between them. Knows nothing of networks or labels.

A pair that is longer than the window is read in several: each window of one text beside the window of the other at the same relative
place, and a text that takes less than half of the window stands whole beside every part of the other. Nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .batches import windows
from .tokens import Encoded, Tokens

__all__ = ["Questions", "pair_windows", "questions_of"]

Cut = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Questions:
    """n questions as token sequences; a long pair has several."""

    encoded: list[Encoded]
    owners: npt.NDArray[np.intp]
    """Which question each sequence belongs to, ascending, shape (m,)."""
    count: int
    """n."""

    def shares(self) -> npt.NDArray[np.float32]:
        """What each sequence counts, so that every question counts the same, shape (m,)."""
        return (1.0 / np.bincount(self.owners, minlength=self.count)[self.owners]).astype(np.float32)


def questions_of(tokens: Tokens, texts: Sequence[str], texts_b: Sequence[str], *, size: int, at_most: int | None = None) -> Questions:
    """Texts as they are, or pairs cut into windows.

    Args:
        tokens: makes numbers of texts.
        texts: n strings.
        texts_b: n strings, or none.
        size: tokens of a window, the separator included, without the tokens around.
        at_most: windows of one pair, evenly spread over it.
    """
    one = tokens.encode(texts)
    if not len(texts_b):
        return Questions(one, np.arange(len(one)), len(one))
    found: list[Encoded] = []
    owners: list[int] = []
    for i, (a, b) in enumerate(zip(one, tokens.encode(texts_b), strict=True)):
        cuts = pair_windows(len(a.ids), len(b.ids), max(2, size - len(tokens.between)))
        if at_most is not None and len(cuts) > at_most:
            cuts = [cuts[round(k * (len(cuts) - 1) / max(1, at_most - 1))] for k in range(at_most)]
        found += [_joined(a, b, *cut, tokens) for cut in cuts]
        owners += [i] * len(cuts)
    return Questions(found, np.array(owners, np.intp), len(one))


def pair_windows(length_a: int, length_b: int, room: int) -> list[tuple[Cut, Cut]]:
    """Parts of both texts that stand together, each pair of parts at most ``room`` long, every token in one of them.

    >>> pair_windows(3, 2, 5), pair_windows(6, 1, 4)
    ([((0, 3), (0, 2))], [((0, 3), (0, 1)), ((3, 6), (0, 1))])
    """
    if length_a + length_b <= room:
        return [((0, length_a), (0, length_b))]
    half = room // 2
    size_a = room - length_b if length_b <= half else min(length_a, half)
    one, two = windows(length_a, size_a, 0), windows(length_b, room - size_a, 0)
    n = max(len(one), len(two))
    return [(one[i * len(one) // n][:2], two[i * len(two) // n][:2]) for i in range(n)]


def _joined(a: Encoded, b: Encoded, cut_a: Cut, cut_b: Cut, tokens: Tokens) -> Encoded:
    left, right = slice(*cut_a), slice(*cut_b)
    grams = None
    if a.grams is not None and b.grams is not None:
        grams = np.concatenate([a.grams[left], np.zeros((len(tokens.between), tokens.gram_count), np.int32), b.grams[right]])
    return Encoded(np.concatenate([a.ids[left], np.array(tokens.between, np.int32), b.ids[right]]), grams)
