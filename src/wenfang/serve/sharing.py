"""One answer for every request that asks the same of one pool: from the cache when it is there, else with whoever asked first.

Only where the model is steady: the same text always gets the same answer. Knows nothing of sockets.
"""

from __future__ import annotations

from collections.abc import Sequence

from wenfang.core.examples import Output

from .batching import Item, Ticket
from .cache import AnswerCache, Key

__all__ = ["Sharing"]


class Sharing:
    """What one pool knows already and what it is being asked.

    Args:
        cache: shared by all pools.
        model: id of the model version.
    """

    def __init__(self, cache: AnswerCache, model: str) -> None:
        self.cache = cache
        self.hits = 0
        self.joined = 0
        """Texts that were answered with another request's."""
        self._model = model
        self._asked: dict[Key, Item] = {}

    def known(self, texts: Sequence[str], texts_b: Sequence[str], top_k: int) -> list[tuple[Key, Output | Item | None]]:
        """For each of B texts its key and its answer, or whoever is being asked for it, or None."""
        get, asked, model = self.cache.get, self._asked, self._model
        seconds = texts_b or [None] * len(texts)
        keys = [(model, top_k, text, second) for text, second in zip(texts, seconds, strict=True)]
        return [(key, get(key) or self._joinable(asked.get(key))) for key in keys]

    @staticmethod
    def _joinable(item: Item | None) -> Item | None:
        """A text that was in a dying replica is nobody's to wait for."""
        return item if item is not None and not item.gone and not item.attempts and item.wanted() else None

    def items(self, ticket: Ticket, known: Sequence[tuple[Key, Output | Item | None]]) -> list[Item]:
        """Answer what is known, join what is being asked; the rest as items for the queue."""
        new: list[Item] = []
        for index, (key, found) in enumerate(known):
            if isinstance(found, Output):
                self.hits += 1
                ticket.answer(index, found)
                continue
            joined = found or self._twice(ticket, key)
            if joined is not None:
                self.joined += 1
                joined.also.append((ticket, index))
                continue
            item = Item(key[2], index, ticket, key[3] or "")
            item.key, item.release = key, self.over
            self._asked[key] = item
            new.append(item)
        return new

    def _twice(self, ticket: Ticket, key: Key) -> Item | None:
        """The same text earlier in the same request."""
        item = self._asked.get(key)
        return item if item is not None and item.ticket is ticket and not item.gone else None

    def over(self, item: Item, output: Output | None = None) -> None:
        """An item is answered, or will not be (None)."""
        key = item.key
        if key is None:
            return
        if self._asked.get(key) is item:
            del self._asked[key]
        if output is not None:
            self.cache.put(key, output)
