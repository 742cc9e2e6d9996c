"""Sentence embeddings: a vector of length one for each text, so that near means alike; and pairs judged by their cosine.

Two kinds. ``tfidf-svd`` needs no network: n-grams weighted by rarity on the directions texts differ in, bent by pairs where there are
any; it learns in seconds and answers in microseconds. ``neural`` trains a small encoder of our own, or a local pretrained directory,
by contrast: a text against itself under dropout, a pair against the rest of its batch; it answers through onnxruntime.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, trainable_labels
from wenfang.models.bags import Bags
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.calibration import softmax
from wenfang.models.features import GramIndex
from wenfang.models.latent import Latent
from wenfang.models.loading import LOOPS, TORCH
from wenfang.models.neural.selfcheck import FORMAT, verify
from wenfang.models.neural.session import Session
from wenfang.models.neural.stored_tokens import tokens_from_json
from wenfang.models.neural.tokens import Tokens
from wenfang.models.pairs import compare
from wenfang.models.ranks import rank_correlation
from wenfang.models.space import Choice, Float, Integer, Space
from wenfang.models.weights import load_arrays, save_arrays
from wenfang.models.window_means import sentence_vectors

__all__ = ["Encoder", "EncoderHyper"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
LEAST_SPLIT = 50
"""Pairs from which on a fifth is kept apart for the probabilities when there is no valid set."""
ALIKE = 0.6
"""Grade from which a pair says the same."""
CURVE = {"mean": (np.float64, 1), "spread": (np.float64, 1), "weights": (np.float64, 2), "bias": (np.float64, 1)}
LATENT = {"keys": (np.uint64, 1), "table": (np.float16, 2)}


class EncoderHyper(Hyper):
    """What can be chosen; what belongs to the other kind is not looked at."""

    kind: Literal["tfidf-svd", "neural"] = Field("tfidf-svd", description="n-grams on directions, or a network")
    dimension: int = Field(384, ge=2, le=4096, description="numbers of a vector")
    min_count: int = Field(2, ge=1, description="rarer grams and characters are unknown")
    ngram_max: int = Field(2, ge=1, le=5, description="tfidf-svd: longest character n-gram")
    long_weight: float = Field(0.3, gt=0, le=2, description="tfidf-svd: weight of a two-character gram against a single one")
    flat: float = Field(0.5, ge=0, le=1, description="tfidf-svd: 0 keeps the directions' own weights, 1 makes them count alike")
    bend: bool = Field(True, description="tfidf-svd: directions in which alike pairs differ count less")
    pretrained: str | None = Field(None, description="neural: local directory of the transformers library or of our own pre-training; none: own network from scratch")
    layers: int = Field(1, ge=0, le=24, description="neural, own")
    hidden: int = Field(128, ge=8, le=2048, description="neural, own; a multiple of heads")
    heads: int = Field(4, ge=1, le=32, description="neural, own")
    ff: int = Field(256, ge=8, le=8192, description="neural, own: width of the feed-forward layer")
    ngram_buckets: int = Field(1 << 16, ge=0, le=1 << 24, description="neural, own: rows of the hashed n-gram table")
    max_length: int = Field(128, ge=4, le=8192, description="neural: tokens read at once; longer texts are read in windows")
    dropout: float = Field(0.1, ge=0, lt=1, description="neural, own: also what a text differs by from itself")
    token_dropout: float = Field(0.1, ge=0, lt=1, description="neural, own: share of characters and n-grams hidden while training")
    temperature: float = Field(0.05, gt=0, le=1, description="neural: of the contrast")
    pairs_at_once: int = Field(64, ge=2, le=4096, description="neural: pairs of a batch; each is the others' negative")
    hard: float = Field(0.5, ge=0, lt=1, description="neural: share of a batch chosen for being near the rest, from the second epoch on; texts without pairs: none")
    learning_rate: float | None = Field(None, gt=0, le=1, description="neural; none: 1e-3 from scratch, 3e-5 pretrained")
    gram_rate: float = Field(3.0, gt=0, le=100, description="neural, own: learning rate of the n-gram table, times that of the rest")
    epochs: float = Field(10.0, gt=0, le=1000, description="neural")
    decay_epochs: float | None = Field(None, gt=0, description="neural: where the learning rate reaches zero; none: at the end")
    patience: int = Field(3, ge=1, description="neural: epochs without a better valid score before stopping")
    int8: bool | Literal["auto"] = Field("auto", description="neural: int8 weights; auto: when vectors stay and it is faster")
    threads: int = Field(0, ge=0, le=256, description="neural: training threads; 0: one for a small network")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class Encoder(Model):
    """Vectors of texts."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embedding", "matching"})
    cost_rank: ClassVar[int] = 2
    Hyper: ClassVar[type[BaseModel]] = EncoderHyper
    hyper: EncoderHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.latent_: Latent | None = None
        self.tokens_: Tokens | None = None
        self.onnx_: bytes = b""
        self.size_: int = self.hyper.max_length
        self.int8_: bool = False
        self.check_: dict[str, npt.NDArray[Any]] | None = None
        """What an int8 network must answer where it is loaded."""
        self.curve_: dict[str, npt.NDArray[Any]] | None = None
        """From cosine to probability or grade, for matching."""
        self.found_: dict[str, Any] = {}
        self._session: Session | None = None

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Without a network first; then a small one, then every pretrained directory."""
        light = EncoderHyper(min_count=2 if shape.rows >= 500 else 1)  # pyright: ignore[reportCallIssue]
        yield light
        yield light.model_copy(update={"ngram_max": 3, "long_weight": 0.6})
        characters = max(1.0, shape.rows * shape.length_mean)
        epochs = float(round(np.clip(3e6 / characters, 3, 20)))
        buckets = 1 << int(np.clip(np.log2(characters / 4), 12, 18))
        longest = min(256, max(32, shape.length_max))
        if shape.rows >= 1000:
            yield EncoderHyper(kind="neural", dimension=256, ngram_buckets=buckets, epochs=epochs, max_length=longest)  # pyright: ignore[reportCallIssue]
        for folder in shape.pretrained:
            yield EncoderHyper(kind="neural", pretrained=str(folder), dimension=256, epochs=min(3.0, epochs), max_length=longest)  # pyright: ignore[reportCallIssue]

    @classmethod
    def space(cls, shape: DataShape) -> Space:  # noqa: ARG003 the same for every shape
        """The light kind's reach and flatness."""
        return {
            "dimension": Choice((128, 256, 384, 512)),
            "ngram_max": Integer(1, 4),
            "long_weight": Float(0.1, 1.0, log=True),
            "flat": Float(0.0, 1.0),
            "bend": Choice((False, True)),
        }

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Learn from texts alone, or from pairs with or without labels or grades.

        Raises:
            Invalid: `model.no-examples`, `model.too-few-labels` (matching), `neural.pretrained-missing` and its like.
            Unsupported: `model.needs-package`.

        Cost: ``tfidf-svd`` a second for 1,000 texts, a minute for 60,000.
        """
        curve = curve or Curve()
        labels = trainable_labels(train)
        self.labels_ = labels if self.task == "matching" else []
        valid = valid if valid is not None and len(valid) and (valid.grades or valid.labels) and valid.texts_b else None
        judged = valid
        if self.task == "matching" and valid is None and len(train) >= LEAST_SPLIT:  # vectors know the pairs they learned from: probabilities need others
            order = np.random.default_rng(self.seed).permutation(len(train)).tolist()
            judged, train = train.take(order[: len(train) // 5]), train.take(order[len(train) // 5 :])
        if self.hyper.kind == "neural":
            self._fit_network(train, valid, curve)
        else:
            self._fit_latent(train, curve)
        if self.task == "matching":
            self._fit_curve(train, judged)
        return self

    def _fit_latent(self, train: Examples, curve: Curve) -> None:
        h = self.hyper
        texts = [*train.texts, *train.texts_b]
        latent = Latent.learn(texts, dimension=h.dimension, longest=h.ngram_max, min_count=h.min_count, long_weight=h.long_weight, flat=h.flat, seed=self.seed)
        curve.point(1)
        grades = _grades_of(train)
        if h.bend and grades is not None and not curve.late():
            alike = np.flatnonzero(grades >= ALIKE).tolist()
            latent = latent.adapted([train.texts[i] for i in alike], [train.texts_b[i] for i in alike])
        self.latent_ = latent

    def _fit_network(self, train: Examples, valid: Examples | None, curve: Curve) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: see the transformer family
        from wenfang.models.sentences import Pairs, train_sentences

        grades = _grades_of(train) if train.texts_b else None
        pairs = Pairs(train.texts, train.texts_b or train.texts, None if grades is None else grades.astype(np.float32))

        def score(run: Any, tokens: Tokens, size: int) -> float:
            assert valid is not None
            one, two = (sentence_vectors(run, tokens, side, size=size, budget_tokens=4096) for side in (valid.texts, valid.texts_b))
            wanted = _grades_of(valid)
            return 0.0 if wanted is None else rank_correlation(np.einsum("nh,nh->n", one, two), wanted)

        learned = train_sentences(self.hyper, pairs, seed=self.seed, curve=curve, score=None if valid is None or _grades_of(valid) is None else score)
        self.tokens_, self.size_, self.onnx_, self.int8_, self.found_ = learned.tokens, learned.size, learned.onnx, learned.int8, learned.found
        self.check_ = learned.check

    def _fit_curve(self, train: Examples, valid: Examples | None) -> None:
        """From cosine to probability, on pairs that the vectors did not learn from where there are such."""
        from wenfang.models.soft_targets import Design, learn

        known = set(self.labels_)
        judged = train if valid is None else valid.take([i for i in range(len(valid)) if not known or valid.labels[i] in known])
        judged = judged if len(judged) else train
        raw = _powers(self._cosines(judged.texts, judged.texts_b))
        mean, spread = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-6)
        number = {label: i for i, label in enumerate(self.labels_)}
        grades = np.array(judged.grades, np.float64)
        targets = np.eye(len(number))[[number[y] for y in judged.labels]] if number else np.stack([1 - grades, grades], axis=1)
        none = Bags(np.zeros(len(judged) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        design = Design((raw - mean) / spread, none, 1, targets, np.array(judged.weights or [1.0] * len(judged)))
        found = learn(design, None, c=1.0, sharpness=None, watch=lambda _c, _loss: False)
        self.curve_ = {"mean": mean, "spread": spread, "weights": found.dense, "bias": found.bias}

    def _cosines(self, texts: Sequence[str], texts_b: Sequence[str]) -> F64:
        one, two = self.vectors(texts), self.vectors(texts_b)
        return np.clip(np.add.reduce(one.astype(np.float64) * two, axis=1), -1.0, 1.0)

    def vectors(self, texts: Sequence[str]) -> F32:
        """Vectors of length one, shape (B, H).

        Raises:
            Invalid: `model.not-fitted`.
        """
        if self.latent_ is not None:
            return self.latent_.vectors(texts)
        if self.tokens_ is None:
            raise Invalid("model.not-fitted", family="encoder")
        self._session = self._session or Session(self.onnx_)
        # int8 scales come from the whole batch, so a text's vector would depend on its neighbours: alone
        return sentence_vectors(self._session, self.tokens_, texts, size=self.size_, budget_tokens=0 if self.int8_ else 512)

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:  # noqa: ARG002 a vector has no rivals
        """The vector of each text.

        Raises:
            Invalid: `model.pairs-wanted` when the task is matching; `model.not-fitted`.
        """
        if self.task == "matching" and len(texts):
            raise Invalid("model.pairs-wanted", family="encoder", task=self.task)
        return [Output(vector=row.tobytes()) for row in self.vectors(texts).astype("<f4")] if len(texts) else []

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """Embedding: the cosine of each pair; matching: its label with a probability, or its grade.

        Raises:
            Invalid: `model.not-fitted`.
        """
        if not len(texts):
            return []
        cosines = self._cosines(texts, texts_b)
        if self.curve_ is None:
            return [Output(score=c) for c in cosines.tolist()]
        c = self.curve_
        shares = softmax(np.add.reduce(((_powers(cosines) - c["mean"]) / c["spread"])[:, :, None] * c["weights"], axis=1) + c["bias"], 1.0)
        return classified(self.labels_, shares, top_k) if self.labels_ else [Output(score=g) for g in shares[:, 1].tolist()]

    def save(self, folder: Path) -> None:
        """``latent.safetensors``, or ``model.onnx`` and ``tokens.json`` (int8: ``check.safetensors``); for matching ``curve.safetensors``."""
        if self.latent_ is not None:
            save_arrays(folder / "latent.safetensors", {"keys": self.latent_.index.keys, "table": self.latent_.table})
        else:
            assert self.tokens_ is not None
            write_file(folder / "model.onnx", self.onnx_)
            head = {"size": self.size_, "int8": self.int8_, "tokens": self.tokens_.to_json(), "found": self.found_}
            write_file(folder / "tokens.json", json.dumps(head, ensure_ascii=True).encode())
            for name, data in self.tokens_.files().items():
                write_file(folder / name, data)
        if self.check_ is not None:
            save_arrays(folder / "check.safetensors", self.check_)
        if self.curve_ is not None:
            save_arrays(folder / "curve.safetensors", self.curve_)

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote; numpy, and for networks onnxruntime.

        Raises:
            Broken: `model.damaged`, `neural.bad-tokens`, `neural.bad-graph`, `neural.int8-differs`.
        """
        model = cls(hyper, task=task)
        model.labels_ = labels
        if model.hyper.kind == "tfidf-svd":
            a = load_arrays(folder / "latent.safetensors", LATENT)
            if len(a["keys"]) != len(a["table"]):
                raise Broken("model.damaged", file="latent.safetensors", reason="shapes")
            model.latent_ = Latent(GramIndex(a["keys"]), a["table"], model.hyper.ngram_max)
        else:
            model._load_network(folder)
        if task == "matching":
            model.curve_ = load_arrays(folder / "curve.safetensors", CURVE)
            if model.curve_["weights"].shape != (2, len(labels) or 2):
                raise Broken("model.damaged", file="curve.safetensors", reason="shapes")
        return model

    def _load_network(self, folder: Path) -> None:
        try:
            head = json.loads((folder / "tokens.json").read_bytes())
            self.size_, self.int8_, self.found_ = head["size"], head["int8"], head["found"]
            self.tokens_ = tokens_from_json(head["tokens"], {p.name: p.read_bytes() for p in folder.glob("tokenizer.json")})
            self.onnx_ = (folder / "model.onnx").read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("neural.bad-tokens", reason=type(e).__name__) from e
        self._session = Session(self.onnx_)
        if self.int8_:
            self.check_ = load_arrays(folder / "check.safetensors", FORMAT)
            verify(self._session, self.check_)

    def libraries(self) -> Sequence[str]:
        """Torch, where there is a network."""
        return TORCH if self.hyper.kind == "neural" else LOOPS[1:]

    def refit_hyper(self) -> BaseModel:
        """The same with the best epoch and the choice of int8 fixed."""
        if not self.found_:
            return self.hyper
        return self.hyper.model_copy(update={"epochs": self.found_["best_epoch"], "decay_epochs": self.found_["decay_epochs"], "int8": self.int8_})

    def environment(self) -> Mapping[str, str]:
        """Versions of what shaped the result."""
        names = ("numpy", "scipy") if self.hyper.kind == "tfidf-svd" else ("torch", "numpy", "onnxruntime", *(("transformers", "tokenizers") if self.hyper.pretrained else ()))
        return {name: version(name) for name in names}


