"""The ``transformer`` family: our own small encoder from scratch, or a local pretrained directory, with a softmax or CRF head.

Trains with torch; answers with onnxruntime, right after training too, so that what is measured is what is served.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import classified, several, trainable_labels
from wenfang.models.base import Curve, DataShape, Finding, Hyper, Model
from wenfang.models.loading import TORCH
from wenfang.models.neural.answering import Answerer, spans_of_tokens
from wenfang.models.neural.paths import Transitions
from wenfang.models.neural.questions import questions_of
from wenfang.models.neural.selfcheck import FORMAT, verify
from wenfang.models.neural.session import BUDGETS, CHECKED, Session, Width, width_of
from wenfang.models.neural.stored_tokens import tokens_from_json
from wenfang.models.neural.tokens import Tokens
from wenfang.models.neural.vocabulary import Vocabulary
from wenfang.models.space import Choice, Dimension, Float, Integer, Space
from wenfang.models.tags import TagSet
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Transformer"]

AT_ONCE = 512
"""Texts whose outputs are held in memory together."""
SPACED = 0.5
"""Share of texts in spaced scripts above which words are read."""


class TransformerHyper(Hyper):
    """Hyper-parameters; ``None`` chooses by what is trained."""

    pretrained: str | None = Field(None, description="local directory of the transformers library or of our own pre-training; None: from scratch")
    lora_rank: int = Field(0, ge=0, le=256, description="directory of the transformers library: train low-rank differences of this rank; 0: all weights")
    vocabulary: Vocabulary = Field(
        "whole",
        description="directory of the transformers library: tokens to keep; characters: all single ones, and longer ones that training texts have; seen: of characters beyond ASCII only those, too",
    )
    layers: int = Field(2, ge=0, le=24, description="own encoder")
    hidden: int = Field(128, ge=8, le=2048, description="own encoder; a multiple of heads")
    heads: int = Field(4, ge=1, le=32, description="own encoder")
    ff: int = Field(512, ge=8, le=8192, description="own encoder: width of the feed-forward layer")
    ngram_buckets: int | None = Field(None, ge=0, le=1 << 24, description="own encoder: rows of the hashed n-gram table; 0: characters alone; None: 65536 to classify, 0 to tag")
    min_count: int = Field(2, ge=1, description="own encoder: rarer characters are unknown")
    head: Literal["crf", "softmax"] = Field("crf", description="tagging")
    unit: Literal["character", "word"] = Field("character", description="own encoder from scratch: what a token is; words suit scripts that write blanks between them")
    attention: Literal["bias", "signed"] = Field(
        "bias", description="own encoder from scratch: bias: scaled scores and a learned bias by signed distance; signed: unscaled, and content meets signed distances, too (TENER)"
    )
    max_length: int = Field(256, ge=4, le=8192, description="tokens read at once; longer texts are read in windows")
    dropout: float = Field(0.3, ge=0, lt=1)
    token_dropout: float = Field(0.3, ge=0, lt=1, description="own encoder: share of characters and n-grams hidden while training")
    gram_rate: float = Field(1.0, gt=0, le=100, description="own encoder: learning rate of the n-gram table, times that of the rest")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="classification, and tagging without a CRF")
    class_weights: bool = Field(False, description="classification: rare classes weigh more")
    loss: Literal["cross-entropy", "focal", "class-balanced", "ldam"] = Field("cross-entropy", description="classification")
    focal_gamma: float = Field(2.0, ge=0, le=10, description="focal loss: how much sure answers fade")
    margin: float = Field(1.0, ge=0, le=100, description="ldam: how far the rarest class must lead")
    aggregate: Literal["mean", "vote", "max"] = Field("mean", description="how the windows of a long text become one answer; tagging stitches them")
    threshold: float | None = Field(None, gt=0, lt=1, description="multilabel: probability from which on a label is said; None: chosen on valid")
    logit_adjustment: float = Field(0.0, ge=0, le=5, description="classification: times the log prior, added to the scores while training")
    guide: str | None = Field(
        None, description="unpacked bundle of a transformer whose hidden states are to be matched while learning; labels, label sets and tags of single texts"
    )
    guide_weight: float = Field(1.0, gt=0, le=1000, description="how much the distance to the guide's states counts beside the loss")
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="None: 1e-3 from scratch, 5e-4 after our own pre-training, 3e-5 from a directory of the transformers library, 3e-4 with lora"
    )
    weight_decay: float = Field(0.01, ge=0, le=1)
    layer_decay: float = Field(1.0, gt=0, le=1, description="pretrained: factor on the learning rate for each layer further down")
    batch_tokens: int = Field(1024, ge=8, description="padded tokens of a batch")
    accumulate: int = Field(1, ge=1, le=1024, description="batches of one step")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights; 0: none")
    r_drop: float = Field(0.0, ge=0, le=100, description="weight of the disagreement between two passes under different dropout; 0: one pass")
    fgm: float = Field(0.0, ge=0, le=100, description="length of the adversarial step on the token vectors; 0: none")
    save_memory: bool = Field(False, description="compute layers again going back instead of keeping their states")
    epochs: float = Field(10.0, gt=0, le=1000)
    decay_epochs: float | None = Field(None, gt=0, description="where the learning rate reaches zero; None: at the end")
    patience: int = Field(3, ge=1, description="epochs without a better valid score before stopping")
    width: Width | Literal["auto"] = Field(
        "auto", description="of the weights that are served; int8 finds its scales at each call, int8-static has learned them; auto: the fastest here that keeps the valid score"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="arithmetic of training; auto: what the machine gains by; fp16 comes with loss scaling")
    threads: int = Field(0, ge=0, le=256, description="training threads; 0: one for a small network, else the cores this process may use")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.attention == "signed" and self.hidden // self.heads % 2:
            raise ValueError(f"signed attention needs an even width of heads, and hidden ({self.hidden}) over heads ({self.heads}) is odd")
        return self


class Transformer(Model):
    """Attention over characters or subwords."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "multilabel", "tagging", "matching"})
    cost_rank: ClassVar[int] = 10
    Hyper: ClassVar[type[BaseModel]] = TransformerHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.tokens_: Tokens | None = None
        self.onnx_: bytes = b""
        self.chain_: Transitions | None = None
        self.size_: int = self.hyper.max_length
        self.width_: Width = "fp32"
        self.threshold_: float = 0.5
        self.check_: dict[str, Any] | None = None
        self.found_: dict[str, Any] = {}
        """What training found: best epoch, speed, padding, and what each width took."""
        self._answerer: Answerer | None = None

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Small ones first, then deeper ones, then every pretrained directory."""
        longest = min(256, max(32, shape.length_max))
        characters = max(1.0, shape.rows * shape.length_mean)
        if shape.task != "tagging":  # n-grams carry the topic; hiding half of them keeps the network from learning them by heart
            buckets = 1 << int(np.clip(np.log2(characters / 4), 12, 18))
            epochs = float(round(np.clip(6e6 / characters, 4, 30)))
            small = TransformerHyper(layers=1, learning_rate=1e-3, max_length=longest, epochs=epochs, ngram_buckets=buckets, token_dropout=0.5, label_smoothing=0.1)  # pyright: ignore[reportCallIssue]
        else:  # n-grams of few sentences are learned by heart: characters alone tag better
            epochs = float(round(np.clip(1.5e6 / characters, 6, 30)))
            small = TransformerHyper(layers=2, learning_rate=1e-3, max_length=longest, epochs=epochs, ngram_buckets=0, patience=5)  # pyright: ignore[reportCallIssue]
        by_character = small
        if shape.spaced > SPACED:  # few words carry what many letters do; their pieces stand beside them
            small = small.model_copy(
                update={"unit": "word", "min_count": 2, "ngram_buckets": 1 << 16, "token_dropout": 0.3, "max_length": max(32, longest // 3), "epochs": min(30.0, 2 * epochs)}
            )
        yield small
        if shape.guide is not None:
            yield small.model_copy(update={"guide": str(shape.guide)})
        if shape.task == "tagging":  # yet with half of them hidden, and weights averaged, they help where sentences are many
            yield small.model_copy(update={"ngram_buckets": 1 << 16, "token_dropout": 0.5, "average": 0.99})
        yield small.model_copy(update={"layers": 4, "hidden": 256, "ff": 1024, "learning_rate": 5e-4})
        for folder in shape.pretrained:
            if (folder / "encoder.json").is_file():  # small, of our own making: learns as long as one from scratch, and needs less hiding
                yield by_character.model_copy(
                    update={"pretrained": str(folder), "dropout": 0.2, "token_dropout": min(0.3, by_character.token_dropout), "average": 0.99, "learning_rate": 1e-3}
                )
            else:
                yield TransformerHyper(pretrained=str(folder), max_length=longest, epochs=min(5.0, epochs))  # pyright: ignore[reportCallIssue]

    @classmethod
    def space(cls, shape: DataShape) -> Space:
        """Rates, and how much is hidden while learning; for classes also the kin of the loss."""
        space: dict[str, Dimension] = {
            "learning_rate": Float(2e-4, 3e-3, log=True), "dropout": Float(0.1, 0.5), "token_dropout": Float(0.0, 0.6), "average": Choice((0.0, 0.99)), "layers": Integer(1, 4),
            "weight_decay": Float(0.001, 0.1, log=True), "batch_tokens": Integer(512, 4096, log=True),
        }  # fmt: skip
        if shape.task in {"classification", "matching"} and not shape.graded:
            space |= {"label_smoothing": Float(0.0, 0.2), "class_weights": Choice((False, True)), "logit_adjustment": Choice((0.0, 0.5, 1.0))}
        return space

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Learn from ``train``, stop by ``valid``, and check that ONNX answers as torch does.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`, `neural.pickled-weights` and its like.
            Broken: `neural.onnx-differs`.
        """
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: threads that spin at barriers crawl on a busy machine (40 times slower, measured)
        from wenfang.models.neural.fitting import fit_network

        self.labels_ = trainable_labels(train)
        learned = fit_network(self.hyper, train, valid, labels=self.labels_, seed=self.seed, curve=curve or Curve())
        self.tokens_, self.onnx_, self.chain_ = learned.tokens, learned.onnx, learned.chain
        self.size_, self.width_, self.found_ = learned.size, learned.width, learned.found
        self.threshold_, self.check_ = learned.threshold, learned.check
        self._answerer = None
        return self

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each text, in order.

        Args:
            texts: B strings.
            top_k: classification: how many labels go into ``Output.scores``.

        Cost: one pass of the network for each window of ``max_length`` tokens.
        """
        if not len(texts):
            return []
        if self.task == "matching":
            raise Invalid("model.pairs-wanted", family=self.name, task=self.task)
        answers: list[Output] = []
        for start in range(0, len(texts), AT_ONCE):
            answers += self._answer(list(texts[start : start + AT_ONCE]), [], top_k)
        return answers

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each pair, in order: its label, or its grade.

        Args:
            texts: B strings.
            texts_b: B strings.
            top_k: how many labels go into ``Output.scores``.
        """
        if self.task != "matching":
            return super().match(texts, texts_b, top_k=top_k)
        answers: list[Output] = []
        for start in range(0, len(texts), AT_ONCE):
            cut = slice(start, start + AT_ONCE)
            answers += self._answer(list(texts[cut]), list(texts_b[cut]), top_k)
        return answers

    def _answer(self, texts: list[str], texts_b: list[str], top_k: int) -> list[Output]:
        answerer = self._ready()
        questions = questions_of(answerer.tokens, texts, texts_b, size=self.size_)
        if self.chain_ is None:
            sigmoid = self.task == "multilabel" or not self.labels_
            probabilities = answerer.probabilities(questions, sigmoid=sigmoid, aggregate=self.hyper.aggregate)
            if not self.labels_:
                return [Output(score=g) for g in probabilities[:, 0].tolist()]
            return several(self.labels_, probabilities, self.threshold_, top_k) if sigmoid else classified(self.labels_, probabilities, top_k)
        tags = TagSet(tuple(self.labels_))
        paths, scores = answerer.tag_paths(questions.encoded, self.chain_)
        return [
            Output(spans=spans_of_tokens(tags.decode(path), text_tokens, text), score=score)
            for path, score, text_tokens, text in zip(paths, scores.tolist(), questions.encoded, texts, strict=True)
        ]

    def _ready(self) -> Answerer:
        if self._answerer is None:
            if self.tokens_ is None:
                raise Broken("neural.bad-tokens", reason="not fitted")
            self._answerer = Answerer(Session(self.onnx_), self.tokens_, size=self.size_, budget_tokens=BUDGETS[self.width_])
        return self._answerer

    def save(self, folder: Path) -> None:
        """``model.onnx``, ``tokens.json``, for tagging ``transitions.safetensors``, for subwords ``tokenizer.json``."""
        tokens = self._ready().tokens
        write_file(folder / "model.onnx", self.onnx_)
        head = {"size": self.size_, "width": self.width_, "threshold": self.threshold_, "tokens": tokens.to_json(), "found": self.found_}
        write_file(folder / "tokens.json", json.dumps(head, ensure_ascii=True).encode())
        for name, data in tokens.files().items():
            write_file(folder / name, data)
        if self.check_ is not None:
            save_arrays(folder / "check.safetensors", self.check_)
        if self.chain_ is not None:
            from safetensors.numpy import save

            write_file(folder / "transitions.safetensors", save({"start": self.chain_.start, "end": self.chain_.end, "step": self.chain_.step}))

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote; onnxruntime and numpy only.

        Raises:
            Broken: `neural.bad-tokens`, `neural.bad-graph`, `neural.int8-differs`.
        """
        model = cls(hyper, task=task)
        model.labels_ = labels
        try:
            head = json.loads((folder / "tokens.json").read_bytes())
            model.size_, model.width_, model.found_ = head["size"], width_of(head["width"]), head["found"]
            model.threshold_ = float(head["threshold"])
            files = {p.name: p.read_bytes() for p in folder.glob("tokenizer.json")}
            model.tokens_ = tokens_from_json(head["tokens"], files)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("neural.bad-tokens", reason=type(e).__name__) from e
        model.onnx_ = (folder / "model.onnx").read_bytes()
        if task == "tagging":
            from safetensors.numpy import load

            chain = load((folder / "transitions.safetensors").read_bytes())
            model.chain_ = Transitions(chain["start"], chain["end"], chain["step"])
        answerer = model._ready()
        if model.width_ in CHECKED:
            model.check_ = load_arrays(folder / "check.safetensors", FORMAT)
            verify(answerer.run, model.check_)
        return model

    def libraries(self) -> Sequence[str]:
        """Torch."""
        return TORCH

    def refit_hyper(self) -> BaseModel:
        """The same with the best epoch, the schedule's end and the width fixed."""
        if not self.found_:
            return self.hyper
        fixed = {"epochs": self.found_["best_epoch"], "decay_epochs": self.found_["decay_epochs"], "width": self.width_}
        return self.hyper.model_copy(update=fixed | ({"threshold": self.threshold_} if self.task == "multilabel" else {}))

    def findings(self) -> list[Finding]:
        """What was cut from the vocabulary, and why the weights have the width they have."""
        cut = self.found_.get("vocabulary")
        found: list[Finding] = [] if cut is None else [("neural.vocabulary-cut", dict(cut))]
        if self.hyper.guide is not None and self.found_:
            found.append(("neural.guided", {"weight": self.hyper.guide_weight}))
        told = {t["width"]: t for t in self.found_.get("widths", ())}
        if not told or "score" not in told["fp32"]:
            return found
        own, whole = told[self.width_], told["fp32"]
        fields = {"width": self.width_, "us": own["us"], "whole_us": whole["us"], "kb": own["size_bytes"] // 1024, "whole_kb": whole["size_bytes"] // 1024}
        key = "neural.width-whole" if self.width_ == "fp32" else "neural.width-taken"
        rest = ", ".join(f"{t['width']} {t['us']} µs" + (f" ({100 * t['score']:.2f})" if "score" in t else "") for t in told.values() if t is not own and t is not whole)
        return [*found, (key, {**fields, "score": round(100 * own["score"], 2), "whole_score": round(100 * whole["score"], 2), "rest": rest or "-"})]

    def environment(self) -> Mapping[str, str]:
        """Versions of what shaped the result."""
        names = ("torch", "numpy", "onnxruntime", *(("transformers", "tokenizers") if self.hyper.pretrained else ()))
        return {name: version(name) for name in names}
