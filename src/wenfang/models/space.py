"""Where a family's hyper-parameters may lie: what a search may vary beside the family's own best guesses.

Knows nothing of how a search proposes; a family names fields of its ``Hyper`` and gives each a dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "Dimension", "Float", "Integer", "Space"]


@dataclass(frozen=True, slots=True)
class Float:
    """A number in ``[low, high]``."""

    low: float
    high: float
    log: bool = False
    """Equal steps are equal ratios: for rates and penalties."""

    def holds(self, value: Any) -> bool:
        """Whether ``value`` lies inside.

        >>> Float(0.1, 1.0).holds(0.5), Float(0.1, 1.0).holds(None)
        (True, False)
        """
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number in ``[low, high]``."""

    low: int
    high: int
    log: bool = False

    def holds(self, value: Any) -> bool:
        """Whether ``value`` lies inside."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values without an order."""

    options: tuple[bool | int | float | str | None, ...]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one of them, of the same type."""
        return any(type(value) is type(o) and value == o for o in self.options)


Dimension = Float | Integer | Choice
Space = Mapping[str, Dimension]
"""By field of the family's ``Hyper``; fields left out keep the value of the family's first guess."""
