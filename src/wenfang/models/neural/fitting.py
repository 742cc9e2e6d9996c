"""One fit of a neural family, from examples to checked ONNX bytes: the order of the steps. Knows nothing of how each is done, nor of families."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models.base import Curve
from wenfang.models.tags import TagSet

from .answering import tokens_of_spans
from .batches import Batch, Stacker, pieces_of
from .building import build, check_vocabulary, digest_of
from .checkpoints import Checkpoints, DamagedCheckpoint, fingerprint
from .crf_layer import CrfLayer
from .export import check_same, to_onnx, torch_run
from .feeds import PieceFeed
from .folders import is_ours
from .guiding import Guided, open_teacher
from .judging import Judge, Work, work_of
from .loop import Fitted, Plan, Trainer
from .objectives import ClassObjective, Objective, SigmoidObjective, TagObjective, balanced_weights
from .paths import FORBIDDEN, Transitions
from .precision import device, precision_of
from .questions import Questions, questions_of
from .selfcheck import made_up
from .session import BUDGETS, CHECKED, Session, Width
from .tokens import Tokens
from .torch_state import torch_state
from .widths import serve_in

__all__ = ["Learned", "fit_network"]

WINDOWS_AT_MOST = 8
"""Windows of one text that training reads; answering reads all."""
JUDGED_AT_MOST = 2000
"""Valid texts that a narrower width is judged on."""
CALIBRATION = 64
"""Training texts that fixed int8 scales are learned from."""


@dataclass(slots=True)
class Learned:
    """All that predicting needs."""

    tokens: Tokens
    size: int
    onnx: bytes
    chain: Transitions | None
    width: Width
    threshold: float
    """Multilabel: from which probability on a label is said."""
    check: dict[str, np.ndarray[Any, Any]] | None
    """Of a width that processors differ in: questions that a serving machine must answer as this one did."""
    found: dict[str, Any]


def fit_network(hyper: Any, train: Examples, valid: Examples | None, *, labels: list[str], seed: int, curve: Curve) -> Learned:
    """Train, export, check, and choose the weights' width.

    Args:
        hyper: the hyper-parameters of the ``transformer`` family.
        train: to learn from.
        valid: to stop by, or None.
        labels: L sorted names.
        seed: of everything random.
        curve: told how it goes.
    """
    if valid is not None and not len(valid):
        valid = None
    checkpoints = None if curve.checkpoints is None else Checkpoints(curve.checkpoints, _request(hyper, train, valid, labels=labels, seed=seed))
    try:
        return _fit(hyper, train, valid, labels=labels, seed=seed, curve=curve, checkpoints=checkpoints)
    except DamagedCheckpoint as e:
        curve.progress.note("neural.checkpoint-damaged", reason=str(e))
        assert checkpoints is not None
        checkpoints.discard()
        return _fit(hyper, train, valid, labels=labels, seed=seed, curve=curve, checkpoints=checkpoints)


def _fit(hyper: Any, train: Examples, valid: Examples | None, *, labels: list[str], seed: int, curve: Curve, checkpoints: Checkpoints | None) -> Learned:
    work = work_of(train.task, labels)
    with torch_state(seed, hyper.threads or _threads(hyper)):
        network, tokens, size = build(hyper, train, work.outputs)
        network.to(device())
        if hyper.save_memory:
            network.save_memory()
        judge = None if valid is None else Judge(valid, tokens, size, work, hyper.aggregate)
        questions = questions_of(tokens, train.texts, train.texts_b, size=size, at_most=WINDOWS_AT_MOST)
        check_vocabulary(hyper, tokens, questions.encoded)
        stacker = Stacker(questions.encoded, pieces_of(questions.encoded, size, at_most=WINDOWS_AT_MOST), tokens)
        objective = _objective(hyper, train, questions, stacker, work=work)
        crf = objective.layer
        if hyper.guide is not None:
            if train.texts_b:
                raise Invalid("neural.guide-pairs")
            objective = Guided(objective, network, open_teacher(Path(hyper.guide)), texts=train.texts, stacker=stacker, strength=hyper.guide_weight)
        if objective.layer is not None:
            objective.layer.to(device())

        def chain() -> Transitions | None:
            return None if work.tags is None else _chain(crf, work.tags)

        score = None if judge is None else (lambda: judge(torch_run(network), chain(), 4096))
        feed = PieceFeed(stacker, hyper.batch_tokens)
        fitted = Trainer(network, objective, feed, _plan(hyper, seed, 0 if judge is None else judge.tokens_count()), curve, checkpoints).run(score)
        network.states = []
        network.to("cpu").merge()
        samples = _samples(stacker)
        onnx = to_onnx(network, samples[0])
        session = Session(onnx)
        difference = check_same(session, network, samples)
    found = _found(fitted, difference)
    part = None if judge is None else judge.part(JUDGED_AT_MOST)
    served = serve_in(
        hyper.width, onnx, [*samples, *_calibration(stacker)], judge=None if part is None else (lambda run, budget: part(run, chain(), budget)),
        texts=0 if part is None else len(part.valid), left_s=curve.left_s(),
    )  # fmt: skip
    final = Session(served.onnx)
    threshold = 0.5
    if train.task == "multilabel":
        threshold = hyper.threshold or (0.5 if judge is None else judge.threshold(final, BUDGETS[served.width]))
    check = made_up(final, session, tokens) if served.width in CHECKED else None
    return Learned(tokens, size, served.onnx, chain(), served.width, threshold, check, found | network.told | {"widths": served.tried})


def _request(hyper: Any, train: Examples, valid: Examples | None, *, labels: list[str], seed: int) -> str:
    """What shapes the fit: a checkpoint of anything else is not taken up."""
    data = [[e.task, e.texts, e.labels, e.spans, e.weights, e.texts_b, e.label_sets, e.grades] for e in (train, valid) if e is not None]
    folder = None if hyper.pretrained is None else digest_of(Path(hyper.pretrained))
    guide = None if hyper.guide is None else digest_of(Path(hyper.guide))
    return fingerprint(
        {
            "pretrained": folder,
            "guide": guide,
            "hyper": hyper.model_dump(mode="json"),
            "data": data,
            "labels": labels,
            "seed": seed,
            "torch": torch.__version__,
            "device": device().type,
        }
    )


def _objective(hyper: Any, train: Examples, questions: Questions, stacker: Stacker, *, work: Work) -> Objective:
    owners, pieces = questions.owners, stacker.pieces
    weights = np.array(train.weights, np.float32) if train.weights else np.ones(len(train), np.float32)
    if work.tags is not None:
        rows = [work.tags.encode(tokens_of_spans(spans, text), len(text.ids)) for spans, text in zip(train.spans, questions.encoded, strict=True)]
        crf = CrfLayer(work.tags.legal) if hyper.head == "crf" else None
        return TagObjective(rows, pieces, head=len(stacker.tokens.prefix), crf=crf, smoothing=hyper.label_smoothing, weights=weights)
    number = {name: i for i, name in enumerate(work.labels)}
    if work.sigmoid:
        wanted = np.zeros((len(train), work.outputs), np.float32)
        if train.grades:
            wanted[:, 0] = train.grades
        for row, names in enumerate(train.label_sets):
            wanted[row, [number[name] for name in names]] = 1.0
        return SigmoidObjective(wanted[owners], pieces, weights=weights[owners] * questions.shares())
    targets = np.array([number[name] for name in train.labels], np.int64)
    if hyper.class_weights:
        weights = weights * balanced_weights(targets, len(work.labels))
    return ClassObjective(
        targets[owners], pieces, count=len(work.labels), smoothing=hyper.label_smoothing, weights=weights[owners] * questions.shares(), loss=hyper.loss, gamma=hyper.focal_gamma,
        margin=hyper.margin, adjustment=hyper.logit_adjustment,
    )  # fmt: skip


def _chain(crf: nn.Module | None, tags: TagSet) -> Transitions:
    L = len(tags)
    zero = np.zeros(L, np.float32)
    chain = Transitions(zero, zero, np.where(tags.legal, np.float32(0), FORBIDDEN)) if not isinstance(crf, CrfLayer) else crf.transitions()
    return chain.constrained(tags.legal_start, tags.legal_end, tags.legal)


def _plan(hyper: Any, seed: int, score_tokens: int) -> Plan:
    scratch = hyper.pretrained is None
    ours = scratch or is_ours(Path(hyper.pretrained))
    rate = hyper.learning_rate or (1e-3 if scratch else 5e-4 if ours else 3e-4 if hyper.lora_rank else 3e-5)
    return Plan(
        epochs=hyper.epochs,
        decay_epochs=max(hyper.epochs, hyper.decay_epochs or hyper.epochs),
        learning_rate=rate,
        head_rate=5e-3 if ours else 1e-3,
        gram_rate=hyper.gram_rate * rate,
        patience=hyper.patience,
        weight_decay=hyper.weight_decay,
        layer_decay=1.0 if scratch else hyper.layer_decay,
        accumulate=hyper.accumulate,
        average=hyper.average,
        r_drop=hyper.r_drop,
        fgm=hyper.fgm,
        precision=precision_of(device().type) if hyper.precision == "auto" else hyper.precision,
        reserve_s=2.0 if ours else 20.0,
        scores_after=3 if hyper.width == "auto" else 0,
        score_tokens=score_tokens,
        seed=seed,
    )


def _samples(stacker: Stacker) -> list[Batch]:
    """Batches with padding in them and a single row: what the check and the timing run on."""
    spread = np.unique(np.linspace(0, len(stacker.lengths) - 1, 16).astype(np.intp))
    return [stacker.stack(spread[:8]), stacker.stack(spread), *(stacker.stack(spread[i : i + 1]) for i in range(min(4, len(spread))))]


def _calibration(stacker: Stacker) -> list[Batch]:
    spread = np.unique(np.linspace(0, len(stacker.lengths) - 1, CALIBRATION).astype(np.intp))
    by_length = spread[np.argsort(stacker.lengths[spread], kind="stable")]
    return [stacker.stack(by_length[i : i + 8]) for i in range(0, len(by_length), 8)]


def _found(fitted: Fitted, difference: float) -> dict[str, Any]:
    return {
        "best_epoch": fitted.best_epoch or fitted.decay_epochs,
        "decay_epochs": fitted.decay_epochs,
        "steps": fitted.steps,
        "tokens_per_s": round(fitted.tokens / max(1e-9, fitted.train_s), 1),
        "tokens_per_cpu_s": round(fitted.tokens / max(1e-9, fitted.train_cpu_s), 1),
        "padding_share": round(1 - fitted.tokens / max(1, fitted.slots), 4),
        "batch_parts": fitted.parts,
        "onnx_difference": difference,
    }


def _threads(hyper: Any) -> int:
    """Layers narrower than 256 are over before a second thread has begun."""
    return 1 if hyper.pretrained is None and hyper.hidden < 256 else len(os.sched_getaffinity(0))
