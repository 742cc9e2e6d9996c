"""Several models as one: their probabilities are averaged or stacked, their spans voted on, their labels said from one threshold on. It costs what its members cost together.

Selection puts ensembles together from what it has fitted; a person from versions of the registry. Fitting one anew fits every member.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid, Unsupported
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, holding, several, trainable_labels
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.calibration import best_threshold
from wenfang.models.pooling import Pool, choose_pool, choose_shares, choose_votes, pooled, voted

__all__ = ["Ensemble", "EnsembleHyper", "Member"]


class Member(Hyper):
    """One member: its family and that family's hyper-parameters."""

    family: str
    hyper: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)


class EnsembleHyper(Hyper):
    """What can be chosen about an ensemble."""

    members: tuple[Member, ...] = Field(default=(), max_length=16, description="none: twice the light family of the task, with two seeds")
    combine: Literal["average", "stacking"] = Field(default="stacking", description="stacking learns a weight for each member and a bias for each label")
    pool: dict[str, Any] | None = Field(default=None, description="weights, geometric, bias, threshold as found before; none: chosen on valid, or equal shares")


class Ensemble(Model):
    """Members that answer together."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "multilabel", "tagging", "matching"})
    cost_rank: ClassVar[int] = 20
    Hyper: ClassVar[type[BaseModel]] = EnsembleHyper
    hyper: EnsembleHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        given = self.Hyper() if hyper is None else hyper
        assert isinstance(given, EnsembleHyper)
        super().__init__(given if given.members else given.model_copy(update={"members": _light(task)}), task=task, seed=seed)
        self.members_: list[Model] = []
        self.pool_ = Pool(())
        self.threshold_ = 0.5

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:  # noqa: ARG003 selection assembles ensembles of what it has fitted
        """None: selection puts ensembles together itself."""
        return ()

    @classmethod
    def of(cls, members: Sequence[Model], hypers: Sequence[Member], valid: Examples, *, combine: Literal["average", "stacking"] = "stacking", seed: int = 0) -> Self:
        """Fitted ``members`` as one model, weighed on ``valid``.

        Args:
            members: M models of one task and the same labels.
            hypers: M; how each would be fitted again.
            valid: what none of them learned from.
            combine: how they are heard.
            seed: for the record.

        Raises:
            Invalid: `ensemble.labels-differ`, `ensemble.tasks-differ`; Unsupported: `ensemble.no-task`.
        """
        model = cls(EnsembleHyper(members=tuple(hypers), combine=combine), task=members[0].task, seed=seed)
        model._join(members)
        model._weigh(valid)
        return model

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Fit every member, then weigh them on ``valid``, unless the weights are given.

        Raises:
            Invalid: `ensemble.labels-differ`; what a member raises.

        Cost: that of all members.
        """
        curve = curve or Curve()
        trainable_labels(train)
        members: list[Model] = []
        for i, member in enumerate(self.hyper.members):
            left = curve.left_s()
            until = None if left is None else time.monotonic() + left / (len(self.hyper.members) - i)
            own = Curve(curve.progress, until, checkpoints=None if curve.checkpoints is None else curve.checkpoints / f"member-{i}")
            members.append(_made(member, self.task).fit(train, valid, own))
            curve.point(i + 1)
        self._join(members)
        if self.hyper.pool is not None:
            self._take(self.hyper.pool)
        elif valid:
            self._weigh(valid)
        return self

    def _join(self, members: Sequence[Model]) -> None:
        first = members[0]
        if self.task not in self.tasks:
            raise Unsupported("ensemble.no-task", task=self.task, tasks=sorted(self.tasks))
        for other in members:
            if other.labels_ != first.labels_:
                raise Invalid("ensemble.labels-differ", a=first.name, b=other.name, labels_a=len(first.labels_), labels_b=len(other.labels_))
            if other.task != self.task:
                raise Invalid("ensemble.tasks-differ", tasks=sorted({m.task for m in members}))
        self.members_, self.labels_ = list(members), first.labels_
        self.pool_ = Pool((1.0 / len(members),) * len(members))

    def _weigh(self, valid: Examples) -> None:
        if self.task == "tagging":
            weights, self.threshold_ = choose_votes([m.opinion(valid.texts) for m in self.members_], valid.spans)
            self.pool_ = Pool(weights)
            return
        if not self.labels_:  # grades are averaged
            return
        if self.task == "multilabel":
            opinions, gold = self._opinions(valid.texts), holding(self.labels_, valid.label_sets)
            self.pool_ = choose_shares(opinions, gold)
            self.threshold_ = best_threshold(pooled(opinions, self.pool_).astype(np.float64), gold)
            return
        number = {label: i for i, label in enumerate(self.labels_)}
        rows = [i for i, label in enumerate(valid.labels) if label in number]
        known = valid.take(rows)
        truth = np.array([number[label] for label in known.labels], np.int64)
        self.pool_ = choose_pool(self._opinions(known.texts, known.texts_b), truth, stacking=self.hyper.combine == "stacking")

    def _opinions(self, texts: Sequence[str], texts_b: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        return np.stack([m.probabilities(texts, texts_b) for m in self.members_])

    def _take(self, found: Mapping[str, Any]) -> None:
        if len(found["weights"]) != len(self.hyper.members):
            raise Invalid("ensemble.weights-wrong", weights=len(found["weights"]), members=len(self.hyper.members))
        self.pool_ = Pool(tuple(found["weights"]), bool(found.get("geometric")), tuple(found.get("bias") or ()))
        self.threshold_ = float(found.get("threshold", 0.5))

    def probabilities(self, texts: Sequence[str], texts_b: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """Of the members together, shape (B, L)."""
        return pooled(self._opinions(texts, texts_b), self.pool_).astype(np.float32)

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each text, in order.

        Cost: that of all members.
        """
        if not texts:
            return []
        if self.task == "tagging":
            return voted([m.opinion(texts) for m in self.members_], self.pool_.weights, self.threshold_)
        if self.task == "multilabel":
            return several(self.labels_, self.probabilities(texts), self.threshold_, top_k)
        return classified(self.labels_, self.probabilities(texts), top_k)

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each pair, in order; grades are averaged."""
        if texts and not self.labels_:
            grades = np.array([[o.score or 0.0 for o in m.match(texts, texts_b)] for m in self.members_])
            return [Output(score=round(float(g), 6)) for g in np.average(grades, axis=0, weights=self.pool_.weights)]
        return classified(self.labels_, self.probabilities(texts, texts_b), top_k) if texts else []

    def save(self, folder: Path) -> None:
        """``pool.json``, and a folder for each member."""
        write_file(folder / "pool.json", json.dumps(self._found()).encode())
        for i, member in enumerate(self.members_):
            place = folder / f"member-{i}"
            place.mkdir()
            member.save(place)

    def _found(self) -> dict[str, Any]:
        return {"weights": list(self.pool_.weights), "geometric": self.pool_.geometric, "bias": list(self.pool_.bias), "threshold": self.threshold_}

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`; what a member raises.
        """
        model = cls(hyper, task=task)
        try:
            model._take(json.loads((folder / "pool.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("model.damaged", file="pool.json", reason=type(e).__name__) from e
        for i, member in enumerate(model.hyper.members):
            family = _family(member.family)
            model.members_.append(family.load(folder / f"member-{i}", task=task, hyper=family.Hyper.model_validate(member.hyper), labels=labels))
        model.labels_ = labels
        return model

    def libraries(self) -> Sequence[str]:
        """Of all members."""
        return list(dict.fromkeys(name for m in self.hyper.members for name in _made(m, self.task).libraries()))

    def refit_hyper(self) -> BaseModel:
        """The members as they would be fitted again, with the weights that valid chose."""
        members = tuple(m.model_copy(update={"hyper": model.refit_hyper().model_dump(mode="json")}) for m, model in zip(self.hyper.members, self.members_, strict=True))
        return self.hyper.model_copy(update={"members": members, "pool": self._found()})

    def charge_per_million(self) -> float | None:
        """What its members charge together."""
        charges = [c for m in self.members_ if (c := m.charge_per_million()) is not None]
        return sum(charges) if charges else None

    def environment(self) -> Mapping[str, str]:
        """Of all members."""
        return {name: version for member in self.members_ for name, version in member.environment().items()}


def _family(name: str) -> type[Model]:
    from wenfang.models import families

    if name == "ensemble":
        raise Invalid("ensemble.nested")
    return families.get(name)


def _made(member: Member, task: Task) -> Model:
    family = _family(member.family)
    return family(family.Hyper.model_validate(member.hyper), task=task, seed=member.seed)


def _light(task: Task) -> tuple[Member, ...]:
    name = {"tagging": "crf", "matching": "pairwise"}.get(task, "linear")
    return Member(family=name), Member(family=name, seed=1)
