"""How far a written text agrees with the wanted one: ROUGE-1/2/L, chrF, BLEU, and distinct-n. Knows nothing of models or tasks.

Tokens are single characters of Chinese, Japanese and Korean and words of other scripts; punctuation marks are tokens of their own.
ROUGE ignores case, as is usual; BLEU and chrF do not. The scores of a corpus come from sums over examples (chrF, BLEU) or are
means over examples (ROUGE), so that intervals and paired tests cost no second look at the texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from wenfang.core.text import common_subsequence
from wenfang.stats.formulas import BLEU_ORDER, CHRF_ORDER
from wenfang.stats.scores import Counts, Ints, in_millionths

__all__ = ["bleu_counts", "chrf_counts", "distinct", "rouge_counts", "tokens"]

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_ALONE}]|(?:(?![{_ALONE}])\w)+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Characters of Chinese, words of other scripts.

    >>> tokens("用GPT-4写诗 well")
    ['用', 'GPT', '-', '4', '写', '诗', 'well']
    """
    return _TOKEN.findall(text)


def _grams(items: Sequence[Hashable], n: int) -> Counter[Hashable]:
    return Counter(zip(*(items[i:] for i in range(n)), strict=False))


def _f1(right: int, said: int, wanted: int) -> float:
    return 2 * right / (said + wanted) if said + wanted else 1.0


def rouge_counts(wanted: Sequence[str], said: Sequence[str]) -> dict[str, Counts]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, each as the F1 of every example.

    Args:
        wanted: n reference texts.
        said: n generated ones.

    Source: Lin 2004 (ROUGE: a package for automatic evaluation of summaries).
    """
    rows: dict[str, list[float]] = {"rouge_1": [], "rouge_2": [], "rouge_l": []}
    for want, got in zip(wanted, said, strict=True):
        w, s = tokens(want.lower()), tokens(got.lower())
        for n in (1, 2):
            there, found = _grams(w, n), _grams(s, n)
            rows[f"rouge_{n}"].append(_f1((there & found).total(), found.total(), there.total()))
        rows["rouge_l"].append(_f1(common_subsequence(w, s), len(s), len(w)))
    return {
        "rouge_1": Counts("rouge_1", in_millionths(rows["rouge_1"])[:, None]),
        "rouge_2": Counts("rouge_2", in_millionths(rows["rouge_2"])[:, None]),
        "rouge_l": Counts("rouge_l", in_millionths(rows["rouge_l"])[:, None]),
    }


def chrf_counts(wanted: Sequence[str], said: Sequence[str]) -> Counts:
    """Character n-gram counts for chrF; white space does not count."""
    rows = [_chrf_row("".join(w.split()), "".join(s.split())) for w, s in zip(wanted, said, strict=True)]
    return Counts("chrf", _table(rows, 3 * CHRF_ORDER))


def _chrf_row(wanted: str, said: str) -> list[int]:
    row: list[int] = []
    for n in range(1, CHRF_ORDER + 1):
        there, found = _grams(wanted, n), _grams(said, n)
        row += [found.total() if there else 0, there.total(), (there & found).total()]
    return row


def bleu_counts(wanted: Sequence[str], said: Sequence[str]) -> Counts:
    """Token n-gram counts for BLEU."""
    rows: list[list[int]] = []
    for want, got in zip(wanted, said, strict=True):
        w, s = tokens(want), tokens(got)
        row: list[int] = []
        for n in range(1, BLEU_ORDER + 1):
            found = _grams(s, n)
            row += [(found & _grams(w, n)).total(), found.total()]
        rows.append([*row, len(s), len(w)])
    return Counts("bleu", _table(rows, 2 * BLEU_ORDER + 2))


def _table(rows: list[list[int]], columns: int) -> Ints:
    return np.array(rows, np.int64).reshape(-1, columns)


def distinct(said: Iterable[str], n: int) -> float:
    """Share of different n-grams among all that were generated: near 0 where a model says the same again and again.

    >>> distinct(["好的好的", "好的"], 2)
    0.5

    Source: Li et al. 2016 (A diversity-promoting objective function for neural conversation models).
    """
    grams = Counter[Hashable]()
    for text in said:
        grams.update(_grams(tokens(text), n))
    return len(grams) / grams.total() if grams else 0.0
