"""What a selection is asked for, and what it is given to work with. Knows nothing of how it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from wenfang.core.errors import Invalid
from wenfang.core.ports import Progress, Quiet, ReplicaHost
from wenfang.models.base import DataShape, Model

from .checks import Checks
from .choose import Limits
from .earlier import Recipe
from .trial import Fit, ReadBundle, WriteBundle, fit_here

__all__ = ["OBJECTIVES", "Plan", "Ports"]

OBJECTIVES = ("score", "latency", "size", "memory")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a selection is asked for."""

    budget_s: float
    """Wall time of search, refit and measuring."""
    limits: Limits = field(default_factory=Limits)
    objectives: tuple[str, ...] = ("score",)
    """``score`` alone, or with what else should span the front."""
    metric: str | None = None
    """To choose by; None: the task's own."""
    seed: int = 0
    parallel: int = 1
    """Fits at once; latency is always measured with none."""
    earlier: Sequence[Recipe] = ()
    """Recipes that did well on data like these, best first."""
    checks: Checks = field(default_factory=Checks)
    """What is looked at beside the score."""

    def __post_init__(self) -> None:
        """Raises Invalid: `select.unknown-objective`."""
        for objective in self.objectives:
            if objective not in OBJECTIVES or self.objectives[0] != "score" or len(set(self.objectives)) != len(self.objectives):
                raise Invalid("select.unknown-objective", objective=",".join(self.objectives), known=", ".join(OBJECTIVES))

    def recipes(self, name: str, family: type[Model], shape: DataShape) -> Iterator[BaseModel]:
        """Recipes of a family from earlier selections; those it no longer understands, or whose pretrained directory, guide or server is not offered now, are left out."""
        offered = {str(p) for p in shape.pretrained}
        servers = {None, *(u.partition("#")[0] for u in shape.upstreams)}
        for recipe in self.earlier:
            pretrained, guide = recipe.params.get("pretrained"), recipe.params.get("guide")
            if (
                recipe.family == name
                and (pretrained is None or pretrained in offered)
                and guide in {None, shape.guide and str(shape.guide)}
                and recipe.params.get("base_url") in servers
            ):
                try:
                    yield family.Hyper.model_validate(recipe.params)
                except ValidationError:
                    continue

    def document(self) -> dict[str, Any]:
        """What makes two requests the same, as plain values."""
        return {"budget_s": self.budget_s, "objectives": list(self.objectives), "metric": self.metric, "seed": self.seed, "parallel": self.parallel, "checks": self.checks.digest}


@dataclass(frozen=True, slots=True)
class Ports:
    """What a selection works with."""

    host: ReplicaHost
    """Starts replicas."""
    write_bundle: WriteBundle
    fit: Fit = fit_here
    """Where fits run."""
    progress: Progress = field(default_factory=Quiet)
    read_bundle: ReadBundle | None = None
    """Opens what ``write_bundle`` wrote; without it no ensembles are tried."""
