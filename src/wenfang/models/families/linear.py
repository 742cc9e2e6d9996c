"""Character n-grams under linear machines: strong on short texts, milliseconds to load, tens of microseconds to answer.

Two heads see the same grams (many labels have sparse prototypes instead, see ``models/heads.py``). The *margin* head is a one-against-the-rest support vector machine on grams scaled by how much they
tell labels apart; the *dropout* head is a softmax regression that learned with most grams hidden. Their scores are added and
calibrated by one temperature. Source of the scaling: Wang & Manning, Baselines and Bigrams, 2012 (here the largest absolute
log-count ratio over the labels, times the root of the inverse document frequency).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, trainable_labels
from wenfang.models.bags import Bags, bag_texts, count_vocabulary
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.calibration import fit_sharpness, softmax
from wenfang.models.features import GramIndex, text_blocks
from wenfang.models.heads import Dense, Head, Prototypes, scaled_units
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Linear", "LinearHyper"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_CELLS_MAX = 24_000_000
"""Weights a dense model may hold: 48 MB in a bundle."""
_DENSE_LABELS_MAX = 256
_DENSE_DUALS_MAX = 150_000_000
"""Examples times labels above which prototypes take over: the margin head keeps a number for each."""
_PROTOTYPE_WEIGHTS_MAX = 7_000_000
_GRAMS_MAX = 2_000_000
_SHARPNESS = 3.0
_COMMON = {"keys": (np.uint64, 1), "sharpness": (np.float64, 1)}
_HEADS: dict[str, type[Head]] = {"dense": Dense, "prototypes": Prototypes}


class LinearHyper(Hyper):
    """What can be chosen about a linear model."""

    ngram_min: int = Field(default=1, ge=1, le=8, description="shortest character n-gram")
    ngram_max: int = Field(default=3, ge=1, le=8, description="longest character n-gram")
    min_count: int = Field(default=2, ge=1, description="a gram must stand in that many texts")
    c: float = Field(default=1.0, gt=0, description="weight of the margin head's loss against its margin")
    epochs: int = Field(default=12, ge=1, le=200, description="passes of each head")
    blend: float = Field(default=0.25, ge=0, le=10, description="share of the dropout head in the score; 0 leaves it out")
    drop: float = Field(default=0.6, ge=0, lt=1, description="share of grams the dropout head does not see at each visit")
    rate: float = Field(default=1.5, gt=0, description="first step of the dropout head")
    balanced: bool = Field(default=False, description="rare labels count as much as frequent ones")
    sharpness: float | None = Field(default=None, gt=0, description="inverse temperature; none: fitted on valid, or on a tenth of train")

    @model_validator(mode="after")
    def _ordered(self) -> LinearHyper:
        if self.ngram_min > self.ngram_max:
            raise ValueError("ngram_min is above ngram_max")
        return self


class Linear(Model):
    """A classifier over character n-grams."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification"})
    cost_rank: ClassVar[int] = 1
    Hyper: ClassVar[type[BaseModel]] = LinearHyper
    hyper: LinearHyper

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Spread over reach of the grams, softness of the margin, and the weight of rare labels."""
        least = 2 if shape.rows >= 5000 else 1
        guesses = [
            LinearHyper(min_count=least),
            LinearHyper(min_count=least, ngram_max=5 if shape.length_mean > 40 else 4),
            LinearHyper(min_count=least, c=2.0, epochs=16),
            LinearHyper(min_count=least, c=0.3),
            LinearHyper(min_count=least, blend=0.0),
            LinearHyper(min_count=1 if least > 1 else 2, ngram_max=2),
        ]
        if shape.labels > 2:
            guesses.insert(2, LinearHyper(min_count=least, balanced=True))
        return guesses

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Count grams, train the heads, calibrate.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`.

        Cost: 90,000 titles take about 8 CPU-seconds.
        """
        curve = curve or Curve()
        self.labels_ = trainable_labels(train)
        number = {label: i for i, label in enumerate(self.labels_)}
        targets = np.fromiter((number[label] for label in train.labels), np.int64, len(train))
        self.sharpness_ = self.hyper.sharpness or _SHARPNESS
        if self.hyper.sharpness is None and not valid and len(train) >= 200:
            order = np.random.default_rng(self.seed).permutation(len(train))
            held, rest = np.split(order, [min(5000, len(train) // 10)])
            self._learn(train.take(rest.tolist()).texts, targets[rest], Curve(deadline=curve.deadline))
            self.sharpness_ = fit_sharpness(self._scores(train.take(held.tolist()).texts), targets[held], default=_SHARPNESS)
            if curve.late():
                return self
        self._learn(train.texts, targets, curve)
        if valid:
            known = [i for i, label in enumerate(valid.labels) if label in number]
            scores, truth = self._scores([valid.texts[i] for i in known]), np.array([number[valid.labels[i]] for i in known], np.int64)
            if self.hyper.sharpness is None:
                self.sharpness_ = fit_sharpness(scores, truth, default=_SHARPNESS)
            curve.point(self.hyper.epochs, valid_score=float((scores.argmax(axis=1) == truth).sum()) / len(valid))
        return self

    def _learn(self, texts: Sequence[str], targets: I64, curve: Curve) -> None:
        h, L = self.hyper, len(self.labels_)
        dense = L <= _DENSE_LABELS_MAX and L * len(texts) <= _DENSE_DUALS_MAX
        size_max = min(_GRAMS_MAX, _CELLS_MAX // (L * (2 if h.blend else 1))) if dense else _GRAMS_MAX
        self.index_, counts = count_vocabulary(texts, shortest=h.ngram_min, longest=h.ngram_max, min_count=h.min_count, size_max=size_max)
        bags = self._bags(texts)
        rarity: F32 = (np.log((1.0 + len(texts)) / (1.0 + counts)) + 1.0).astype(np.float32)
        self.head_ = self._learn_dense(bags, targets, rarity, curve) if dense else self._learn_prototypes(bags, targets, rarity, curve)

    def _learn_dense(self, bags: Bags, targets: I64, rarity: F32, curve: Curve) -> Dense:
        h, L = self.hyper, len(self.labels_)
        sizes = np.bincount(targets, minlength=L).astype(np.float64)
        label_weights = len(targets) / (L * np.maximum(sizes, 1.0)) if h.balanced else np.ones(L)
        scale: F32 = _contrast(bags, targets, L, len(self.index_)) * np.sqrt(rarity)
        weights, bias = self._learn_margin(scaled_units(bags, scale), targets, label_weights, curve)
        tables: list[F32] = [weights * scale[:, None]]
        biases: list[F32] = [bias]
        if h.blend:
            weights, bias = self._learn_dropout(scaled_units(bags, np.ones_like(scale)), targets, label_weights, curve)
            tables.append(weights * np.float32(h.blend))
            biases.append(bias * np.float32(h.blend))
        return Dense(np.concatenate(tables, axis=1).astype(np.float16), scale, np.concatenate(biases))

    def _learn_prototypes(self, bags: Bags, targets: I64, rarity: F32, curve: Curve) -> Prototypes:
        from wenfang.models.rivals import sharpen

        units, L = scaled_units(bags, rarity), len(self.labels_)
        head = Prototypes.average(units, targets, scale=rarity, L=L, size_max=_PROTOTYPE_WEIGHTS_MAX)
        rng = np.random.default_rng((self.seed, 3))
        for epoch in range(self.hyper.epochs):
            if curve.late():
                break
            order, loss = rng.permutation(len(bags)), 0.0
            for at in range(0, len(order), 5000):
                part = order[at : at + 5000]
                loss += sharpen(head, units, targets, part, L=L, c=0.2 * self.hyper.c) * len(part)
                if curve.late():
                    break
            curve.point(epoch + 1, loss=loss / len(order))
        return head

    def _learn_margin(self, bags: Bags, targets: I64, label_weights: npt.NDArray[np.float64], curve: Curve) -> tuple[F32, F32]:
        from wenfang.models.svm import Machines

        rng = np.random.default_rng((self.seed, 1))
        machines = Machines.new(bags, targets, V=len(self.index_), c=self.hyper.c, label_weights=label_weights)
        for epoch in range(self.hyper.epochs):
            curve.point(epoch + 1, loss=machines.epoch(rng.permutation(len(bags))))
            if curve.late():
                break
        return machines.weights, machines.bias

    def _learn_dropout(self, bags: Bags, targets: I64, label_weights: npt.NDArray[np.float64], curve: Curve) -> tuple[F32, F32]:
        from wenfang.models.softmax import DropoutSoftmax

        rng = np.random.default_rng((self.seed, 2))
        head = DropoutSoftmax.new(bags, targets, V=len(self.index_), drop=self.hyper.drop, label_weights=label_weights)
        for epoch in range(self.hyper.epochs):
            if curve.late():
                break
            head.epoch(rng.permutation(len(bags)), rate=self.hyper.rate * (1 - epoch / self.hyper.epochs), seed=self.seed * 1000 + epoch)
        return head.weights, head.bias

    def _bags(self, texts: Sequence[str]) -> Bags:
        return bag_texts(texts, self.index_, shortest=self.hyper.ngram_min, longest=self.hyper.ngram_max)

    def _scores(self, texts: Sequence[str]) -> F32:
        """Uncalibrated scores, shape (B, L)."""
        L = len(self.labels_)
        scores = np.zeros((len(texts), L), np.float32)
        for start, end in text_blocks(texts, max(1, (1 << 22) // L)):
            scores[start:end] = self.head_.scores(self._bags(texts[start:end]), L)
        return scores

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """The most likely label of each text, with calibrated probabilities.

        Raises:
            Invalid: `model.not-fitted`.
        """
        if not self.labels_:
            raise Invalid("model.not-fitted", family="linear")
        return classified(self.labels_, softmax(self._scores(texts), self.sharpness_), top_k)

    def save(self, folder: Path) -> None:
        """Write ``dense.safetensors`` or ``prototypes.safetensors``."""
        name = next(n for n, head in _HEADS.items() if isinstance(self.head_, head))
        save_arrays(folder / f"{name}.safetensors", {"keys": self.index_.keys, "sharpness": np.array([self.sharpness_]), **self.head_.arrays()})

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        name = next((n for n in _HEADS if (folder / f"{n}.safetensors").is_file()), "dense")
        arrays = load_arrays(folder / f"{name}.safetensors", {**_COMMON, **_HEADS[name].format})
        keys, sharpness = arrays.pop("keys"), arrays.pop("sharpness")
        model.head_ = _HEADS[name](**arrays)
        if not model.head_.fits(len(keys), len(labels)) or sharpness.shape != (1,):
            raise Broken("model.damaged", file=f"{name}.safetensors", reason="shapes")
        model.labels_, model.index_, model.sharpness_ = labels, GramIndex(keys), float(sharpness[0])
        return model

    def refit_hyper(self) -> BaseModel:
        """The same with the temperature that valid chose."""
        return self.hyper.model_copy(update={"sharpness": self.sharpness_})

    def environment(self) -> Mapping[str, str]:
        """Versions of numpy and, where it trained, of numba."""
        import sys

        return {name: str(sys.modules[name].__version__) for name in ("numpy", "numba") if name in sys.modules}


def _contrast(bags: Bags, targets: I64, L: int, V: int) -> F32:
    """How much each gram tells the labels apart: the largest absolute log-count ratio, shape (V,)."""
    owner = np.repeat(targets, np.diff(bags.starts))
    counts = np.bincount(bags.rows.astype(np.int64) * L + owner, minlength=V * L).reshape(V, L) + 1.0
    rest = counts.sum(axis=1, keepdims=True) - counts - (L - 1) + 1.0
    ratio = np.log(counts / counts.sum(axis=0)) - np.log(rest / rest.sum(axis=0))
    return np.abs(ratio).max(axis=1, initial=0.0).astype(np.float32)
