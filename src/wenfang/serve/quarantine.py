"""Questions that killed replicas: known by a hash, never by their words, bounded in number and time. Knows nothing of queues or replicas.

A question that was with a replica when it died is suspect: it is asked alone from then on, until it is answered. One that was alone with a
replica when that died, and suspect before, is quarantined: whoever asks it is told so at once and no replica sees it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid

__all__ = ["Quarantine", "digest_of"]

KEPT_MAX = 1024
"""Of each kind; the oldest goes first."""
_encode = msgspec.msgpack.Encoder().encode


def digest_of(text: str, text_b: str = "", options: Generation | None = None) -> str:
    """What a question is known by: 32 hexadecimal digits."""
    return hashlib.sha256(_encode([text, text_b, options])).hexdigest()[:32]


class Quarantine:
    """Of one model version.

    Args:
        ttl_s: after which a question may be asked again; 0: nothing is ever quarantined.
        clock: seconds.
    """

    def __init__(self, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.ttl_s = ttl_s
        self._clock = clock
        self._suspects: dict[str, float] = {}
        self._kept: dict[str, float] = {}

    def __len__(self) -> int:
        """Quarantined questions."""
        self._forget(self._kept)
        return len(self._kept)

    def __bool__(self) -> bool:
        """Whether anything has to be looked up at all."""
        return bool(self._suspects or self._kept)

    def suspect(self, digest: str) -> None:
        """It was with a replica that died."""
        if self.ttl_s:
            self._keep(self._suspects, digest)

    def add(self, digest: str) -> bool:
        """Quarantine it; whether that is news."""
        self._suspects.pop(digest, None)
        news = bool(self.ttl_s) and not self.holds(digest)
        if news:
            self._keep(self._kept, digest)
        return news

    def clear(self, digest: str) -> None:
        """It was answered."""
        self._suspects.pop(digest, None)

    def holds(self, digest: str) -> bool:
        """Whether it is quarantined."""
        self._forget(self._kept)
        return digest in self._kept

    def suspects(self, digest: str) -> bool:
        """Whether it must be asked alone."""
        self._forget(self._suspects)
        return digest in self._suspects

    def _keep(self, where: dict[str, float], digest: str) -> None:
        where.pop(digest, None)
        where[digest] = self._clock() + self.ttl_s
        while len(where) > KEPT_MAX:
            del where[next(iter(where))]

    def _forget(self, where: dict[str, float]) -> None:
        """Drop what is over; the oldest stands first."""
        now = self._clock()
        while where and next(iter(where.values())) <= now:
            del where[next(iter(where))]

    def check(self, version: str, texts: Sequence[str], texts_b: Sequence[str], options: Generation | None) -> list[int]:
        """Numbers of the suspect texts of a request.

        Args:
            version: ``name:number``, for the error.
            texts: B strings.
            texts_b: B strings or none.
            options: of generation.

        Raises:
            Invalid: `serve.text-quarantined`.

        Cost: a hash for each text; asked only while there are any.
        """
        digests = [digest_of(text, texts_b[i] if texts_b else "", options) for i, text in enumerate(texts)]
        for index, digest in enumerate(digests):
            if self.holds(digest):
                raise Invalid("serve.text-quarantined", model=version, index=index, digest=digest, ttl_s=round(self.ttl_s))
        return [index for index, digest in enumerate(digests) if self.suspects(digest)]
