"""Text as it is stored and as it is read by models. Offsets are code points of the stored text, intervals ``[start, end)``.

Stored text is decoded, never normalised. What a model reads is a *view*: NFKC-like width folding that maps one code point to one
code point, so that an offset in the view is an offset in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence

__all__ = ["common_subsequence", "encodable", "fold", "has_surrogate", "is_cjk", "script_of"]

_SURROGATE = re.compile("[\ud800-\udfff]")


def _fold_table() -> dict[int, str]:
    table: dict[int, str] = {0x3000: " "}
    for code in [*range(0xFF01, 0xFF5F), *range(0xFFE0, 0xFFE7)]:
        plain = unicodedata.normalize("NFKC", chr(code))
        if len(plain) == 1:
            table[code] = plain.lower()
    for code in range(0x250):  # Latin: one-to-one lower case only (İ lowers to two code points)
        lower = chr(code).lower()
        if len(lower) == 1 and lower != chr(code):
            table[code] = lower
    for code in range(0x370, 0x530):  # Greek, Cyrillic
        lower = chr(code).lower()
        if len(lower) == 1 and lower != chr(code):
            table[code] = lower
    for code in (*range(9, 14), 0x85, 0xA0, 0x2028, 0x2029):
        table[code] = " "
    return table


_FOLD = _fold_table()


def fold(text: str) -> str:
    """The view models read: full width to half width, lower case, every blank a space; same length as ``text``.

    >>> fold("Ａpple　１２")
    'apple 12'
    """
    return text.translate(_FOLD)


def has_surrogate(text: str) -> bool:
    """Whether ``text`` holds a lone surrogate, which no encoding can store."""
    return _SURROGATE.search(text) is not None


def encodable(text: str) -> str:
    """``text`` with every lone surrogate as U+FFFD: the same length, and every encoding can hold it."""
    return _SURROGATE.sub("\ufffd", text)


def is_cjk(char: str) -> bool:
    """Whether ``char`` is a Han character."""
    code = ord(char)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x323AF or 0xF900 <= code <= 0xFAFF


_SCRIPTS = re.compile(
    r"(?P<han>[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U000323AF])|(?P<kana>[\u3040-\u30FF])|(?P<hangul>[\uAC00-\uD7AF])|(?P<latin>[A-Za-z\u00C0-\u024F])|(?P<cyrillic>[\u0400-\u04FF])|(?P<arabic>[\u0600-\u06FF])"
)
"""Written as numbers: an editor that normalises turns the first compatibility ideograph into U+8C48, and Hangul into Han."""


def script_of(text: str) -> str:
    """The script most letters of ``text`` are in: ``han kana hangul latin cyrillic arabic`` or ``none``; any kana makes it ``kana``.

    >>> script_of("你好 world 欢迎光临"), script_of("안녕하세요"), script_of("123")
    ('han', 'hangul', 'none')
    """
    counts: dict[str, int] = {}
    for m in _SCRIPTS.finditer(text):
        kind = m.lastgroup or "none"
        counts[kind] = counts.get(kind, 0) + 1
    if "kana" in counts:
        return "kana"
    return max(counts, key=lambda k: counts[k]) if counts else "none"


def common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    >>> common_subsequence("中文房间", "中国文房")
    3

    Cost: O(len(b) * len(a) / 64), by bit-parallel addition.
    Source: Hyyrö 2004 (Bit-parallel LCS-length computation revisited).
    """
    where: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        where[item] = where.get(item, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for item in b:
        hit = row & where.get(item, 0)
        row = (row + hit | row - hit) & full
    return len(a) - row.bit_count()
