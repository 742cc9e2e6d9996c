"""A linear-chain conditional random field over characters: the light tagger.

Character contexts (one to three characters and character classes in a window of five) speak for BIOES tags; transitions that BIOES
forbids have no weight and no probability. Learning starts with a few stochastic passes (AdaGrad) and ends with L-BFGS, or OWL-QN
where there is an L1 penalty. Serving needs numpy; numba makes it faster with equal answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import trainable_labels
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.contexts import KINDS, Contexts
from wenfang.models.features import text_blocks
from wenfang.models.jit import available
from wenfang.models.spans import span_f1
from wenfang.models.tags import TagSet
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Crf", "CrfHyper"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_CELLS_MAX = 16_000_000
"""Weights a model may hold: 32 MB in a bundle, below 1 GB while it learns."""
_BLOCK_CHARS = 1 << 16
_Decoder = Callable[[F32, F64, npt.NDArray[np.int64], F32, F64, F64, F64, npt.NDArray[np.int32], F64, F64], None]
_FORMAT = {"keys": (np.uint64, 1), "sizes": (np.int64, 1), "weights": (np.float16, 2), "transitions": (np.float32, 2), "tags": (np.int64, 1)}


class CrfHyper(Hyper):
    """What can be chosen about a conditional random field."""

    algorithm: Literal["lbfgs", "sgd"] = Field(default="lbfgs", description="how learning ends; both begin with stochastic passes")
    c1: float = Field(default=0.05, ge=0, description="weight of the sum of absolute weights")
    c2: float = Field(default=0.05, ge=0, description="weight of the sum of squared weights")
    passes: int = Field(default=3, ge=0, le=200, description="stochastic passes")
    rate: float = Field(default=0.1, gt=0, description="step of the stochastic passes")
    iterations: int = Field(default=40, ge=0, le=1000, description="quasi-Newton iterations")
    min_count: int = Field(default=1, ge=1, description="a context must stand at that many places; triples at one more")


class Crf(Model):
    """A tagger over character contexts."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"tagging"})
    cost_rank: ClassVar[int] = 2
    Hyper: ClassVar[type[BaseModel]] = CrfHyper
    hyper: CrfHyper

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Spread over the strength and kind of the penalty, then over the way of learning."""
        least = 1 if shape.rows < 20_000 else 2
        return [
            CrfHyper(min_count=least),
            CrfHyper(min_count=least, c1=0.1, c2=0.01),
            CrfHyper(min_count=least, algorithm="sgd", passes=9, rate=0.05, c1=0.0, c2=0.1),
            CrfHyper(min_count=least, c1=0.0, c2=1.0),
            CrfHyper(min_count=least + 1, c1=0.3, c2=0.01),
        ]

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Count contexts, then learn by stochastic passes and quasi-Newton iterations.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`.
        """
        from wenfang.models.chain_fit import Chain

        curve = curve or Curve()
        self.labels_ = trainable_labels(train)
        coded = [TagSet(tuple(self.labels_)).encode(spans, len(text)) for text, spans in zip(train.texts, train.spans, strict=True)]
        tags = np.concatenate(coded)
        self.tags_ = np.union1d(tags, [0]).astype(np.int64)
        self.contexts_ = Contexts.count(train.texts, min_count=self.hyper.min_count, size_max=_CELLS_MAX // len(self.tags_))
        windows = self.contexts_.windows(train.texts)
        rules = self._rules()
        chain = Chain(windows, np.searchsorted(self.tags_, tags).astype(np.int32), rows=len(self.contexts_), legal=rules[0], first=rules[1], last=rules[2])
        h = self.hyper

        def score() -> float | None:
            if valid is None or not len(valid):
                return None
            self._settle(chain.weights.astype(np.float16), chain.transitions.copy())
            return span_f1([o.spans or () for o in self.predict(valid.texts)], valid.spans)

        chain.stochastic(h.passes, rate=h.rate, c1=h.c1, c2=h.c2, seed=self.seed, curve=curve, score=score)
        if h.algorithm == "lbfgs" and not curve.late():
            chain.quasi_newton(h.iterations, c1=h.c1, c2=h.c2, curve=curve, score=score, done=h.passes)
        self._settle(chain.weights.astype(np.float16), chain.transitions)
        return self

    def _rules(self) -> tuple[npt.NDArray[np.bool_], F64, F64]:
        """Which of the tags in use may follow each other, stand first, stand last."""
        tag_set, used = TagSet(tuple(self.labels_)), self.tags_
        return np.ascontiguousarray(tag_set.legal[np.ix_(used, used)]), tag_set.legal_start[used].astype(np.float64), tag_set.legal_end[used].astype(np.float64)

    def _settle(self, weights: npt.NDArray[np.float16], transitions: F32) -> None:
        """Take the weights into the form predict reads; the same after fit and after load."""
        self.weights_, self.transitions_ = weights, transitions
        self._wide = weights.astype(np.float32)
        legal, self._first, self._last = self._rules()
        self._moves = np.where(legal, transitions, np.float32(-np.inf)).astype(np.float32)
        self._move_top = float(transitions[legal].max(initial=-np.inf))
        self._steps = np.where(legal, np.exp(np.maximum(transitions.astype(np.float64) - self._move_top, -100.0)), 0.0)

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:  # noqa: ARG002 a path has no rivals here
        """The spans of the best path of each text, with the probability of the whole path.

        Raises:
            Invalid: `model.not-fitted`.

        Cost: 1-3 microseconds per character with numba.
        """
        if not self.labels_:
            raise Invalid("model.not-fitted", family="crf")
        answers: list[Output] = []
        for start, end in text_blocks(texts, _BLOCK_CHARS):
            answers += self._tag(texts[start:end])
        return answers

    def _tag(self, texts: Sequence[str]) -> list[Output]:
        windows = self.contexts_.windows(texts)
        starts, (N, K), L = windows.starts, windows.rows.shape, len(self.tags_)
        scores = np.zeros((N, L), np.float32)
        for k in range(K):
            scores += self._wide[windows.rows[:, k]]
        tops = scores.max(axis=1, keepdims=True, initial=-np.inf)
        odds = np.exp(np.maximum((scores - tops).astype(np.float64), -300.0))
        path, scales, ends = np.zeros(N, np.int32), np.ones(N), np.ones((len(texts), L))
        self._decoder()(scores, odds, starts, self._moves, self._steps, self._first, self._last, path, scales, ends)
        return self._answers(scores, starts, path, tops[:, 0].astype(np.float64) + np.log(scales), ends)

    @staticmethod
    def _decoder() -> _Decoder:
        if available():
            from wenfang.models.chain import decode
        else:
            from wenfang.models.chain_plain import decode
        return decode

    def _answers(self, scores: F32, starts: npt.NDArray[np.int64], path: npt.NDArray[np.int32], partition: F64, ends: F64) -> list[Output]:
        share = np.take_along_axis(scores, path[:, None], axis=1)[:, 0].astype(np.float64) - partition
        if len(path) > 1:
            inner = np.ones(len(path), np.bool_)
            inner[starts[starts < len(path)]] = False  # no hop leads into the first place of a text
            share[1:] += np.where(inner[1:], self._moves[path[:-1], path[1:]].astype(np.float64) - self._move_top, 0.0)
        tag_set, tags = TagSet(tuple(self.labels_)), self.tags_[path]
        last = np.log(np.add.reduce(ends, axis=1))
        answers: list[Output] = []
        for i in range(len(starts) - 1):
            start, end = int(starts[i]), int(starts[i + 1])
            if start == end:
                answers.append(Output(score=1.0, spans=()))
                continue
            log_p = float(np.add.reduce(share[start:end])) - float(last[i])
            answers.append(Output(score=min(1.0, float(np.exp(log_p))), spans=tag_set.decode(tags[start:end])))
        return answers

    def save(self, folder: Path) -> None:
        """Write ``crf.safetensors``."""
        keys = [self.contexts_.index[kind].keys for kind in KINDS]
        sizes = np.array([len(k) for k in keys], np.int64)
        save_arrays(folder / "crf.safetensors", {"keys": np.concatenate(keys), "sizes": sizes, "weights": self.weights_, "transitions": self.transitions_, "tags": self.tags_})

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        a = load_arrays(folder / "crf.safetensors", _FORMAT)
        L, sizes = len(a["tags"]), a["sizes"]
        if (
            len(sizes) != len(KINDS)
            or sizes.min() < 0
            or sizes.sum() != len(a["keys"])
            or not 0 < L <= 1 + 4 * len(labels)
            or np.setdiff1d(a["tags"], np.arange(1 + 4 * len(labels))).size
        ):
            raise Broken("model.damaged", file="crf.safetensors", reason="shapes")
        model.labels_, model.tags_ = labels, a["tags"]
        model.contexts_ = Contexts(dict(zip(KINDS, np.split(a["keys"], np.cumsum(sizes)[:-1]), strict=True)))
        if a["weights"].shape != (len(model.contexts_), L) or a["transitions"].shape != (L, L):
            raise Broken("model.damaged", file="crf.safetensors", reason="shapes")
        model._settle(a["weights"], a["transitions"])
        return model

    def environment(self) -> Mapping[str, str]:
        """Versions of numpy and, where it trained, of numba."""
        import sys

        return {name: str(sys.modules[name].__version__) for name in ("numpy", "numba") if name in sys.modules}
