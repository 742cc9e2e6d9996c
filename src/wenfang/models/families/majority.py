"""The floor: answers every text with the most frequent label, or with no spans. What cannot beat it has learned nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import orjson
from pydantic import BaseModel

from wenfang.core.durable import write_file
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, trainable_labels
from wenfang.models.base import Curve, DataShape, Hyper, Model

__all__ = ["Majority", "MajorityHyper"]


class MajorityHyper(Hyper):
    """Nothing to choose."""


class Majority(Model):
    """Class priors for classification; for tagging no spans, with the share of span-free texts as score."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "tagging"})
    cost_rank: ClassVar[int] = 0
    Hyper: ClassVar[type[BaseModel]] = MajorityHyper

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:  # noqa: ARG003 the same for every shape
        """The only one."""
        return [MajorityHyper()]

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:  # noqa: ARG002 nothing to stop
        """Count.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`.
        """
        self.labels_ = trainable_labels(train)
        if self.task == "classification":
            counts = Counter(train.labels)
            self.priors_ = [counts[label] / len(train) for label in self.labels_]
        else:
            self.priors_ = [sum(not spans for spans in train.spans) / len(train)]
        return self

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """The same answer for every text."""
        if self.task == "tagging":
            return [Output(score=self.priors_[0], spans=())] * len(texts)
        return classified(self.labels_, np.array([self.priors_]), top_k) * len(texts)

    def save(self, folder: Path) -> None:
        """Write ``priors.json``."""
        write_file(folder / "priors.json", orjson.dumps(self.priors_))

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote."""
        model = cls(hyper, task=task)
        model.labels_ = labels
        model.priors_ = orjson.loads((folder / "priors.json").read_bytes())
        return model
