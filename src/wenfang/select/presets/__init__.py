"""Scenarios as data: what a business usually wants of such a model, one TOML file each. What the user says goes before.

Knows nothing of how a selection is made.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wenfang.core.errors import NotFound
from wenfang.core.records import Task
from wenfang.core.registry import nearest

__all__ = ["Preset", "presets", "read_preset"]

HERE = Path(__file__).parent


class Preset(BaseModel):
    """One scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: dict[str, str]
    """In ``zh`` and ``en``."""
    why: dict[str, str]
    """Why these choices, in both languages."""
    task: Task
    metric: str
    families: list[str] = Field(default_factory=list)
    """Empty: all that can do the task."""
    max_latency_ms: float | None = Field(None, gt=0)
    max_size_bytes: int | None = Field(None, gt=0)
    max_memory_bytes: int | None = Field(None, gt=0)
    max_cost_per_million: float | None = Field(None, gt=0)
    robustness: list[str] = Field(default_factory=list)
    """Names of the robustness tests that count here; empty: all."""

    def fills(self) -> dict[str, Any]:
        """Fields of a request that this scenario has an opinion on."""
        names = ("task", "metric", "families", "max_latency_ms", "max_size_bytes", "max_memory_bytes", "max_cost_per_million")
        return {name: value for name in names if (value := getattr(self, name))}


@cache
def presets() -> dict[str, Preset]:
    """Every scenario by name."""
    return {path.stem: Preset(name=path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))) for path in sorted(HERE.glob("*.toml"))}


def read_preset(name: str) -> Preset:
    """The scenario called ``name``.

    Raises:
        NotFound: `select.unknown-preset`, with the nearest names.
    """
    known = presets()
    if name not in known:
        raise NotFound("select.unknown-preset", name=name, near=nearest(name, sorted(known)))
    return known[name]