def _grades_of(examples: Examples) -> F64 | None:
    """How alike each pair is, 0..1: grades, numbers as labels, or which of two labels; None where pairs only stand together."""
    if examples.grades:
        return np.array(examples.grades, np.float64)
    names = examples.label_names()
    if len(names) < 2 or not examples.texts_b:
        return None
    try:
        place = {name: float(name) for name in names}
    except ValueError:
        if len(names) > 2:
            return None
        alike = _alike(examples, names)
        place = {name: float(name == alike) for name in names}
    low, high = min(place.values()), max(place.values())
    return np.array([(place[y] - low) / max(1e-12, high - low) for y in examples.labels])


def _alike(examples: Examples, names: Sequence[str]) -> str:
    """Which of two labels says that texts are alike: the one whose pairs share more characters."""
    part = examples.take(range(min(2000, len(examples))))
    c = compare(part.texts, part.texts_b, 1)
    both, all_ = (np.bincount(c.pair, values, len(part)) for values in (np.minimum(c.left, c.right), np.maximum(c.left, c.right)))
    overlap = both / np.maximum(all_, 1.0)
    means = [float(overlap[chosen].mean()) if (chosen := np.array([y == name for y in part.labels])).any() else 0.0 for name in names]
    return names[int(np.argmax(means))]


def _powers(cosines: F64) -> F64:
    return np.stack([cosines, cosines * np.abs(cosines)], axis=1)
