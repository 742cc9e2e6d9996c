"""Texts as token numbers: single characters with hashed n-grams beside them, or the subwords of a pretrained vocabulary.

Knows nothing of networks. Offsets are code points of the text as given, so a tagger's answer points into the stored text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from wenfang.core.text import fold, has_surrogate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["CLS", "PAD", "PATTERNS", "UNK", "CharTokens", "Encoded", "SubwordTokens", "Tokens"]

Ids = npt.NDArray[np.int32]
PAD, UNK, CLS = 0, 1, 2
FIRST = 3
"""The first character's number; the special tokens stand before it."""
PATTERNS: dict[str, tuple[tuple[int, ...], ...]] = {"classification": ((-1, 0), (-2, -1, 0)), "tagging": ((-1, 0), (0, 1), (-1, 0, 1))}
"""Which n-grams stand beside a character, as positions relative to it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as T tokens, without special tokens."""

    ids: Ids
    """Shape (T,)."""
    grams: Ids | None = None
    """Hashed n-grams at each token, shape (T, G); 0 is none."""
    offsets: Ids | None = None
    """Code points ``[start, end)`` of each token, shape (T, 2); None: token i is code point i."""


class Tokens(Protocol):
    """A fixed way from texts to numbers."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    between: tuple[int, ...]
    """Between the two texts of a pair."""
    pad: int
    gram_count: int
    """G."""

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text as tokens; any text is accepted."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What ``stored_tokens.tokens_from_json`` needs."""
        ...

    def files(self) -> dict[str, bytes]:
        """Further files to keep beside the JSON."""
        ...


class CharTokens:
    """Characters of the folded text, with hashed n-grams beside them.

    Args:
        chars: the known characters; character i has number ``FIRST + i``.
        patterns: relative positions of each n-gram.
        buckets: n-gram numbers run over ``1..buckets``; 0 turns n-grams off.
    """

    prefix: tuple[int, ...] = (CLS,)
    suffix: tuple[int, ...] = ()
    between: tuple[int, ...] = (CLS,)
    pad = PAD

    def __init__(self, chars: str, *, patterns: Sequence[Sequence[int]] = (), buckets: int = 0) -> None:
        self.chars = chars
        self.patterns = tuple(tuple(p) for p in patterns) if buckets else ()
        self.buckets = buckets
        self.gram_count = len(self.patterns)
        codes = _codes(chars)
        self._order = np.argsort(codes, kind="stable").astype(np.int32)
        self._sorted = codes[self._order]

    @classmethod
    def learn(cls, texts: Sequence[str], *, min_count: int = 1, patterns: Sequence[Sequence[int]] = (), buckets: int = 0) -> CharTokens:
        """The characters that occur at least ``min_count`` times, most frequent first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(fold(text))
        known = sorted((c for c, n in counts.items() if n >= min_count), key=lambda c: (-counts[c], c))
        return cls("".join(known), patterns=patterns, buckets=buckets)

    def __len__(self) -> int:
        """V, special tokens included."""
        return FIRST + len(self.chars)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text as tokens; all characters of the batch are looked up at once.

        >>> CharTokens("ab").encode(["bca"])[0].ids.tolist()
        [4, 1, 3]
        """
        views = [fold(t) for t in texts]
        codes = _codes("".join(views))
        at = np.minimum(np.searchsorted(self._sorted, codes), max(0, len(self._sorted) - 1))
        ids = np.full(len(codes), UNK, np.int32)
        if len(self._sorted):
            known = self._sorted[at] == codes
            ids[known] = FIRST + self._order[at[known]]
        encoded: list[Encoded] = []
        start = 0
        for view in views:
            end = start + len(view)
            grams = self._grams(codes[start:end]) if self.patterns else None
            encoded.append(Encoded(ids[start:end], grams))
            start = end
        return encoded

    def _grams(self, codes: npt.NDArray[np.uint32]) -> Ids:
        reach = max(abs(p) for pattern in self.patterns for p in pattern)
        padded = np.zeros(len(codes) + 2 * reach, np.uint64)
        padded[reach : reach + len(codes)] = codes
        columns: list[Ids] = []
        for salt, pattern in enumerate(self.patterns):
            mixed = np.full(len(codes), 0x9E3779B1 * (salt + 1), np.uint64)
            for p in pattern:
                mixed = (mixed ^ padded[reach + p : reach + p + len(codes)]) * np.uint64(0x100000001B3)
                mixed ^= mixed >> np.uint64(29)
            columns.append((1 + mixed % np.uint64(self.buckets)).astype(np.int32))
        return np.stack(columns, axis=1)

    def to_json(self) -> dict[str, Any]:
        """What ``stored_tokens.tokens_from_json`` needs; code points, for a lone surrogate has no UTF-8."""
        return {"kind": "characters", "codes": [ord(c) for c in self.chars], "patterns": [list(p) for p in self.patterns], "buckets": self.buckets}

    def files(self) -> dict[str, bytes]:
        """None."""
        return {}


class SubwordTokens:
    """The fast tokeniser of a pretrained model.

    Args:
        source: the bytes of ``tokenizer.json``.
        pad: number of the padding token.
    """

    gram_count = 0

    def __init__(self, source: bytes, *, pad: int) -> None:
        from tokenizers import Tokenizer

        self.source = source
        self.pad = pad
        self._tokenizer: Tokenizer = Tokenizer.from_str(source.decode("utf-8"))
        self.size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        """One more than the highest number it gives."""
        unknown = json.loads(source).get("model", {}).get("unk_token")
        self.unknown: int | None = None if unknown is None else self._tokenizer.token_to_id(unknown)
        """What stands for what it cannot spell; None: it spells everything."""
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        probe = self._tokenizer.encode("a", add_special_tokens=True)
        inner = [i for i, special in enumerate(probe.special_tokens_mask) if not special]
        first, last = (inner[0], inner[-1] + 1) if inner else (len(probe.ids), len(probe.ids))
        self.prefix: tuple[int, ...] = tuple(probe.ids[:first]) or (() if probe.ids[last:] else (pad,))  # an empty text must still be one token
        self.suffix: tuple[int, ...] = tuple(probe.ids[last:])
        pair = self._tokenizer.encode("a", "a", add_special_tokens=True)
        special = [i for i, s in enumerate(pair.special_tokens_mask) if s and last <= i < len(pair.ids) - len(self.suffix)]
        self.between: tuple[int, ...] = tuple(pair.ids[i] for i in special)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text as tokens; a lone surrogate is read as U+FFFD, one code point for one."""
        found = self._tokenizer.encode_batch([_without_surrogates(t) if has_surrogate(t) else t for t in texts], add_special_tokens=False)
        return [Encoded(np.array(e.ids, np.int32), None, np.array(e.offsets, np.int32).reshape(-1, 2)) for e in found]

    def to_json(self) -> dict[str, Any]:
        """What ``stored_tokens.tokens_from_json`` needs beside ``tokenizer.json``."""
        return {"kind": "subwords", "pad": self.pad}

    def files(self) -> dict[str, bytes]:
        """``tokenizer.json`` as the pretrained directory had it."""
        return {"tokenizer.json": self.source}


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _without_surrogates(text: str) -> str:
    return "".join("�" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
