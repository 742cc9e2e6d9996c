"""The chosen recipe once more: equal data, seed and versions give equal scores on one machine, or the reader learns what differs.

Deadlines are what cannot be repeated: a run that was cut off by its time learned for as long as the machine then took. Its recipe
is fitted without a deadline, and the difference is said to be that. Knows nothing of stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wenfang.core.examples import Examples
from wenfang.core.ports import Progress
from wenfang.models.base import Curve, Model

from .evaluate import predict_all
from .trial import Fit
from .wanted import judge

__all__ = ["Again", "rerun"]


@dataclass(slots=True)
class Again:
    """What came out."""

    run: str
    same: bool
    figures: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    versions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    note: str = ""

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def rerun(document: Mapping[str, Any], splits: Mapping[str, Examples], *, family: type[Model], fit: Fit, progress: Progress) -> Again:
    """Fit the chosen run again, and the refit if there was one, and compare.

    Args:
        document: of the selection.
        splits: train, valid and test, as they were.
        family: of the chosen run.
        fit: where fits run.
        progress: told the curve.
    """
    run = next(r for r in document["runs"] if r["name"] == document["final"]["run"])
    train, valid, test = splits["train"], splits["valid"], splits["test"]
    model = family(family.Hyper.model_validate(run["params"]), task=train.task, seed=run["seed"])
    learned = fit(model, train, valid, Curve(progress))
    metric, seed = document["metric"], document["seed"]
    figures: list[dict[str, Any]] = []
    if run.get("origin") != "assembled":  # weighed on one half of valid and judged on the other: that score is of no single model
        figures.append(_figure("valid", run["metrics"]["score"], learned.model, valid, metric, run["seed"]))
    final = learned.model
    if document["final"]["refitted"]:
        again = family(family.Hyper.model_validate(run["refit_params"]), task=train.task, seed=run["seed"])
        final = fit(again, train + valid, None, Curve(progress)).model
    figures.append(_figure("test", document["final"]["test"]["score"], final, test, metric, seed))
    progress.advance(1)
    versions = {name: [then, learned.environment.get(name, "")] for name, then in run["environment"].items() if learned.environment.get(name) not in {then, None}}
    note = "select.rerun-was-cut" if run["state"] == "stopped" else "select.rerun-other-versions" if versions else ""
    return Again(run["name"], all(f["then"] == f["now"] for f in figures), figures, versions, note)


def _figure(split: str, then: float, model: Model, examples: Examples, metric: str, seed: int) -> dict[str, Any]:
    now = judge(predict_all(model, examples), examples, metric=metric, resamples=10, seed=seed).score
    return {"split": split, "then": then, "now": now}
