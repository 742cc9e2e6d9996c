"""Regular expressions of users, bounded in time: one that goes back and forth for ever is refused before anything is fitted. Knows nothing of slices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from wenfang.core.errors import Invalid, Unsupported

__all__ = ["PATTERN_S", "compiled", "matching"]

PATTERN_S = 5.0
"""For all texts together."""


def compiled(pattern: str) -> Any:
    """The expression, in the dialect of ``re`` and with an end to its patience.

    Raises:
        ValueError: it is none.
        Unsupported: `model.needs-package`.
    """
    try:
        import regex
    except ModuleNotFoundError as e:
        raise Unsupported("model.needs-package", package="regex") from e
    try:
        return regex.compile(pattern, regex.VERSION0)
    except regex.error as e:
        raise ValueError(str(e)) from None


def matching(name: str, pattern: str, texts: Sequence[str], *, limit_s: float = PATTERN_S) -> tuple[bool, ...]:
    """Whether the pattern is found in each text.

    Args:
        name: of the slice, for the error.
        pattern: of the user.
        texts: n.
        limit_s: for all of them.

    Raises:
        Invalid: `checks.pattern-too-slow`.
    """
    found, until = compiled(pattern), time.monotonic() + limit_s
    told: list[bool] = []
    for text in texts:
        left_s = until - time.monotonic()
        try:
            told.append(left_s > 0 and found.search(text, timeout=left_s) is not None)
        except TimeoutError:
            left_s = 0.0
        if left_s <= 0:
            raise Invalid("checks.pattern-too-slow", slice=name, limit_s=limit_s, texts_n=len(texts), done_n=len(told))
    return tuple(told)
