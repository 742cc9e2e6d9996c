"""Tokens with tags → text with spans. Reads IOB1, IOB2 (BIO), BIOES, BMES, BILOU and bare IO tags; knows nothing of files.

Illegal transitions are mended by one rule and counted: an entity begins where a tag continues something that is not open, and ends
where the next tag no longer continues it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from wenfang.core.text import is_cjk

from .columns import RawSpan

__all__ = ["TAG", "decode", "join_tokens", "loose_begin", "parse_tag", "per_character"]

TAG = re.compile(r"[BIMESLU][-_]\S+|O")
_BEGIN, _INSIDE, _END, _SINGLE = "B", "IM", "EL", "SU"


def parse_tag(tag: str) -> tuple[str, str] | None:
    """(prefix, label) of a tag; ``O`` gives two empty strings, a bare label the prefix ``I``; None: no tag at all.

    >>> parse_tag("B-人名"), parse_tag("O"), parse_tag("LOC"), parse_tag("X-LOC")
    (('B', '人名'), ('', ''), ('I', 'LOC'), None)
    """
    if tag == "O":
        return "", ""
    if TAG.fullmatch(tag):
        return tag[0], tag[2:]
    if len(tag) > 1 and tag[1] in "-_" or not tag or any(c.isspace() for c in tag):  # noqa: RUF021 reads as it is meant
        return None
    return "I", tag


def loose_begin(tags: Iterable[str]) -> bool:
    """Whether entities of this file may begin with I (IOB1 and IO files), so that it is no mistake to be counted."""
    begins = insides = 0
    before = "O"
    for tag in tags:
        if tag[:1] in {"B", "S", "U"}:
            begins += 1
        elif tag != "O" and (before == "O" or before[2:] != tag[2:]):
            insides += 1
        before = tag
    return insides > begins


def decode(tags: Sequence[str], starts: Sequence[int], ends: Sequence[int], *, loose: bool) -> tuple[list[RawSpan], int]:
    """(spans, repairs) of one sentence.

    Args:
        tags: T tags that ``parse_tag`` accepts.
        starts: T offsets of the tokens in the text, code points.
        ends: T offsets of their ends.
        loose: an entity may begin with I.
    """
    spans: list[RawSpan] = []
    repairs = 0
    begun = last = -1
    label = ""
    must_end = False  # a BIOES or BMES entity of several tokens is closed by E
    for i, tag in enumerate(tags):
        prefix, name = parse_tag(tag) or ("", "")
        goes_on = begun >= 0 and prefix in {"I", "M", "E", "L"} and name == label
        if begun >= 0 and not goes_on:
            repairs += must_end
            spans.append((starts[begun], ends[last], label))
            begun, must_end = -1, False
        if not prefix:
            continue
        if not goes_on:
            if prefix not in "BSU" and not (loose and prefix == "I"):
                repairs += 1
            begun, label = i, name
        last = i
        must_end = prefix == "M"
        if prefix in "SULE":
            spans.append((starts[begun], ends[i], label))
            begun, must_end = -1, False
    if begun >= 0:
        repairs += must_end
        spans.append((starts[begun], ends[last], label))
    return spans, repairs


def per_character(tokens: Sequence[str]) -> bool:
    """Whether these tokens are single characters, as Chinese corpora have it."""
    return sum(len(t) == 1 for t in tokens) >= 0.8 * len(tokens)


def _wants_space(left: str, right: str) -> bool:
    return not (is_cjk(left) or is_cjk(right) or _wide(left) or _wide(right))


def _wide(char: str) -> bool:
    return "\u3000" <= char <= "\u30ff" or "\uff00" <= char <= "\uffef" or "\uac00" <= char <= "\ud7af"


def join_tokens(tokens: Sequence[str], *, characters: bool) -> tuple[str, list[int], list[int]]:
    """(text, start of each token, end of each token): nothing between characters or next to Han and kana, a space between other words.

    >>> join_tokens(["Tim", "Cook", "在", "北京"], characters=False)
    ('Tim Cook在北京', [0, 4, 8, 9], [3, 8, 9, 11])
    """
    if characters:
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for token in tokens:
            starts.append(at)
            at += len(token)
            ends.append(at)
        return "".join(tokens), starts, ends
    pieces: list[str] = []
    starts, ends, at, before = [], [], 0, ""
    for token in tokens:
        if before and token and _wants_space(before[-1], token[0]):
            pieces.append(" ")
            at += 1
        starts.append(at)
        at += len(token)
        ends.append(at)
        pieces.append(token)
        before = token
    return "".join(pieces), starts, ends
