"""A linear-chain conditional random field over characters or words: the light tagger.

What it sees is a typed recipe: templates over channels (forms, shapes, beginnings and endings of words, a lexicon harvested from the
training spans, clusters of forms, what the text is about, given word lists). Templates speak for BIOES tags; transitions that BIOES
forbids have no weight and no probability. Learning is stochastic with dropped templates (AdaGrad), may end with L-BFGS (OWL-QN where
there is an L1 penalty), or is an averaged perceptron. Serving needs numpy; numba makes it faster with equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.answers import trainable_labels
from wenfang.models.base import Curve, DataShape, Hyper, Model
from wenfang.models.contexts import CHARACTERS, CLUSTERS, LEXICON, LISTS, TOPICS, WORDS, Contexts, Template
from wenfang.models.features import text_blocks
from wenfang.models.hints import FORMAT, Hints
from wenfang.models.lexicon import Terms
from wenfang.models.loading import LOOPS
from wenfang.models.places import Places, Unit, fitting_unit
from wenfang.models.space import Choice, Float, Integer, Space
from wenfang.models.spans import span_f1
from wenfang.models.tagger import Tagger
from wenfang.models.tags import Layout, TagSet
from wenfang.models.weights import load_arrays, save_arrays

__all__ = ["Crf", "CrfHyper"]

F32 = npt.NDArray[np.float32]

_CELLS_MAX = 16_000_000
"""Weights a model may hold: 32 MB in a bundle, below 1 GB while it learns."""
_BLOCK_CHARS = 1 << 14
_SUSPECT = 0.05
"""Probability from which on an ensemble hears of a span."""
_RUNS_CHEAP = 1_600_000
"""Characters times labels up to which three runs take some ten CPU-seconds: their average hangs less on the seed than one run does."""
_FORMAT = {"keys": (np.uint64, 1), "sizes": (np.int64, 1), "weights": (np.float16, 2), "transitions": (np.float32, 2), "tags": (np.int64, 1), "word": (np.uint8, 1), **FORMAT}

_VISITS = 24_000
"""Visits of sentences that fewer than 3,000 of them get at least, in up to sixty passes."""


class CrfHyper(Hyper):
    """What can be chosen about a conditional random field."""

    algorithm: Literal["sgd", "lbfgs", "perceptron"] = Field(default="sgd", description="how it learns; lbfgs begins with stochastic passes")
    c1: float = Field(default=0.05, ge=0, description="weight of the sum of absolute weights")
    c2: float = Field(default=0.05, ge=0, description="weight of the sum of squared weights")
    passes: int = Field(default=8, ge=0, le=200, description="stochastic or perceptron passes")
    runs: int = Field(default=1, ge=1, le=20, description="times that the stochastic passes begin anew, in other orders; the weights of all are averaged")
    rate: float = Field(default=0.1, gt=0, description="step of the stochastic passes")
    dropout: float = Field(default=0.4, ge=0, lt=1, description="share of templates that stay silent at each place of a stochastic visit")
    iterations: int = Field(default=40, ge=0, le=1000, description="quasi-Newton iterations")
    min_count: int = Field(default=1, ge=1, description="a reading must stand at that many places; three forms together at one more")
    floor: float = Field(
        default=0.4, ge=0, lt=1, description="probability that a span needs to be told: half the F1 to be expected makes it highest; 0: the spans of the best path"
    )
    unit: Unit | None = Field(default=None, description="what is tagged: characters or words; none: words where texts are spelled and spans end with words")
    templates: tuple[Template, ...] | None = Field(default=None, min_length=1, max_length=200, description="what is seen; none: forms and shapes that suit the unit")
    lexicon: bool = Field(default=True, description="also see terms that the training spans taught")
    clusters: bool = Field(default=True, description="also see clusters of forms")
    topics: bool | None = Field(default=None, description="also see which labels the whole text makes likely; none: where words are tagged")
    words: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="also see the words of these lists, by name")

    def recipe(self, unit: Unit) -> tuple[Template, ...]:
        """All templates of a model that tags such units, without repetition."""
        own = self.templates or (WORDS if unit == "word" else CHARACTERS)
        more = [(self.lexicon, LEXICON), (self.clusters, CLUSTERS), (unit == "word" if self.topics is None else self.topics, TOPICS), (bool(self.words), LISTS)]
        found = dict.fromkeys([*own, *(t for wanted, group in more if wanted for t in group)])
        silent = set[str]() if self.lexicon else {"lexicon"}
        return tuple(t for t in found if t in own or not silent & {c for c, _ in t})


class Crf(Model):
    """A tagger over templates."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"tagging"})
    cost_rank: ClassVar[int] = 2
    Hyper: ClassVar[type[BaseModel]] = CrfHyper
    hyper: CrfHyper

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """The whole recipe, then without topics, then learned to the end, then with more silence, then forms and shapes alone."""
        least = 1 if shape.rows < 20_000 else 2
        runs = 3 if shape.rows * shape.length_mean * shape.labels <= _RUNS_CHEAP else 1
        passes = min(60, max(8, _VISITS // max(1, shape.rows)))
        return [
            CrfHyper(min_count=least, topics=True, runs=runs, passes=passes),
            CrfHyper(min_count=least, topics=False, runs=runs, passes=passes),
            CrfHyper(min_count=least, topics=False, algorithm="lbfgs", passes=3, dropout=0.0),
            CrfHyper(min_count=least, topics=True, runs=runs, dropout=0.5, passes=passes * 3 // 2),
            CrfHyper(min_count=least, lexicon=False, clusters=False, topics=False, runs=runs, passes=passes),
        ]

    @classmethod
    def space(cls, shape: DataShape) -> Space:  # noqa: ARG003 the same for all
        """Penalties, dropout, passes and the parts of the recipe."""
        return {
            "c1": Float(0.01, 0.5, log=True),
            "c2": Float(0.01, 0.5, log=True),
            "dropout": Float(0.1, 0.6),
            "passes": Integer(4, 16),
            "clusters": Choice((True, False)),
            "topics": Choice((True, False)),
        }

    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Read the training set through the recipe, then learn the weights.

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`, `model.bad-span`.

        Cost: 120,000 characters with eight labels take about 4 CPU-seconds, compiling aside.
        """
        from wenfang.models.chain_fit import Chain

        curve, h = curve or Curve(), self.hyper
        self.labels_ = trainable_labels(train)
        tag_set = TagSet(tuple(self.labels_))
        for text, spans in zip(train.texts, train.spans, strict=True):
            tag_set.check(spans, len(text))
        unit = h.unit or fitting_unit(train.texts, [[b for s in spans for b in (s.start, s.end)] for spans in train.spans])
        places = Places(train.texts, unit)
        covered = places.covering(train.spans)
        tags = np.concatenate([tag_set.encode(spans, int(n)) for spans, n in zip(covered, np.diff(places.starts), strict=True)])
        layout, empty = Layout.of(tag_set, tags), Contexts(h.recipe(unit))
        hints, learned = Hints.learn(empty.channels(), places, _terms(covered, places, self.labels_), labels=len(self.labels_), lists=list(h.words.values()), seed=self.seed)
        contexts = empty.count(places, learned, min_count=h.min_count, size_max=_CELLS_MAX // len(layout.tags))
        worth = np.array(train.weights, np.float64) if train.weights else None
        chain = Chain(contexts.windows(places, learned), layout.place_of(len(tag_set))[tags], rows=len(contexts), layout=layout, worth=worth)

        def tagger(weights: npt.NDArray[np.floating], transitions: F32) -> Tagger:
            return Tagger(contexts, hints, layout, unit=unit, labels=self.labels_, weights=weights.astype(np.float16, copy=False), transitions=transitions.copy())

        def score(weights: F32, transitions: F32) -> float | None:
            if valid is None or not len(valid):
                return None
            self.tagger_ = tagger(weights, transitions)
            return span_f1([o.spans or () for o in self.predict(valid.texts)], valid.spans)

        if h.algorithm == "perceptron":
            chain.perceptron(h.passes, seed=self.seed, curve=curve, score=score)
        else:
            chain.stochastic(h.passes, runs=h.runs, rate=h.rate, c1=h.c1, c2=h.c2, dropout=h.dropout, seed=self.seed, curve=curve, score=score)
            if h.algorithm == "lbfgs" and not curve.late():
                chain.quasi_newton(h.iterations, c1=h.c1, c2=h.c2, curve=curve, score=score, done=h.passes * h.runs)
        contexts, kept = contexts.heard(chain.weights.astype(np.float16))
        self.tagger_ = tagger(kept, chain.transitions)
        return self

    def libraries(self) -> Sequence[str]:
        """The compiled loops."""
        return LOOPS

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """The spans of each text that are likelier than the floor, with their probabilities, and the probability of just this reading.

        With a floor of 0 the spans of the best path. With ``top_k`` above 1 also the likeliest other ways to read each text, ten in all
        at most, in ``alternatives``. Source: Lipton, Elkan & Naryanaswamy, Optimal Thresholding of Classifiers to Maximize F1 Measure,
        2014: the expected F1 is highest with what is likelier than half of it.

        Raises:
            Invalid: `model.not-fitted`.

        Cost: 1-3 microseconds per character with numba.
        """
        if not self.labels_:
            raise Invalid("model.not-fitted", family="crf")
        return [o for a, b in text_blocks(texts, _BLOCK_CHARS) for o in self.tagger_.tag(texts[a:b], top_k=top_k, floor=self.hyper.floor)]

    def opinion(self, texts: Sequence[str]) -> list[Output]:
        """Every span that is not quite unlikely, with its probability; some overlap."""
        return [o for a, b in text_blocks(texts, _BLOCK_CHARS) for o in self.tagger_.suspect(texts[a:b], _SUSPECT)]

    def save(self, folder: Path) -> None:
        """Write ``crf.safetensors``."""
        t = self.tagger_
        keys = [index.keys for index in t.contexts.known]
        own: dict[str, npt.NDArray[Any]] = {
            "keys": np.concatenate(keys),
            "sizes": np.array([len(k) for k in keys], np.int64),
            "weights": t.weights,
            "transitions": t.transitions,
            "tags": t.layout.tags,
            "word": np.array([t.unit == "word"], np.uint8),
        }
        save_arrays(folder / "crf.safetensors", own | t.hints.arrays())

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        a = load_arrays(folder / "crf.safetensors", _FORMAT)
        unit: Unit = "word" if a["word"].any() else "character"
        empty, tag_set, sizes = Contexts(model.hyper.recipe(unit)), TagSet(tuple(labels)), a["sizes"]
        hints = Hints.restore(empty.channels(), a)
        if (
            hints is None
            or len(sizes) != len(empty.kinds)
            or sizes.min() < 0
            or sizes.sum() != len(a["keys"])
            or np.setdiff1d(a["tags"], np.arange(len(tag_set))).size
            or not np.array_equal(layout := Layout.of(tag_set, a["tags"]).tags, a["tags"])
        ):
            raise Broken("model.damaged", file="crf.safetensors", reason="shapes")
        contexts, L = Contexts(empty.templates, np.split(a["keys"], np.cumsum(sizes)[:-1])), len(layout)
        if a["weights"].shape != (len(contexts), L) or a["transitions"].shape != (L, L):
            raise Broken("model.damaged", file="crf.safetensors", reason="shapes")
        model.labels_ = labels
        model.tagger_ = Tagger(contexts, hints, Layout.of(tag_set, a["tags"]), unit=unit, labels=labels, weights=a["weights"], transitions=a["transitions"])
        return model

    def environment(self) -> Mapping[str, str]:
        """Versions of numpy and, where it trained, of numba."""
        import sys

        return {name: str(sys.modules[name].__version__) for name in ("numpy", "numba") if name in sys.modules}


def _terms(covered: Sequence[Sequence[Any]], places: Places, labels: Sequence[str]) -> Terms:
    """The spans of all texts as terms, by number of their label."""
    number = {label: i for i, label in enumerate(labels)}
    rows = [(start + s.start, s.end - s.start, number[s.label]) for start, own in zip(places.starts[:-1].tolist(), covered, strict=True) for s in own]
    at, length, kind = np.array(rows, np.int64).reshape(-1, 3).T
    return Terms(at, length, kind)
