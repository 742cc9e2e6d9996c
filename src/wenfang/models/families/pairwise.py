"""Pairs of texts under a linear model: what they share, what each has alone, and what stands for what. Milliseconds to load, no torch.

Figures of likeness (cosines weighted by rarity, overlaps, common subsequence, numbers, negation) stand beside sparse features: each
n-gram on both sides or on one, and each n-gram of one side crossed with one of the other, which learns that two words mean the same
or must not be confused. Grades are learned as shares of two classes, so a score is always between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, trainable_labels
from wenfang.models.bags import Bags, sum_rows
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.calibration import softmax
from wenfang.models.features import U64, GramIndex, text_blocks
from wenfang.models.pairs import DIRECTED, FIGURES, LENGTHS, Rarity, compare, crossings, figures, sides
from wenfang.models.space import Choice, Float, Integer, Space
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Pairwise"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FEATURES_MAX = 1_500_000
BLOCK_CHARACTERS = 1 << 19
FAR = 4.0
"""Standard deviations beyond which a figure says nothing more."""
FORMAT = {
    "keys": (np.uint64, 1), "table": (np.float32, 2), "dense": (np.float64, 2), "bias": (np.float64, 1), "mean": (np.float64, 1), "spread": (np.float64, 1),
    **{f"rare_keys_{n}": (np.uint64, 1) for n in LENGTHS}, **{f"rare_values_{n}": (np.float32, 1) for n in LENGTHS}, "unseen": (np.float64, 1),
}  # fmt: skip


class PairwiseHyper(Hyper):
    """What can be chosen about it."""

    directed: bool = Field(default=False, description="which text comes first matters (a question and its answer, a claim and what follows from it)")
    ngram_max: int = Field(default=3, ge=1, le=4, description="longest character n-gram that stands on one side or both")
    crossings: int = Field(default=12, ge=0, le=64, description="n-grams of a side that are crossed with those of the other; 0: none")
    cross_max: int = Field(default=2, ge=1, le=4, description="longest n-gram that is crossed")
    min_count: int = Field(default=3, ge=1, description="a feature must stand in that many pairs")
    c: float | None = Field(default=None, gt=0, description="weight of the loss against the weights; none: chosen on valid, or on a tenth of train")
    sharpness: float | None = Field(default=None, gt=0, le=10, description="factor of the evidence after learning; none: chosen with c")


class Pairwise(Model):
    """Linear over what two texts share and do not share."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"matching"})
    cost_rank: ClassVar[int] = 1
    Hyper: ClassVar[type[BaseModel]] = PairwiseHyper
    hyper: PairwiseHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.index_: GramIndex | None = None
        self.chosen_: dict[str, float] = {}

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """With and without direction, with and without crossings, and figures with hardly anything else for few pairs."""
        least = 2 if shape.rows < 2000 else 3 if shape.rows < 100_000 else 5
        guess = PairwiseHyper(min_count=least, directed=shape.labels > 2)
        return [
            guess,
            guess.model_copy(update={"directed": not guess.directed}),
            guess.model_copy(update={"crossings": 0}),
            guess.model_copy(update={"ngram_max": 1, "crossings": 0, "min_count": 10 * least}),
        ]

    @classmethod
    def space(cls, shape: DataShape) -> Space:  # noqa: ARG003 the same for every shape
        """Reach of the features and strength of the loss."""
        return {
            "directed": Choice((False, True)), "ngram_max": Integer(1, 4), "crossings": Choice((0, 6, 12, 24)), "cross_max": Integer(1, 3), "min_count": Integer(1, 20, log=True),
            "c": Float(0.001, 1.0, log=True),
        }  # fmt: skip

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Count what is rare, make features, walk along the strengths.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`.
            Unsupported: `model.needs-package`.

        Cost: 30,000 short pairs take about 20 CPU-seconds.
        """
        from wenfang.models.soft_targets import Design, learn

        curve = curve or Curve()
        self.labels_ = trainable_labels(train)
        held = valid if valid and len(valid) else None
        if held is None and self.hyper.c is None and len(train) >= 200:
            order = np.random.default_rng(self.seed).permutation(len(train))
            cut = min(5000, len(train) // 10)
            train, held = train.take(order[cut:].tolist()), train.take(order[:cut].tolist())
        self.rarities_ = [Rarity.count([*train.texts, *train.texts_b], n) for n in LENGTHS]
        raw = self._figures(train.texts, train.texts_b)
        self.mean_, self.spread_ = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-6)
        self.index_ = self._count(train)

        def design(examples: Examples, raw: F64) -> Design:
            weights = np.array(examples.weights or [1.0] * len(examples))
            return Design(self._standard(raw), self._bags(examples.texts, examples.texts_b), len(self.index_ or ()), self._targets(examples), weights)

        known = None if held is None else _known(held, self.labels_)
        apart = design(known, self._figures(known.texts, known.texts_b)) if known is not None and len(known) else None

        def watch(strength: float, loss: float) -> bool:
            curve.point(strength, loss=loss)
            return curve.late()

        found = learn(design(train, raw), apart, c=self.hyper.c, sharpness=self.hyper.sharpness, watch=watch)
        self.dense_, self.table_, self.bias_ = found.dense, found.sparse.astype(np.float32), found.bias
        self.chosen_ = {"c": found.c, "sharpness": found.sharpness}
        self._drop_silent()
        return self

    def _targets(self, examples: Examples) -> F64:
        if not self.labels_:
            grades = np.array(examples.grades, np.float64)
            return np.stack([1.0 - grades, grades], axis=1)
        number = {label: i for i, label in enumerate(self.labels_)}
        return np.eye(len(self.labels_))[[number[label] for label in examples.labels]]

    def _figures(self, texts: Sequence[str], texts_b: Sequence[str]) -> F64:
        parts = [figures(texts[a:b], texts_b[a:b], self.rarities_) for a, b in _blocks(texts, texts_b)]
        found = np.concatenate(parts) if parts else np.zeros((0, len(FIGURES)))
        return found if self.hyper.directed else found[:, :-DIRECTED]

    def _standard(self, raw: F64) -> F64:
        return np.clip((raw - self.mean_) / self.spread_, -FAR, FAR)

    def _features(self, texts: Sequence[str], texts_b: Sequence[str]) -> tuple[U64, I64, I64]:
        """Hashes, pair and kind (side or crossing) of every feature."""
        h = self.hyper
        keys: list[U64] = []
        pairs: list[I64] = []
        kinds: list[I64] = []
        for n in range(1, max(h.ngram_max, h.cross_max if h.crossings else 0) + 1):
            compared = compare(texts, texts_b, n)
            found: list[tuple[int, tuple[U64, I64]]] = []
            if n <= h.ngram_max:
                found.append((0, sides(compared, directed=h.directed)))
            if h.crossings and n <= h.cross_max:
                found.append((1, crossings(compared, self.rarities_[n - 1](compared.keys), directed=h.directed, most=h.crossings)))
            for kind, (hashes, pair) in found:
                keys.append(hashes)
                pairs.append(pair)
                kinds.append(np.full(len(pair), kind))
        return np.concatenate(keys), np.concatenate(pairs), np.concatenate(kinds)

    def _count(self, train: Examples) -> GramIndex:
        """The features that stand in enough pairs."""
        keys, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for a, b in _blocks(train.texts, train.texts_b):
            more, pair, _ = self._features(train.texts[a:b], train.texts_b[a:b])
            order = np.lexsort((pair, more))
            more, pair = more[order], pair[order]
            new = np.ones(len(more), np.bool_)
            new[1:] = (more[1:] != more[:-1]) | (pair[1:] != pair[:-1])
            keys, place = np.unique(np.concatenate([keys, more[new]]), return_inverse=True)
            counts = np.bincount(place, np.concatenate([counts, np.ones(int(new.sum()))]), len(keys)).astype(np.int64)
        kept = np.flatnonzero(counts >= self.hyper.min_count)
        if len(kept) > FEATURES_MAX:
            kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:FEATURES_MAX]])
        return GramIndex(keys[kept])

    def _bags(self, texts: Sequence[str], texts_b: Sequence[str]) -> Bags:
        """Known features of each pair; each kind weighs as much in a long pair as in a short one."""
        assert self.index_ is not None
        parts: list[tuple[I64, npt.NDArray[np.int32], F32]] = []
        for a, b in _blocks(texts, texts_b):
            keys, pair, kind = self._features(texts[a:b], texts_b[a:b])
            group = pair * 2 + kind
            size = np.bincount(group, minlength=2 * (b - a))[group]
            value = np.where(kind == 0, np.minimum(1.0, np.sqrt(40.0 / size)), 0.5 * np.minimum(1.0, np.sqrt(100.0 / size)))
            rows = self.index_.rows(keys)
            order = np.lexsort((rows, pair))
            order = order[rows[order] >= 0]
            parts.append((np.bincount(pair[order], minlength=b - a), rows[order], value[order].astype(np.float32)))
        starts = np.zeros(len(texts) + 1, np.int64)
        if not parts:
            return Bags(starts, np.zeros(0, np.int32), np.zeros(0, np.float32))
        np.cumsum(np.concatenate([p[0] for p in parts]), out=starts[1:])
        return Bags(starts, np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts]))

    def _drop_silent(self) -> None:
        """Features that say next to nothing are not kept."""
        assert self.index_ is not None
        loud = np.abs(self.table_).max(axis=1, initial=0.0) > 1e-4
        self.index_, self.table_ = GramIndex(self.index_.keys[loud]), self.table_[loud]

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:  # noqa: ARG002 there is nothing to say of one text
        """Refuses: it answers pairs.

        Raises:
            Invalid: `model.pairs-wanted`.
        """
        if not len(texts):
            return []
        raise Invalid("model.pairs-wanted", family="pairwise", task=self.task)

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """Label and probability of each pair, or its grade.

        Raises:
            Invalid: `model.not-fitted`.

        Cost: about 1 ms for a pair alone, 0.2 ms in a batch.
        """
        if self.index_ is None:
            raise Invalid("model.not-fitted", family="pairwise")
        shares = self._shares(texts, texts_b)
        return classified(self.labels_, shares, top_k) if self.labels_ else [Output(score=g) for g in shares[:, 1].tolist()]

    def _shares(self, texts: Sequence[str], texts_b: Sequence[str]) -> F64:
        dense = self._standard(self._figures(texts, texts_b))
        scores = np.add.reduce(dense[:, :, None] * self.dense_, axis=1) + self.bias_
        return softmax(scores + sum_rows(self.table_, self._bags(texts, texts_b)), 1.0)

    def save(self, folder: Path) -> None:
        """Write ``pairwise.safetensors``."""
        assert self.index_ is not None
        arrays: dict[str, Any] = {
            "keys": self.index_.keys, "table": self.table_, "dense": self.dense_, "bias": self.bias_, "mean": self.mean_, "spread": self.spread_,
            "unseen": np.array([r.unseen for r in self.rarities_]),
        }  # fmt: skip
        for n, rarity in zip(LENGTHS, self.rarities_, strict=True):
            arrays[f"rare_keys_{n}"], arrays[f"rare_values_{n}"] = rarity.keys, rarity.values
        save_arrays(folder / "pairwise.safetensors", arrays)

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        a = load_arrays(folder / "pairwise.safetensors", FORMAT)
        D, L = len(FIGURES) - (0 if model.hyper.directed else DIRECTED), len(labels) or 2
        whole = a["table"].shape == (len(a["keys"]), L) and a["dense"].shape == (D, L) and a["bias"].shape == (L,) and a["mean"].shape == a["spread"].shape == (D,)
        if not whole or a["unseen"].shape != (len(LENGTHS),) or any(a[f"rare_keys_{n}"].shape != a[f"rare_values_{n}"].shape for n in LENGTHS):
            raise Broken("model.damaged", file="pairwise.safetensors", reason="shapes")
        model.labels_, model.index_, model.table_ = labels, GramIndex(a["keys"]), a["table"]
        model.dense_, model.bias_, model.mean_, model.spread_ = a["dense"], a["bias"], a["mean"], a["spread"]
        model.rarities_ = [Rarity(a[f"rare_keys_{n}"], a[f"rare_values_{n}"], float(u)) for n, u in zip(LENGTHS, a["unseen"], strict=True)]
        return model

    def refit_hyper(self) -> BaseModel:
        """The same with the strength and the sharpness that valid chose."""
        return self.hyper.model_copy(update=self.chosen_)

    def environment(self) -> Mapping[str, str]:
        """Versions of numpy and, where it trained, of scipy."""
        import sys

        return {name: str(sys.modules[name].__version__) for name in ("numpy", "scipy") if name in sys.modules}


def _blocks(texts: Sequence[str], texts_b: Sequence[str]) -> list[tuple[int, int]]:
    """Ranges of pairs whose texts have a bounded number of characters together."""
    return list(text_blocks([a + b for a, b in zip(texts, texts_b, strict=True)], BLOCK_CHARACTERS))


def _known(held: Examples, labels: Sequence[str]) -> Examples:
    """Without the examples whose label training did not have."""
    return held if not labels else held.take([i for i, label in enumerate(held.labels) if label in set(labels)])
