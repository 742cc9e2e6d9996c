"""One fit of one candidate, from hyper-parameters to a measured bundle; whatever goes wrong becomes a failed run.

Knows nothing of other candidates or of the budget: its deadline is given.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from wenfang.core.errors import WenfangError
from wenfang.core.examples import Examples, Output
from wenfang.core.ports import Cancelled, Progress
from wenfang.models.base import Curve, Finding, Model
from wenfang.models.loading import load

from .evaluate import Evaluation, predict_all
from .latency import Latency
from .wanted import judge

__all__ = ["Fit", "Fitted", "Learned", "Origin", "ReadBundle", "Run", "WriteBundle", "card_of", "failed", "figures_of", "fit_here", "reason_of", "try_fit"]

Origin = Literal["guess", "earlier", "anchor", "proposal", "assembled"]
"""Where a candidate comes from: the family, an earlier selection, the best guess again on a share of train, the proposer, or other runs put together."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A fitted model and what its fit found out."""

    model: Model
    refit_params: dict[str, Any]
    environment: dict[str, str]
    cut: bool = False
    """Its time was over before it had finished."""
    loading_s: float = 0.0
    """Of the fit's time, what went into loading libraries into this process: no later fit takes it again."""


Fit = Callable[[Model, Examples, Examples | None, Curve], Learned]
"""Where and how a model is fitted; the runtime may do it elsewhere."""
WriteBundle = Callable[[Path, Model, dict[str, Any]], Any]
"""Write a model with its card as a signed bundle into an absent folder."""


ReadBundle = Callable[[Path], Model]
"""The model of a bundle folder, ready to predict."""


@dataclass(slots=True)
class Run:
    """One fit, as it stands in ``selection.json``."""

    name: str
    family: str
    candidate: int
    params: dict[str, Any]
    seed: int
    origin: Origin = "guess"
    share: float = 1.0
    """Of train that was learned from."""
    proposal: int | None = None
    """Which proposal of the family; one proposal may be fitted on several shares."""
    state: Literal["done", "failed", "stopped"] = "done"
    """``stopped``: its time was over before it had finished; what it had learned by then takes part."""
    note: str = ""
    reason: tuple[str, dict[str, Any]] | None = None
    """Key of the catalogue and fields: why it failed or was stopped."""
    refit_params: dict[str, Any] = field(default_factory=dict[str, Any])
    deadline_s: float | None = None
    loading_s: float = 0.0
    """Loading libraries before the fit, where no later fit does it again."""
    fit_s: float = 0.0
    predict_s: float = 0.0
    bundle_s: float = 0.0
    """Writing and measuring the bundle."""
    curve: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    findings: list[Finding] = field(default_factory=list[Finding])
    """What the fit found out, as sentences of the catalogue."""
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    bundled: bool = False
    size_bytes: int | None = None
    latency: dict[str, Any] | None = None
    charged: float | None = None
    """What somebody else charges for one million requests."""

    @property
    def score(self) -> float:
        """On valid; -inf for a failed run."""
        return self.metrics.get("score", -math.inf)

    def cost(self) -> Latency | None:
        """The measured latency."""
        return None if self.latency is None else Latency(**self.latency)

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Run:
        """The run that ``document`` told of."""
        run = cls(**{k: v for k, v in document.items() if k not in {"reason", "findings"}})
        run.findings = [(key, fields) for key, fields in document["findings"]]
        run.reason = (document["reason"][0], document["reason"][1]) if document["reason"] else None
        return run


@dataclass(slots=True)
class Fitted:
    """A run that has a model."""

    run: Run
    model: Model
    outputs: list[Output]
    evaluation: Evaluation


def fit_here(model: Model, train: Examples, valid: Examples | None, curve: Curve) -> Learned:
    """Fit in this process."""
    begun = time.monotonic()
    load(model.libraries())
    loading_s = time.monotonic() - begun
    fitted = model.fit(train, valid, curve)
    return Learned(fitted, fitted.refit_hyper().model_dump(mode="json"), dict(fitted.environment()), curve.late(), loading_s)


