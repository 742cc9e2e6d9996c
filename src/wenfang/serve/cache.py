"""Answers kept for texts that come again, bounded in bytes. Exact: a model version is immutable, so its answer to a text does not age.

Lives on one loop. Knows nothing of HTTP or replicas.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from sys import getsizeof

from wenfang.core.examples import Output

__all__ = ["AnswerCache", "Key"]

Key = tuple[str, int, str, str | None]
"""(id of the model version, top_k, text, second text of a pair)."""
_ENTRY_BYTES = 400
"""What an entry costs beside its strings: tuples, the record, the dictionary's slot."""


class AnswerCache:
    """Least recently used goes first.

    Args:
        max_bytes: of texts and answers together, estimated.
        ttl_s: an answer older than this is not given; 0: never too old.
        clock: seconds.
    """

    def __init__(self, max_bytes: int, ttl_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self.size_bytes = 0
        self._clock = clock
        self._kept: dict[Key, tuple[Output, int, float]] = {}
        """Oldest use first."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Output | None:
        """The answer, if it is here.

        Cost: two dictionary operations, about half a microsecond.
        """
        found = self._kept.pop(key, None)
        if found is None:
            return None
        if self.ttl_s and self._clock() - found[2] > self.ttl_s:
            self.size_bytes -= found[1]
            return None
        self._kept[key] = found
        return found[0]

    def put(self, key: Key, output: Output) -> None:
        """Keep an answer; one that would fill more than a sixteenth of the cache is not kept."""
        size = _ENTRY_BYTES + getsizeof(key[2]) + getsizeof(key[3]) + _size_of(output)
        if size > self.max_bytes // 16:
            return
        if (old := self._kept.pop(key, None)) is not None:
            self.size_bytes -= old[1]
        self._kept[key] = (output, size, self._clock() if self.ttl_s else 0.0)
        self.size_bytes += size
        while self.size_bytes > self.max_bytes:
            self.size_bytes -= self._kept.pop(next(iter(self._kept)))[1]

    def forget(self, model: str) -> None:
        """Drop everything of a model version that no longer answers."""
        for key in [key for key in self._kept if key[0] == model]:
            self.size_bytes -= self._kept.pop(key)[1]


def _size_of(output: Output) -> int:
    """An estimate in bytes, rather too much than too little."""
    size = getsizeof(output)
    for text in (output.label, output.text, output.vector):
        size += getsizeof(text) if text else 0
    for many, each in ((output.spans, 120), (output.span_scores, 32), (output.labels, 80), (output.scores, 120), (output.logprobs, 32), (output.replies, 400)):
        size += each * len(many) if many else 0
    for alternative in output.alternatives or ():
        size += 120 + 120 * len(alternative.spans)
    return size
