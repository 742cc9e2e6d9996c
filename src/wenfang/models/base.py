"""What a model family must be able to do. The promises are tested for every family in ``tests/contracts/test_families.py``."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from wenfang.core.conversation import Generation
from wenfang.core.errors import Unsupported
from wenfang.core.examples import Examples, Output
from wenfang.core.ports import Progress, Quiet
from wenfang.core.records import Task

from .space import Space

__all__ = ["Curve", "DataShape", "Emit", "Finding", "Hyper", "Model", "Step"]

Finding = tuple[str, dict[str, Any]]
"""A sentence: its key in the catalogue and its fields."""

Emit = Callable[[int, str], None]
"""Told (index of the text, piece of its answer) while it is being generated; the pieces of a text make its answer.

Whoever generates calls it at every step, with an empty piece when nothing new is certain: that is how its caller knows that work goes
on. It may raise ``Cancelled`` (nobody wants any of these answers any more), which generation lets pass.
"""


class Hyper(BaseModel):
    """Hyper-parameters of a family: frozen, unknown ones are errors, every field says its range."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class DataShape:
    """What a family may know of the data before it proposes candidates."""

    task: Task
    rows: int
    labels: int
    length_mean: float
    """Code points."""
    length_max: int
    pretrained: tuple[Path, ...] = ()
    """Local directories of the transformers library that the caller offers."""
    graded: bool = False
    """Pairs have grades instead of labels."""
    pairs: bool = False
    """There is a second text."""
    target_mean: float = 0.0
    """Code points of the texts that should be written."""
    spaced: float = 0.0
    """Share of texts in a script that writes blanks between words."""
    guide: Path | None = None
    """Unpacked bundle of a teacher whose hidden states a student may match."""
    upstreams: tuple[str, ...] = ()
    """Servers of the OpenAI protocol that the caller offers, as ``URL#model@VARIABLE=IN/OUT``; all but the URL may be missing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One point of a learning curve."""

    step: float
    """Epochs or iterations."""
    loss: float | None = None
    valid_score: float | None = None