def reason_of(e: Exception) -> tuple[str, dict[str, Any]]:
    """Why something failed, as a key and fields; never the message of a foreign error, which may quote a text."""
    if isinstance(e, WenfangError):
        return e.code, {k: v if isinstance(v, (int, float, str)) else str(v) for k, v in e.fields.items()}
    frames = traceback.extract_tb(e.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return "select.run-crashed", {"kind": type(e).__name__, "where": where}


def failed(run: Run, e: Exception) -> Run:
    """Mark a run as failed by ``e``."""
    run.state, run.reason = "failed", reason_of(e)
    run.note = run.reason[0]
    run.bundled, run.latency, run.size_bytes = False, None, None
    return run


def try_fit(
    run: Run, family: type[Model], hyper: BaseModel, *, train: Examples, valid: Examples, deadline_s: float, progress: Progress, fit: Fit = fit_here, checkpoints: Path | None = None, metric: str | None = None, loading_s: float = 0.0, answers_s: float = math.inf,
) -> Fitted | None:  # fmt: skip
    """Fit a candidate and judge it on valid; ``run`` tells how it went. None: it failed.

    Args:
        run: filled in.
        family: the class.
        hyper: of the candidate.
        train: to learn from.
        valid: to judge by, and for early stopping.
        deadline_s: from now; the fit should end by then.
        progress: told the points of the curve; may raise ``Cancelled``.
        fit: where the fit runs.
        metric: to judge by; None: the task's own.
        loading_s: what loading libraries may take before that time begins.
        answers_s: how long a remote model may take to answer valid.
        checkpoints: folder in which a long fit may leave what it needs to go on after a crash.
    """
    begun = time.monotonic()
    curve = Curve(progress, begun + loading_s + deadline_s, checkpoints=checkpoints)
    run.deadline_s = loading_s + deadline_s
    try:
        candidate = family(hyper, task=train.task, seed=run.seed)
        candidate.remember()
        learned = fit(candidate, train, valid, curve)
        model = learned.model
        run.loading_s = learned.loading_s
        run.deadline_s -= run.loading_s
        run.fit_s = time.monotonic() - begun - run.loading_s
        if learned.cut:
            run.state, run.note, run.reason = "stopped", "select.run-cut", ("select.run-cut", {"limit_s": round(deadline_s, 1)})
        run.environment, run.refit_params, run.findings = learned.environment, learned.refit_params, model.findings()
        begun = time.monotonic()
        if family.remote:
            model.remember()
            model.until = begun + answers_s
        outputs = predict_all(model, valid, progress=progress)
        run.predict_s = time.monotonic() - begun
        evaluation = judge(outputs, valid, metric=metric, seed=run.seed)
        run.metrics = figures_of(evaluation) | dict(model.told())
        if unread := model.told().get("unparsable", 0):
            progress.note("select.unread-answers", run=run.name, answers_n=unread)
        return Fitted(run, model, outputs, evaluation)
    except Cancelled:
        raise
    except Exception as e:  # any way a candidate may break (libraries, memory, numbers) ends this run only, with its reason kept
        run.fit_s = run.fit_s or time.monotonic() - begun
        failed(run, e)
        return None
    finally:
        run.curve = [{"step": s.step, "loss": _finite(s.loss), "valid_score": _finite(s.valid_score)} for s in curve.steps]


def figures_of(evaluation: Evaluation) -> dict[str, Any]:
    """What a run keeps of its evaluation."""
    return {"metric": evaluation.metric, **evaluation.headline(), **evaluation.figures, "ece": evaluation.ece}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def card_of(run: Run, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle's card says of its making."""
    return {"family": run.family, "run": run.name, "params": run.params, "seed": run.seed, "environment": run.environment, "findings": run.findings, "valid": run.metrics, **extra}
