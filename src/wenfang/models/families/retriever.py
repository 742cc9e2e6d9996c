"""Smart reply: answers a conversation with replies that were given before, by what was said when they were given. No torch.

The library is the set of distinct replies, near-duplicates merged, the rarest cut. A conversation is compared with every one that was
learned from; the nearest ones vote for their replies, a reply itself may be near, and frequent replies have a head start. Below a
floor chosen on held-out conversations it says nothing. Source: the vote is k-nearest-neighbour classification with a softmax kernel.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from wenfang.core.conversation import Generation, conversation
from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output, Reply
from wenfang.core.records import Task
from wenfang.core.text import fold
from wenfang.models.answers import trainable_labels
from wenfang.models.base import Curve, DataShape, Emit, Hyper, Model
from wenfang.models.features import GramIndex
from wenfang.models.latent import Latent
from wenfang.models.nearest import top_rows
from wenfang.models.space import Choice, Float, Integer, Space
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Retriever"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEAST_HELD = 30
"""Held-out conversations below which the floor stays at nothing."""
LEAST_RIGHT = 20
"""Right replies to held-out conversations from which on caution can be measured."""
FORMAT = {
    "keys": (np.uint64, 1), "table": (np.float16, 2), "asked": (np.int8, 2), "asked_scale": (np.float32, 1), "reply_of": (np.int32, 1), "weight": (np.float32, 1), "replies": (np.int8, 2),
    "replies_scale": (np.float32, 1), "prior": (np.float32, 1), "floor": (np.float64, 1),
}  # fmt: skip
BLANKS = re.compile(r"\s+")
ENDS = " .。!！?？~～,，…"


class RetrieverHyper(Hyper):
    """What can be chosen."""

    dimension: int = Field(384, ge=2, le=4096, description="numbers of a vector")
    ngram_max: int = Field(2, ge=1, le=5, description="longest character n-gram")
    long_weight: float = Field(1.0, gt=0, le=2, description="weight of a two-character gram against a single one")
    turns: int = Field(3, ge=1, le=16, description="messages of a conversation that are read, the last ones")
    fading: float = Field(0.4, ge=0, le=1, description="weight of a message against the one after it")
    neighbours: int = Field(128, ge=1, le=1024, description="learned conversations that vote")
    sharpness: float = Field(20.0, gt=0, le=200, description="how much more the nearer ones count")
    itself: float = Field(0.2, ge=0, le=2, description="weight of the likeness of a reply itself to what was said")
    prior: float = Field(0.6, ge=0, le=2, description="weight of how often a reply was given (logarithm)")
    library_max: int = Field(50_000, ge=2, le=1_000_000, description="replies kept, the most frequent ones")
    caution: float = Field(0.02, ge=0, lt=1, description="share of right replies that may be held back so that doubtful ones are; 0: none")
    precision: float = Field(0.0, ge=0, le=1, description="of replies that are shown, the share that must be right; 0: no demand")
    floor: float | None = Field(None, ge=0, le=1, description="probability below which nothing is said; none: chosen on valid, or on a tenth of train")


class Retriever(Model):
    """A library of replies."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"chat"})
    cost_rank: ClassVar[int] = 1
    Hyper: ClassVar[type[BaseModel]] = RetrieverHyper
    hyper: RetrieverHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.latent_: Latent | None = None
        self.replies_: list[str] = []
        self.floor_: float = 0.0
        self._unpacked: tuple[F32, F32] | None = None

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:  # noqa: ARG003 the same for every shape
        """Other weights around one guess."""
        guess = RetrieverHyper()  # pyright: ignore[reportCallIssue]
        return [guess, guess.model_copy(update={"itself": 0.0}), guess.model_copy(update={"prior": 0.1}), guess.model_copy(update={"turns": 1})]

    @classmethod
    def space(cls, shape: DataShape) -> Space:  # noqa: ARG003 the same for every shape
        """How much of the conversation counts, and who votes."""
        return {
            "turns": Integer(1, 6), "fading": Float(0.1, 0.9), "neighbours": Integer(8, 512, log=True), "sharpness": Float(5.0, 50.0, log=True), "itself": Float(0.0, 0.6),
            "prior": Float(0.0, 1.5), "ngram_max": Integer(1, 3), "dimension": Choice((256, 384, 512)),
        }  # fmt: skip

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Learn the directions, index the conversations, choose the floor.

        Raises:
            Invalid: `model.no-examples`.
            Unsupported: `model.needs-package`.

        Cost: 10,000 short conversations take about 15 CPU-seconds.
        """
        curve = curve or Curve()
        trainable_labels(train)
        h = self.hyper
        held = valid if valid is not None and len(valid) else None
        if h.floor is None and held is None and len(train) >= 10 * LEAST_HELD:
            order = np.random.default_rng(self.seed).permutation(len(train))
            held = train.take(order[: len(train) // 10].tolist())
            self._index(train.take(order[len(train) // 10 :].tolist()))
            self.floor_ = self._choose_floor(held)
            curve.point(0.5)
            if curve.late():
                return self
            self._index(train)
        else:
            self._index(train)
            self.floor_ = self._choose_floor(held) if h.floor is None else h.floor
        curve.point(1)
        return self

    def _index(self, train: Examples) -> None:
        h = self.hyper
        counts = Counter[str]()
        for target, weight in zip(train.targets, train.weights or [1.0] * len(train), strict=True):
            counts[target] += weight  # pyright: ignore[reportArgumentType]  # weights are shares of a count
        names: dict[str, str] = {}
        for target, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            names.setdefault(_outline(target), target)
        merged = Counter[str]()
        for target, count in counts.items():
            merged[names[_outline(target)]] += count
        kept = sorted(merged.items(), key=lambda item: (-item[1], item[0]))[: h.library_max]
        self.replies_ = [target for target, _ in kept]
        number = {target: i for i, target in enumerate(self.replies_)}
        rows = [(i, number[name]) for i, target in enumerate(train.targets) if (name := names[_outline(target)]) in number]
        words = [m.content for text in train.texts for m in conversation(text)[-h.turns :]]
        self.latent_ = Latent.learn(
            [*words, *self.replies_], dimension=h.dimension, longest=h.ngram_max, min_count=2 if len(train) >= 500 else 1, long_weight=h.long_weight, flat=0.5, seed=self.seed
        )
        self.reply_of_: npt.NDArray[np.int32] = np.array([r for _, r in rows], np.int32)
        self.weight_: F32 = np.array([train.weights[i] if train.weights else 1.0 for i, _ in rows], np.float32)
        self.asked_, self.asked_scale_ = _small(self._contexts([train.texts[i] for i, _ in rows]))
        self._unpacked = None
        self.own_, self.own_scale_ = _small(self.latent_.vectors(self.replies_))
        self.prior_: F32 = np.log1p(np.array([c for _, c in kept], np.float64)).astype(np.float32)

    def _wide(self) -> tuple[F32, F32]:
        """The small vectors as numbers: conversations, replies."""
        if self._unpacked is None:
            self._unpacked = self.asked_ * self.asked_scale_[:, None], self.own_ * self.own_scale_[:, None]
        return self._unpacked

    def _contexts(self, texts: Sequence[str]) -> F32:
        """Vectors of conversations: their last messages, earlier ones fading, shape (B, H)."""
        assert self.latent_ is not None
        turns = [[m.content for m in conversation(text)[-self.hyper.turns :]] for text in texts]
        flat = self.latent_.vectors([t for messages in turns for t in messages])
        out = np.zeros((len(texts), self.latent_.dimension), np.float32)
        at = 0
        for i, messages in enumerate(turns):
            for back in range(len(messages)):
                out[i] += np.float32(self.hyper.fading**back) * flat[at + len(messages) - 1 - back]
            at += len(messages)
        lengths = np.sqrt((out.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        return (out / np.maximum(lengths, 1e-9)).astype(np.float32)

    def _scores(self, context: F32) -> tuple[I64, F64]:
        """Replies that one conversation speaks for, best first, with probabilities among all that were considered."""
        h = self.hyper
        near, cosines = top_rows(context, self._wide()[0], min(h.neighbours, len(self.asked_)))
        votes = np.exp(h.sharpness * (cosines - 1.0)) * self.weight_[near]
        voted, place = np.unique(self.reply_of_[near], return_inverse=True)
        more = np.zeros(0, np.int64)
        if h.itself:
            more, _ = top_rows(context, self._wide()[1], min(8, len(self.own_)))
        considered = np.union1d(voted, more)
        vote = np.zeros(len(considered))
        np.add.at(vote, np.searchsorted(considered, voted)[place], votes)
        likeness = self._wide()[1][considered] @ context
        score = np.log(vote + np.exp(-h.sharpness)) / h.sharpness + h.itself * likeness + h.prior * self.prior_[considered] / h.sharpness
        share = np.exp(h.sharpness * (score - score.max()))
        share *= min(1.0, float(np.exp(h.sharpness * (float(cosines.max(initial=-1.0)) - 1.0)) ** 0.25)) / share.sum()
        order = np.lexsort((considered, -share))
        return considered[order].astype(np.int64), share[order]

    def _choose_floor(self, held: Examples | None) -> float:
        """The probability below which hardly any right reply lies; higher if only so the demanded share of shown replies is right."""
        if held is None or len(held) < LEAST_HELD:
            return 0.0
        shares, right = np.zeros(len(held)), np.zeros(len(held), np.bool_)
        for i, (context, wanted) in enumerate(zip(self._contexts(held.texts), held.targets, strict=True)):
            best, given = self._scores(context)
            shares[i], right[i] = given[0], _outline(self.replies_[int(best[0])]) == _outline(wanted)
        floor = float(np.quantile(shares[right], self.hyper.caution, method="lower")) if right.sum() >= LEAST_RIGHT and self.hyper.caution else 0.0
        order = np.argsort(-shares, kind="stable")
        enough = np.flatnonzero(np.cumsum(right[order]) >= self.hyper.precision * np.arange(1, len(order) + 1))
        demanded = 0.0 if not self.hyper.precision else float(shares[order[enough[-1]]]) if len(enough) else 1.0
        return max(floor, demanded)

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """The best reply to each conversation, or ``finish="none"`` where none is good enough; ``top_k`` of them as ``replies``.

        Raises:
            Invalid: `model.not-fitted`.

        Cost: a pass over the library's vectors (one byte a number) for each conversation.
        """
        if self.latent_ is None:
            raise Invalid("model.not-fitted", family="retriever")
        return [self._answer(context, top_k) for context in self._contexts(texts)] if len(texts) else []

    def _answer(self, context: F32, top_k: int) -> Output:
        rows, shares = self._scores(context)
        replies = tuple(Reply(self.replies_[int(r)], float(s)) for r, s in zip(rows[: max(1, top_k)], shares, strict=False))
        if replies[0].score < self.floor_:
            return Output(score=replies[0].score, finish="none", replies=replies if top_k > 1 else None)
        return Output(text=replies[0].text, score=replies[0].score, finish="stop", replies=replies if top_k > 1 else None)

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:  # noqa: ARG002 a score has no rivals
        """The probability of each reply to its conversation; 0 for a reply that was not considered.

        Raises:
            Invalid: `model.not-fitted`.
        """
        if self.latent_ is None:
            raise Invalid("model.not-fitted", family="retriever")
        number = {_outline(reply): i for i, reply in enumerate(self.replies_)}
        answers: list[Output] = []
        for context, reply in zip(self._contexts(texts), texts_b, strict=True):
            rows, shares = self._scores(context)
            at = np.flatnonzero(rows == number.get(_outline(reply), -1))
            answers.append(Output(score=float(shares[at[0]]) if len(at) else 0.0))
        return answers

    def generate(self, texts: Sequence[str], options: Sequence[Generation], *, emit: Emit | None = None) -> list[Output]:
        """As ``predict``: the library's replies are written already; what a caller asks of generation changes none of them.

        Raises:
            Invalid: `generation.library-no-schema` when JSON of a schema is asked for; `model.not-fitted`.
        """
        if any(o.json_schema is not None for o in options):
            raise Invalid("generation.library-no-schema")
        answers = self.predict(texts)
        for i, a in enumerate(answers):
            if emit is not None and a.text:
                emit(i, a.text)
        return answers

    def save(self, folder: Path) -> None:
        """Write ``retriever.safetensors`` and ``replies.json``."""
        assert self.latent_ is not None
        arrays: dict[str, Any] = {
            "keys": self.latent_.index.keys, "table": self.latent_.table, "asked": self.asked_, "asked_scale": self.asked_scale_, "reply_of": self.reply_of_, "weight": self.weight_,
            "replies": self.own_, "replies_scale": self.own_scale_, "prior": self.prior_, "floor": np.array([self.floor_]),
        }  # fmt: skip
        save_arrays(folder / "retriever.safetensors", arrays)
        write_file(folder / "replies.json", json.dumps(self.replies_, ensure_ascii=True).encode())

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        model.labels_ = labels
        a = load_arrays(folder / "retriever.safetensors", FORMAT)
        try:
            replies: Any = json.loads((folder / "replies.json").read_bytes())
        except (OSError, ValueError) as e:
            raise Broken("model.damaged", file="replies.json", reason=type(e).__name__) from e
        n, H = len(replies), a["table"].shape[1]
        whole = len(a["keys"]) == len(a["table"]) and a["replies"].shape == (n, H) and len(a["prior"]) == len(a["replies_scale"]) == n and a["floor"].shape == (1,)
        if (
            not whole
            or a["asked"].shape != (len(a["reply_of"]), H)
            or len(a["asked_scale"]) != len(a["reply_of"])
            or not (a["reply_of"] >= 0).all()
            or not (a["reply_of"] < n).all()
        ):
            raise Broken("model.damaged", file="retriever.safetensors", reason="shapes")
        model.replies_, model.floor_ = [str(r) for r in replies], float(a["floor"][0])
        model.latent_ = Latent(GramIndex(a["keys"]), a["table"], model.hyper.ngram_max)
        model.asked_, model.asked_scale_, model.reply_of_ = a["asked"], a["asked_scale"], a["reply_of"]
        model.weight_ = a["weight"]
        model.own_, model.own_scale_, model.prior_ = a["replies"], a["replies_scale"], a["prior"]
        return model

    def refit_hyper(self) -> BaseModel:
        """The same with the floor that valid chose."""
        return self.hyper.model_copy(update={"floor": min(1.0, self.floor_)})

    def environment(self) -> Mapping[str, str]:
        """Versions of numpy and, where it trained, of scipy."""
        import sys

        return {name: str(sys.modules[name].__version__) for name in ("numpy", "scipy") if name in sys.modules}


def _outline(text: str) -> str:
    """What two near-duplicate replies have in common: width, case, blanks and closing marks do not count."""
    return BLANKS.sub("", fold(text)).rstrip(ENDS) or text


def _small(vectors: F32) -> tuple[npt.NDArray[np.int8], F32]:
    """Vectors in one byte a number, and each one's scale."""
    scale = np.maximum(np.abs(vectors).max(axis=1, initial=0.0), 1e-12) / 127.0
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale.astype(np.float32)
