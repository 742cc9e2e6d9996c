"""Robustness tests as data: read, checked, and joined with those of the user. Knows nothing of models.

One table of a TOML file is one test; its keys are the fields of ``RobustnessTest``. A user's table of the name of a test that is
already there changes the fields it names (``[negation] labels = {...}`` makes the negation test run).
Source: Ribeiro et al. 2020 (Beyond accuracy: behavioral testing of NLP models with CheckList).
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wenfang.core.errors import Invalid
from wenfang.core.records import Task
from wenfang.core.registry import nearest
from wenfang.core.words import keys

from .perturbations import PERTURBATIONS

__all__ = ["RobustnessTest", "builtin", "suite"]

HERE = Path(__file__).parent
CASES_MAX = 500
JUDGED: tuple[Task, ...] = ("classification", "multilabel", "tagging", "matching")


class RobustnessTest(BaseModel):
    """One test: what is done to a text, and what the answer then has to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["minimal", "invariance", "direction"]
    """``minimal``: the answer must be the one given; ``invariance``: it must stay; ``direction``: it must change as ``labels`` say."""
    perturbation: str = ""
    share: float = Field(0.1, gt=0, le=1)
    """Of the characters, where the perturbation touches only some."""
    tasks: tuple[Task, ...] = JUDGED
    labels: dict[str, str] = Field(default_factory=dict)
    """Direction: which gold label has to become which."""
    cases: list[tuple[str, str]] = Field(default_factory=list[tuple[str, str]], max_length=CASES_MAX)
    """Minimal: texts and their labels."""
    templates: list[tuple[str, str]] = Field(default_factory=list[tuple[str, str]])
    """Minimal: texts with ``{slots}`` and their labels."""
    fill: dict[str, list[str]] = Field(default_factory=dict)
    """What goes into the slots; every combination is asked, 500 at most."""
    source: Literal["", "train"] = ""
    """Minimal: ``train`` asks for texts it has learned from."""
    declared: bool = False
    """Runs only where ``labels`` are given."""
    tolerated: float = Field(0.1, ge=0, le=1)
    """Failures up to this share are nothing to worry about."""

    @model_validator(mode="after")
    def _complete(self) -> RobustnessTest:
        if self.kind == "minimal":
            if not (self.cases or self.templates or self.source):
                raise ValueError("a minimal test needs cases, templates or source")
        elif self.perturbation not in PERTURBATIONS:
            raise ValueError(f"perturbation {self.perturbation!r}; nearest: {nearest(self.perturbation, list(PERTURBATIONS))}")
        if self.kind == "direction" and not self.labels and not self.declared:
            raise ValueError("a direction test needs labels")
        return self

    @property
    def waits(self) -> bool:
        """Not declared yet: nobody has said which label becomes which."""
        return self.declared and not self.labels

    def written(self) -> list[tuple[str, str]]:
        """The cases, templates filled in."""
        found = list(self.cases)
        for template, label in self.templates:
            slots = [s for s in self.fill if "{" + s + "}" in template]
            for words in itertools.product(*(self.fill[s] for s in slots)):
                text = template
                for slot, word in zip(slots, words, strict=True):
                    text = text.replace("{" + slot + "}", word)
                found.append((text, label))
        return found[:CASES_MAX]


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return {name: table for path in sorted(HERE.glob("*.toml")) for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def builtin() -> dict[str, RobustnessTest]:
    """The tests that come with Wenfang, by name."""
    return suite({})


def suite(own: Mapping[str, Mapping[str, Any]]) -> dict[str, RobustnessTest]:
    """The tests that come with Wenfang, changed and added to by those of a user.

    Args:
        own: tables by name.

    Raises:
        Invalid: `robustness.bad-test`.
    """
    tests: dict[str, RobustnessTest] = {}
    for name in [*_tables(), *(n for n in own if n not in _tables())]:
        try:
            tests[name] = RobustnessTest.model_validate({**_tables().get(name, {}), **own.get(name, {})})
        except ValidationError as e:
            first = e.errors()[0]
            raise Invalid("robustness.bad-test", test=name, field=".".join(map(str, first["loc"])) or "-", reason=first["msg"]) from None
    return tests


def told(name: str) -> Any:
    """The name of a test as a field of a sentence: of the catalogue where it comes with Wenfang, as given where it is the user's."""
    key = f"robustness.test-{name}"
    return {"key": key, "fields": {}} if key in keys() else name
