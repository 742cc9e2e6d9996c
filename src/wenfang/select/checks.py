"""What a user wants looked at beside the score, as one TOML file: slices, robustness tests, the price of a machine, texts in the report. Knows nothing of models.

[slices.with-order-number]
pattern = "订单号[0-9]+"
[robustness.negation]
labels = { "正面" = "负面", "负面" = "正面" }
[price]
core_hour = 0.3
currency = "CNY"
[report]
examples = 12
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wenfang.core.errors import Invalid
from wenfang.core.registry import nearest

from .cost import Price
from .patterns import matching
from .robustness.suite import RobustnessTest, builtin, suite
from .slices import SliceRule

__all__ = ["Checks", "read_checks"]

PARTS = ("slices", "robustness", "price", "report")


class Wishes(BaseModel):
    """What the report shows beside figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int = Field(default=0, ge=0, le=100)
    """Test texts with gold and answer. Zero: no text leaves the data set."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Slices, tests, price and report of one selection."""

    slices: dict[str, SliceRule] = field(default_factory=dict[str, SliceRule])
    robustness: dict[str, RobustnessTest] = field(default_factory=builtin)
    price: Price | None = None
    report: Wishes = field(default_factory=Wishes)
    matched: dict[str, tuple[bool, ...]] = field(default_factory=dict[str, tuple[bool, ...]])
    """Which test texts the patterns of slices are found in; see ``on``."""
    digest: str = ""
    """Of the file, so that a selection with other checks is another request."""

    def on(self, texts: Sequence[str]) -> Checks:
        """These checks with their patterns tried on the test texts.

        Raises:
            Invalid: `checks.pattern-too-slow`.
        """
        return replace(self, matched={name: matching(name, rule.pattern, texts) for name, rule in self.slices.items() if rule.pattern is not None})


def read_checks(text: str) -> Checks:
    """The checks of a TOML text.

    Raises:
        Invalid: `checks.not-toml`, `checks.unknown-part`, `checks.bad-slice`, `checks.bad-price`, `checks.bad-report`, `robustness.bad-test`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise Invalid("checks.not-toml", reason=str(e)) from None
    for part, tables in document.items():
        if part not in PARTS or not isinstance(tables, dict):
            raise Invalid("checks.unknown-part", part=part, known=list(PARTS), near=nearest(part, list(PARTS)))
    own: dict[str, Any] = document.get("robustness", {})
    for name, table in own.items():
        if not isinstance(table, dict):
            raise Invalid("checks.unknown-part", part=f"robustness.{name}", known=list(PARTS), near="")
    return Checks(
        _slices(document.get("slices", {})), suite(own), _price(document.get("price")), _wishes(document.get("report", {})), digest=hashlib.sha256(text.encode()).hexdigest()
    )


def _slices(tables: dict[str, Any]) -> dict[str, SliceRule]:
    found: dict[str, SliceRule] = {}
    for name, table in tables.items():
        try:
            found[name] = SliceRule.model_validate(table)
        except ValidationError as e:
            first = e.errors()[0]
            raise Invalid("checks.bad-slice", slice=name, field=".".join(map(str, first["loc"])) or "-", reason=first["msg"]) from None
    return found


def _price(table: Any) -> Price | None:
    if table is None:
        return None
    try:
        return Price.model_validate(table)
    except ValidationError as e:
        first = e.errors()[0]
        raise Invalid("checks.bad-price", field=".".join(map(str, first["loc"])) or "-", reason=first["msg"]) from None


def _wishes(table: dict[str, Any]) -> Wishes:
    try:
        return Wishes.model_validate(table)
    except ValidationError as e:
        first = e.errors()[0]
        raise Invalid("checks.bad-report", field=".".join(map(str, first["loc"])) or "-", reason=first["msg"]) from None
