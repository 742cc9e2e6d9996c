"""Words as numbers: hashes of the words of spaced scripts, and of their n-grams, over whole batches of texts.

A word is a run of letters, digits and combining marks of any script that writes blanks between words; Han characters, kana,
and scripts of South-East Asia without blanks have none (their character n-grams say more). Needs numpy only; knows nothing of labels.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from .features import U64, Grams, code_points, mix

__all__ = ["word_grams"]

_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0xA4CF), (0xF900, 0xFAFF), (0xFF66, 0xFFDC))
"""Thai and Lao, Burmese, Khmer, everything from CJK radicals to Yi, and their compatibility forms."""
_END = np.uint64(0xA0761D6478BD642F)
"""Stands before and after the words of each text."""
_STEP = np.uint64(0x9E3779B97F4A7C15)


@cache
def _letters() -> npt.NDArray[np.bool_]:
    """Which code points of the basic plane words are made of; the last one stands for all beyond it."""
    table = np.fromiter((unicodedata.category(chr(c))[0] in "LMN" for c in range(0x10000)), np.bool_, 0x10000)
    for low, high in _UNSPACED:
        table[low : high + 1] = False
    table[-1] = False
    return table


def _words(texts: Sequence[str]) -> tuple[U64, npt.NDArray[np.int32]]:
    """Hash and text of each word, in order."""
    codes, starts = code_points(texts)
    inside = _letters()[np.minimum(codes, 0xFFFF)]
    at = np.flatnonzero(inside)
    if not len(at):
        return np.zeros(0, np.uint64), np.zeros(0, np.int32)
    first = np.ones(len(at), np.bool_)
    first[1:] = np.diff(at) > 1
    edges = np.searchsorted(at, starts[1:-1])  # a word ends with its text
    first[edges[edges < len(at)]] = True
    begin = np.flatnonzero(first)
    place = np.arange(len(at)) - np.repeat(begin, np.diff(np.append(begin, len(at))))
    letters = mix((place.astype(np.uint64) << np.uint64(32)) + codes[at] + np.uint64(1))
    return mix(np.add.reduceat(letters, begin)), (np.searchsorted(starts, at[begin], "right") - 1).astype(np.int32)


def word_grams(texts: Sequence[str], longest: int) -> Grams:
    """Words and word n-grams of the folded texts; n-grams of two or more may begin or end on the mark at the ends of the text.

    Args:
        texts: B strings.
        longest: largest n.
    """
    hashes, text_of = _words(texts)
    keys, owners = [mix(hashes ^ _STEP)], [text_of]
    if longest > 1 and len(hashes):
        present, counts = np.unique(text_of, return_counts=True)
        owner = np.repeat(present, counts + 2)
        marked = np.full(len(owner), _END, np.uint64)
        marked[np.arange(len(hashes)) + 2 * np.repeat(np.arange(len(present)), counts) + 1] = hashes
        rolling = marked
        for n in range(2, longest + 1):
            m = max(0, len(marked) - n + 1)
            rolling = mix(rolling[:m] * _STEP + marked[n - 1 :] + np.uint64(n))
            whole = owner[:m] == owner[n - 1 :]
            keys.append(rolling[whole])
            owners.append(owner[:m][whole])
    return Grams(np.concatenate(keys), np.concatenate(owners))