@dataclass(slots=True)
class Curve:
    """What ``fit`` tells while it learns, and when it must stop.

    A family calls ``point`` at steps of its own choosing and ``late`` between them; when ``late()`` is true it keeps its best
    state so far and returns. ``point`` forwards to the progress, which may raise ``Cancelled``.
    """

    progress: Progress = field(default_factory=Quiet)
    deadline: float | None = None
    """On ``time.monotonic()``."""
    steps: list[Step] = field(default_factory=list[Step])
    checkpoints: Path | None = None
    """A folder of this fit alone. A family that takes long keeps its state there and, started again with the same request, goes on from it."""

    def point(self, step: float, *, loss: float | None = None, valid_score: float | None = None) -> None:
        """Record one point."""
        self.steps.append(Step(step, loss, valid_score))
        self.progress.advance(0, step=step, loss=loss, valid=valid_score)

    def late(self) -> bool:
        """Whether the time for this fit is over."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def left_s(self) -> float | None:
        """Seconds left, never negative; None: no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Model(ABC):
    """A trained or trainable text model of one family.

    A family is one file in ``families/``. Constructor arguments are hyper-parameters and stay untouched; learned state ends in ``_``.
    ``fit`` may import heavy libraries; ``load`` and ``predict`` run in the light install (numpy, onnxruntime, tokenizers).

    Args:
        hyper: of the family's own ``Hyper`` class.
        task: one of ``tasks``.
        seed: of everything random; equal seed, data and versions give equal models on one machine.
    """

    name: ClassVar[str]
    tasks: ClassVar[frozenset[Task]]
    cost_rank: ClassVar[int]
    """Simplest first: selection fits families in this order."""
    Hyper: ClassVar[type[BaseModel]]
    at_once: int | None = None
    """Texts it answers at once, where that is not to be measured at load (somebody else's server, which costs money); None: measured."""
    silent_s: float = 0.0
    """How long it may need for one batch without a word; 0: as long as the server that asks it allows."""

    remote: ClassVar[bool] = False
    """Answers come from somebody else's server, perhaps for money: ask as seldom as possible, and never without end."""
    until: float | None = None
    """On ``time.monotonic()``: a remote model waits for answers no longer."""

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        self.hyper: Any = self.Hyper() if hyper is None else hyper
        self.task: Task = task
        self.seed = seed
        self.labels_: list[str] = []

    @classmethod
    @abstractmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """Hyper-parameters worth trying on such data, the best guess first."""

    @classmethod
    def space(cls, shape: DataShape) -> Space:  # noqa: ARG003 a family without a space is tried at its candidates only
        """What a search may vary beside the candidates; default: nothing."""
        return {}

    @abstractmethod
    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:
        """Learn from ``train``; ``valid`` is only for early stopping and curves (None: train the number of steps ``refit_hyper`` fixed).

        Raises:
            Invalid: `model.too-few-labels`, `model.no-examples`.
        """

    @abstractmethod
    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each text, in order; does not change the model. Any text is accepted: empty, very long, odd characters.

        Args:
            texts: B strings.
            top_k: classification: how many labels go into ``Output.scores``; 1 leaves it out.
        """

    def opinion(self, texts: Sequence[str]) -> list[Output]:
        """What an ensemble hears of each text, of the task tagging: spans with their probabilities; some may overlap. Default: the answer."""
        return self.predict(texts)

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:  # noqa: ARG002 for those that can
        """One answer for each pair; families of the tasks ``matching`` and ``embedding`` have it.

        Args:
            texts: B strings.
            texts_b: B strings.
            top_k: as for ``predict``.

        Raises:
            Unsupported: `model.no-pairs`.
        """
        raise Unsupported("model.no-pairs", family=self.name, task=self.task)

    def probabilities(self, texts: Sequence[str], texts_b: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """Probability of every label, shape (B, L) in the order of ``labels_``; of tasks with labels. Families may have a shorter way than ``predict``.

        Args:
            texts: B strings.
            texts_b: B strings for pairs, else none.
        """
        names = {label: i for i, label in enumerate(self.labels_)}
        outputs = self.match(texts, texts_b, top_k=len(names)) if texts_b else self.predict(texts, top_k=len(names))
        found = np.zeros((len(texts), len(names)), np.float32)
        for row, output in enumerate(outputs):
            alone = [output.label] if output.label is not None else output.labels or ()
            for label, p in (output.scores or dict.fromkeys(alone, output.score or 0.0)).items():
                found[row, names[label]] = p
        return found

    def generate(self, texts: Sequence[str], options: Sequence[Generation], *, emit: Emit | None = None) -> list[Output]:  # noqa: ARG002 for those that can
        """One generated text for each; families of the tasks ``generation`` and ``chat`` have it. ``predict`` asks with default options.

        Args:
            texts: B strings.
            options: B; what their callers ask for.
            emit: told each piece as soon as it is certain; see ``Emit``.

        Raises:
            Unsupported: `model.no-generation`; Cancelled: of ``emit``.
        """
        raise Unsupported("model.no-generation", family=self.name, task=self.task)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the learned state into an empty folder: safetensors, ONNX, JSON or text files only."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote, ready to predict; never imports torch."""

    def libraries(self) -> Sequence[str]:
        """Modules that ``fit`` loads and that take a while: selection loads them before it counts a first fit's time. Default: none."""
        return ()

    def refit_hyper(self) -> BaseModel:
        """Hyper-parameters for fitting again on train + valid: what early stopping found is fixed (epochs). Default: the same."""
        return self.hyper

    def remember(self) -> None:  # noqa: B027 nothing to remember where answers cost nothing
        """From now on ask a remote server each question once only; for measuring, not for serving. Default: nothing."""

    def told(self) -> Mapping[str, int]:
        """What else a run should tell of its answers, counted: those that could not be read, say. Default: nothing."""
        return {}

    def answer_ms(self) -> Sequence[float]:
        """How long a remote server took for single answers so far, in milliseconds."""
        return ()

    def expected_charge(self, train: Examples, questions: int) -> float:  # noqa: ARG002 for those that charge
        """What so many questions about texts like those of ``train`` will about cost, in the unit of the prices given. Default: nothing."""
        return 0.0

    def charge_per_million(self) -> float | None:
        """What one million requests cost where somebody else runs the model and charges for it; None: nobody does."""
        return None

    def findings(self) -> list[Finding]:
        """What its fit found out and a reader of its card should know. Default: nothing."""
        return []

    def environment(self) -> Mapping[str, str]:
        """Names and versions of the libraries that shaped the result."""
        return {}
