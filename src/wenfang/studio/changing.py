"""A change of replicas one by one: which of the old and of the new answer after each step. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from wenfang.serve.routing import RoutedModel, RoutingTable

__all__ = ["Change"]


@dataclass
class Change:
    """One service on its way from one model version to another.

    After each step as many replicas answer as before, of both versions together, and each version gets its share of the requests.
    """

    service: str
    old_id: str
    before: RoutedModel
    after: RoutedModel
    new_id: str
    new: int = 0
    """New replicas that answer."""
    gone: list[int] = field(default_factory=list[int])
    """Old ones that the last step took away."""

    @property
    def old(self) -> int:
        """Old replicas that still answer: one less for each new one, none when all the new ones are there."""
        return 0 if self.done else max(0, len(self.before.sockets) - self.new)

    @property
    def done(self) -> bool:
        """All new replicas answer."""
        return self.new == len(self.after.sockets)

    def step(self) -> None:
        """One more new replica answers."""
        had = self.old
        self.new += 1
        self.gone = [*range(self.old, had)]

    def laid_over(self, table: RoutingTable) -> None:
        """Write into ``table`` what stands after the steps so far. Another service that answers with the old version keeps all of its replicas."""
        service = table.services.get(self.service)
        if service is None or not self.new:
            return
        others = any(s.model == self.old_id for name, s in table.services.items() if name != self.service)
        table.models[self.new_id] = msgspec.structs.replace(self.after, sockets=_longer(self.after.sockets[: self.new], table.models.get(self.new_id)))
        if self.old or others:
            table.models[self.old_id] = self.before if others else msgspec.structs.replace(self.before, sockets=self.before.sockets[: self.old])
        else:
            table.models.pop(self.old_id, None)
        shares = {self.old_id: float(self.old), self.new_id: float(self.new)} if self.old else {}
        table.services[self.service] = msgspec.structs.replace(service, model=self.new_id, shares=shares)


def _longer(sockets: list[str], other: RoutedModel | None) -> list[str]:
    return sockets if other is None or len(other.sockets) < len(sockets) else other.sockets
