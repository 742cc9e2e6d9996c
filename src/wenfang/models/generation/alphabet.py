"""Characters as numbers and back, with marks for turns and ends. Knows nothing of networks or tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.conversation import ROLES
from wenfang.core.errors import Broken
from wenfang.core.text import encodable

__all__ = ["BEGIN", "END", "PAD", "UNKNOWN", "Alphabet"]

Ids = npt.NDArray[np.int32]
PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3
FIRST_ROLE = 4
FIRST = FIRST_ROLE + len(ROLES)
"""The first character's number; before it padding, the unknown character, begin, end, and a mark for each role of a conversation."""


class Alphabet:
    """The characters that a network of ours reads and writes, as they stand in the text: nothing is folded.

    Args:
        chars: character i has number ``FIRST + i``.
    """

    def __init__(self, chars: str) -> None:
        self.chars = chars
        self._number = {c: FIRST + i for i, c in enumerate(chars)}

    @classmethod
    def learn(cls, texts: Iterable[str], *, min_count: int = 1, size_max: int = 1 << 16) -> Alphabet:
        """The characters that stand at least ``min_count`` times in ``texts``, most frequent first, then the rest of ASCII: JSON must be spelled."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(encodable(text))
        known = sorted((c for c, n in counts.items() if n >= min_count), key=lambda c: (-counts[c], c))[:size_max]
        there = set(known)
        return cls("".join(known) + "".join(c for c in map(chr, range(32, 127)) if c not in there))

    def __len__(self) -> int:
        """V, marks included."""
        return FIRST + len(self.chars)

    def role(self, name: str) -> int:
        """The mark that begins a turn of ``name``."""
        return FIRST_ROLE + ROLES.index(name)  # pyright: ignore[reportArgumentType]

    def encode(self, text: str) -> list[int]:
        """One number for each character.

        >>> Alphabet("ab").encode("bca") == [FIRST + 1, UNKNOWN, FIRST]
        True
        """
        number = self._number
        return [number.get(c, UNKNOWN) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        """The characters of ``ids``; marks say nothing."""
        return "".join(self.chars[i - FIRST] for i in ids if i >= FIRST)

    def pieces(self) -> list[bytes]:
        """What each number says, V times UTF-8; marks say nothing."""
        return [b""] * FIRST + [c.encode() for c in self.chars]

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` needs."""
        return {"kind": "characters", "codes": [ord(c) for c in self.chars]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Alphabet:
        """The alphabet that ``to_json`` described.

        Raises:
            Broken: `model.damaged`.
        """
        try:
            return cls("".join(map(chr, data["codes"])))
        except (KeyError, TypeError, ValueError, OverflowError) as e:
            raise Broken("model.damaged", file="alphabet", reason=type(e).__name__) from e
