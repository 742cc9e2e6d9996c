"""Character and word n-grams under linear machines: strong on short texts, milliseconds to load, tens of microseconds to answer.

Up to three machines learn from the same grams (many labels have sparse prototypes instead, see ``models/heads.py``). The *margin* machine is a
one-against-the-rest support vector machine on grams scaled by how much they tell labels apart; the *dropout* machine is a softmax regression that
learned with most grams hidden; the *counts* are log-ratios of frequencies, which hear a label with three examples as well as one with thousands.
All read a text at one length, so their weights are added up once and an answer costs one table. Scores are calibrated by one temperature. Where
labels do not exclude each other (multilabel), the margin machine is alone and each label is decided for itself. Source of the scaling: Wang &
Manning, Baselines and Bigrams, 2012 (here the largest absolute log-count ratio over the labels, times a power of the inverse document frequency).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, several, trainable_labels
from wenfang.models.bags import Bags, Recipe, bag_texts, count_vocabulary
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.calibration import best_threshold, fit_sharpness, fit_slope, fit_tau, sigmoid, softmax
from wenfang.models.features import GramIndex, text_blocks
from wenfang.models.gold import Gold
from wenfang.models.heads import Dense, Head, Prototypes, bag_lengths, scaled_bags, scaled_units
from wenfang.models.loading import LOOPS
from wenfang.models.ratios import contrast, label_counts, log_ratios
from wenfang.models.space import Choice, Float, Integer, Space
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Linear", "LinearHyper"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_CELLS_MAX = 24_000_000
"""Weights a dense model may hold: 48 MB in a bundle."""
_DENSE_LABELS_MAX = 256
_DENSE_DUALS_MAX = 150_000_000
"""Examples times labels above which prototypes take over: the margin head keeps a number for each."""
_PROTOTYPE_WEIGHTS_MAX = 7_000_000
_GRAMS_MAX = 2_000_000
_SHARPNESS = 3.0
_COMMON = {"keys": (np.uint64, 1), "sharpness": (np.float64, 1), "shift": (np.float64, 1), "threshold": (np.float64, 1)}
_HEADS: dict[str, type[Head]] = {"dense": Dense, "prototypes": Prototypes}


class LinearHyper(Hyper):
    """What can be chosen about a linear model."""

    ngram_min: int = Field(default=1, ge=1, le=8, description="shortest character n-gram")
    ngram_max: int = Field(default=3, ge=1, le=8, description="longest character n-gram")
    words: int = Field(default=0, ge=0, le=4, description="longest word n-gram, in scripts that write blanks between words; 0: none")
    min_count: int = Field(default=2, ge=1, description="a gram must stand in that many texts")
    contrast: float = Field(default=1.0, ge=0, le=2, description="power of how much a gram tells the labels apart, in its scale; 0: all alike")
    rarity: float = Field(default=0.5, ge=0, le=2, description="power of the inverse document frequency in a gram's scale")
    c: float = Field(default=1.0, gt=0, description="weight of the margin machine's loss against its margin")
    epochs: int = Field(default=12, ge=1, le=200, description="passes of each machine")
    blend: float = Field(default=0.25, ge=0, le=10, description="weight of the dropout machine in the score; 0 leaves it out")
    drop: float = Field(default=0.6, ge=0, lt=1, description="share of grams the dropout machine does not see at each visit")
    rate: float = Field(default=1.5, gt=0, description="first step of the dropout machine")
    counts: float = Field(default=0.1, ge=0, le=10, description="weight of the log-ratios of counts in the score; 0 leaves them out")
    balanced: float = Field(default=0.0, ge=0, le=1, description="how far rare labels are made to count as much as frequent ones; 0: as often as they come, 1: all labels alike")
    prior: dict[str, float] | Literal["uniform"] | None = Field(
        default=None, description="shares the labels will have where the model works, of some labels (the others share the rest as in train) or uniform; none: as in train"
    )
    tau: float | None = Field(default=None, ge=0, le=3, description="how far answers move towards prior; none: chosen on valid, or on a tenth of train")
    sharpness: float | None = Field(default=None, gt=0, description="inverse temperature; none: fitted on valid, or on a tenth of train")
    offset: float = Field(default=0.0, description="multilabel: added to every label's score; fitted together with sharpness")
    threshold: float = Field(default=0.5, gt=0, lt=1, description="multilabel: a label is given above this probability; fitted together with sharpness")

    @model_validator(mode="after")
    def _ordered(self) -> LinearHyper:
        if self.ngram_min > self.ngram_max:
            raise ValueError("ngram_min is above ngram_max")
        if isinstance(self.prior, dict) and not (all(share > 0 for share in self.prior.values()) and sum(self.prior.values()) <= 1):
            raise ValueError("prior: shares are above 0 and sum to at most 1")
        return self


class Linear(Model):
    """A classifier over character and word n-grams."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "multilabel"})
    cost_rank: ClassVar[int] = 1
    Hyper: ClassVar[type[BaseModel]] = LinearHyper
    hyper: LinearHyper

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Spread over reach of the grams, softness of the margin, and how grams are scaled: contrast and dropout mislead where labels have few examples."""
        least = 2 if shape.rows >= 5000 else 1
        words = 2 if shape.spaced > 0.5 else 0
        plain = LinearHyper(min_count=least, words=words, counts=0.1 if shape.rows < 30_000 else 0.0)  # with more the others know better
        scarce = plain.model_copy(update={"contrast": 0.0, "rarity": 1.0, "blend": 0.0, "balanced": 1.0})
        others = [
            plain.model_copy(update={"ngram_max": 5 if shape.length_mean > 40 or words else 4}),
            plain.model_copy(update={"balanced": 1.0}),
            plain.model_copy(update={"rarity": 1.0}),
            plain.model_copy(update={"c": 0.3}),
            plain.model_copy(update={"min_count": 1 if least > 1 else 2, "ngram_max": 2, "words": 0}),
        ]
        undropped = plain.model_copy(update={"blend": 0.0})
        if shape.labels <= 20:
            worded = [scarce.model_copy(update={"min_count": 2, "ngram_max": 1, "c": 3.0})] if words else []
            return [plain, undropped, *worded, scarce, *others] if plain.counts else [plain, *others, undropped, *worded, scarce]
        if shape.length_mean > 100:
            brief = scarce.model_copy(update={"min_count": 2, "ngram_max": 2, "c": 0.3, "counts": 0.0, "balanced": 0.0})
            return [brief, brief.model_copy(update={"balanced": 0.5}), brief.model_copy(update={"c": 1.0, "counts": 0.05, "balanced": 1.0}), scarce, plain, *others, undropped]
        mixed = plain.model_copy(update={"rarity": 1.0, "blend": 0.1, "balanced": 1.0})
        return [mixed, scarce.model_copy(update={"c": 3.0}), scarce, plain, *others, undropped]

    @classmethod
    def space(cls, shape: DataShape) -> Space:
        """Reach, scale and softness; the rest hardly matters."""
        return {
            "ngram_max": Integer(1, 5), "words": Choice((0, 1, 2, 3) if shape.spaced > 0 else (0,)), "min_count": Integer(1, 3), "contrast": Float(0.0, 1.0), "rarity": Float(0.0, 1.5),
            "c": Float(0.1, 10.0, log=True), "blend": Float(0.0, 1.0), "counts": Float(0.0, 0.2), "balanced": Float(0.0, 1.0),
        }  # fmt: skip

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Count grams, train the heads, calibrate.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`, `model.unknown-label` (in ``prior``).

        Cost: 90,000 titles take about 8 CPU-seconds.
        """
        curve = curve or Curve()
        self.labels_ = trainable_labels(train)
        gold = Gold.of(train, self.labels_)
        meant = self._meant(gold)
        h = self.hyper
        self.tau_ = 1.0 if h.tau is None else h.tau
        self.sharpness_, self.threshold_ = h.sharpness or _SHARPNESS, h.threshold
        self.shift_ = self._shift(gold, meant) if self.task == "classification" else np.full(len(self.labels_), h.offset)
        open_ = h.sharpness is None or (meant is not None and h.tau is None)
        if open_ and not valid and len(train) >= 200:
            order = np.random.default_rng(self.seed).permutation(len(train))
            held, rest = np.split(order, [min(5000, len(train) // 10)])
            self._learn(train.take(rest.tolist()).texts, gold.take(rest), Curve(deadline=curve.deadline))
            self._calibrate(self._scores(train.take(held.tolist()).texts), gold.take(held), gold, meant)
            if curve.late():
                return self
        self._learn(train.texts, gold, curve)
        if valid:
            truth, scores = Gold.of(valid, self.labels_), self._scores(valid.texts)
            if open_:
                self._calibrate(scores, truth, gold, meant)
            curve.point(h.epochs, valid_score=self._share_right(scores, truth))
        return self

    def _meant(self, gold: Gold) -> F64 | None:
        """The share of each label where the model will work, shape (L,); None: as in train."""
        prior, L = self.hyper.prior, len(self.labels_)
        if prior is None or self.task != "classification":
            return None
        if prior == "uniform":
            return np.full(L, 1.0 / L)
        for label in prior:
            if label not in self.labels_:
                raise Invalid("model.unknown-label", label=label)
        shares = gold.mass() / gold.mass().sum()
        free = np.array([label not in prior for label in self.labels_])
        if free.any():
            shares[free] *= max(1e-9, 1.0 - sum(prior.values())) / shares[free].sum()
        shares[~free] = [prior[label] for label in np.array(self.labels_)[~free].tolist()]
        return shares / shares.sum()

    def _learned(self, gold: Gold) -> F64:
        """The share of each label as the machines met it: balanced, all are nearer to each other, shape (L,)."""
        mass = np.maximum(gold.mass(), 1e-9) ** (1.0 - self.hyper.balanced)
        return mass / mass.sum()

    def _shift(self, gold: Gold, meant: F64 | None) -> F64:
        return np.zeros(gold.L) if meant is None else self.tau_ * (np.log(meant) - np.log(self._learned(gold)))

    def _calibrate(self, scores: F32, truth: Gold, learned: Gold, meant: F64 | None) -> None:
        """Fit what the hyper-parameters leave open on texts that were not learned from."""
        if self.task == "multilabel":
            matrix = truth.matrix()
            self.sharpness_, offset = fit_slope(scores, matrix, default=_SHARPNESS)
            self.shift_ = np.full(learned.L, offset)
            self.threshold_ = best_threshold(sigmoid(scores, self.sharpness_, offset), matrix)
            return
        scores = scores[truth.owners()]  # those whose label is known
        if self.hyper.sharpness is None:
            self.sharpness_ = fit_sharpness(scores, truth.labels, default=_SHARPNESS)
        if meant is not None and self.hyper.tau is None:
            self.tau_ = fit_tau(scores, self.sharpness_, truth.labels, learned=self._learned(learned), meant=meant)
        self.shift_ = self._shift(learned, meant)

    def _share_right(self, scores: F32, truth: Gold) -> float:
        """Share of texts with the right label, or the wholly right set of labels."""
        if self.task == "multilabel":
            return float(((sigmoid(scores, self.sharpness_, float(self.shift_[0])) >= self.threshold_) == truth.matrix()).all(axis=1).mean())
        owners = truth.owners()
        return float((softmax(scores[owners], self.sharpness_, self.shift_).argmax(axis=1) == truth.labels).sum()) / len(truth)

    def _learn(self, texts: Sequence[str], gold: Gold, curve: Curve) -> None:
        h, L = self.hyper, gold.L
        dense = (L <= _DENSE_LABELS_MAX or self.task == "multilabel") and L * len(texts) <= _DENSE_DUALS_MAX
        size_max = min(_GRAMS_MAX, max(1, _CELLS_MAX // L)) if dense else _GRAMS_MAX
        self.index_, counts = count_vocabulary(texts, self._recipe(), min_count=h.min_count, size_max=size_max)
        bags = self._bags(texts)
        inverse: F32 = (np.log((1.0 + len(texts)) / (1.0 + counts)) + 1.0).astype(np.float32)
        self.head_ = self._learn_dense(bags, gold, inverse, curve) if dense else self._learn_prototypes(bags, gold, inverse, curve)

    def _learn_dense(self, bags: Bags, gold: Gold, inverse: F32, curve: Curve) -> Dense:
        h, L, one_of = self.hyper, gold.L, self.task == "classification"
        sizes, lengths, even = gold.mass(), bag_lengths(bags, inverse), np.ones_like(inverse)
        label_weights = (sizes.sum() / (L * np.maximum(sizes, 1e-9))) ** h.balanced
        scale: F32 = inverse ** np.float32(h.rarity)
        counts = label_counts(bags, gold, len(self.index_)) if h.contrast or (one_of and h.counts) else None
        if counts is not None and h.contrast:
            scale *= contrast(counts, bags, gold) ** np.float32(h.contrast)
        units, scale = scaled_bags(bags, scale, lengths)
        table, bias = self._learn_margin(units, gold, label_weights, curve)
        table *= scale[:, None]
        plain, even = scaled_bags(bags, even, lengths)
        if one_of and h.blend:
            weights, more = self._learn_dropout(plain, gold, label_weights, curve)
            table += weights * (np.float32(h.blend) * even[:, None])
            bias += np.float32(h.blend) * more
        if one_of and h.counts and counts is not None:
            table += log_ratios(counts) * (np.float32(h.counts) * even[:, None])
        return Dense(table.astype(np.float16), inverse, bias)

    def _learn_prototypes(self, bags: Bags, gold: Gold, inverse: F32, curve: Curve) -> Prototypes:
        from wenfang.models.rivals import sharpen

        units = scaled_units(bags, inverse)
        head = Prototypes.average(units, gold, scale=inverse, size_max=_PROTOTYPE_WEIGHTS_MAX)
        if self.task == "multilabel":  # a text's other labels are no rivals
            return head
        rng = np.random.default_rng((self.seed, 3))
        for epoch in range(self.hyper.epochs):
            if curve.late():
                break
            order, loss = rng.permutation(len(bags)), 0.0
            for at in range(0, len(order), 5000):
                part = order[at : at + 5000]
                loss += sharpen(head, units, gold, part, c=0.2 * self.hyper.c) * len(part)
                if curve.late():
                    break
            curve.point(epoch + 1, loss=loss / len(order))
        return head

    def _learn_margin(self, bags: Bags, gold: Gold, label_weights: F64, curve: Curve) -> tuple[F32, F32]:
        from wenfang.models.svm import Machines

        rng = np.random.default_rng((self.seed, 1))
        machines = Machines.new(bags, gold, V=len(self.index_), c=self.hyper.c, label_weights=label_weights)
        for epoch in range(self.hyper.epochs):
            curve.point(epoch + 1, loss=machines.epoch(rng.permutation(len(bags))))
            if curve.late():
                break
        return machines.weights, machines.bias

    def _learn_dropout(self, bags: Bags, gold: Gold, label_weights: F64, curve: Curve) -> tuple[F32, F32]:
        from wenfang.models.softmax import DropoutSoftmax

        rng = np.random.default_rng((self.seed, 2))
        head = DropoutSoftmax.new(bags, gold, V=len(self.index_), drop=self.hyper.drop, label_weights=label_weights)
        for epoch in range(self.hyper.epochs):
            if curve.late():
                break
            head.epoch(rng.permutation(len(bags)), rate=self.hyper.rate * (1 - epoch / self.hyper.epochs), seed=self.seed * 1000 + epoch)
        return head.weights, head.bias

    def _recipe(self) -> Recipe:
        return Recipe(self.hyper.ngram_min, self.hyper.ngram_max, self.hyper.words)

    def _bags(self, texts: Sequence[str]) -> Bags:
        return bag_texts(texts, self.index_, self._recipe())

    def _scores(self, texts: Sequence[str]) -> F32:
        """Uncalibrated scores, shape (B, L)."""
        L = len(self.labels_)
        scores = np.zeros((len(texts), L), np.float32)
        for start, end in text_blocks(texts, max(1, (1 << 22) // L)):
            scores[start:end] = self.head_.scores(self._bags(texts[start:end]), L)
        return scores

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """The most likely label of each text, or every label above the threshold, with calibrated probabilities.

        Raises:
            Invalid: `model.not-fitted`.
        """
        if not self.labels_:
            raise Invalid("model.not-fitted", family="linear")
        if self.task == "multilabel":
            return several(self.labels_, sigmoid(self._scores(texts), self.sharpness_, float(self.shift_[0])), self.threshold_, top_k)
        return classified(self.labels_, softmax(self._scores(texts), self.sharpness_, self.shift_), top_k)

    def save(self, folder: Path) -> None:
        """Write ``dense.safetensors`` or ``prototypes.safetensors``."""
        name = next(n for n, head in _HEADS.items() if isinstance(self.head_, head))
        decision = {"sharpness": np.array([self.sharpness_]), "shift": self.shift_, "threshold": np.array([self.threshold_])}
        save_arrays(folder / f"{name}.safetensors", {"keys": self.index_.keys, **decision, **self.head_.arrays()})

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        name = next((n for n in _HEADS if (folder / f"{n}.safetensors").is_file()), "dense")
        arrays = load_arrays(folder / f"{name}.safetensors", {**_COMMON, **_HEADS[name].format})
        keys, sharpness, shift, threshold = (arrays.pop(k) for k in _COMMON)
        model.head_ = _HEADS[name](**arrays)
        if not model.head_.fits(len(keys), len(labels)) or sharpness.shape != (1,) or threshold.shape != (1,) or shift.shape != (len(labels),):
            raise Broken("model.damaged", file=f"{name}.safetensors", reason="shapes")
        model.labels_, model.index_ = labels, GramIndex(keys)
        model.sharpness_, model.shift_, model.threshold_ = float(sharpness[0]), shift, float(threshold[0])
        return model

    def libraries(self) -> Sequence[str]:
        """The compiled loops."""
        return LOOPS

    def refit_hyper(self) -> BaseModel:
        """The same with the calibration that valid chose."""
        chosen: dict[str, float] = {"sharpness": self.sharpness_}
        if self.task == "multilabel":
            chosen |= {"offset": float(self.shift_[0]), "threshold": self.threshold_}
        elif self.hyper.prior is not None:
            chosen["tau"] = self.tau_
        return self.hyper.model_copy(update=chosen)

    def environment(self) -> Mapping[str, str]:
        """Versions of numpy and, where it trained, of numba."""
        import sys

        return {name: str(sys.modules[name].__version__) for name in ("numpy", "numba") if name in sys.modules}
