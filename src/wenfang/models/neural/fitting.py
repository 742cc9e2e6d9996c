"""One fit of a neural family, from examples to checked ONNX bytes: the order of the steps. Knows nothing of how each is done, nor of families."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models.base import Curve
from wenfang.models.tags import TagSet

from .answering import Answerer, Run, spans_of_tokens, tokens_of_spans
from .batches import Batch, Stacker, pieces_of
from .checkpoints import Checkpoints, DamagedCheckpoint, fingerprint
from .crf_layer import CrfLayer
from .encoder import Encoder, EncoderShape
from .export import check_same, int8_of, seconds_of, to_onnx, torch_run
from .feeds import PieceFeed
from .folders import is_ours, open_encoder
from .loop import Fitted, Plan, Trainer
from .network import Network
from .objectives import ClassObjective, Objective, TagObjective, balanced_weights
from .paths import FORBIDDEN, Transitions
from .precision import device, precision_of
from .pretrained import open_pretrained
from .session import Session
from .tokens import PATTERNS, CharTokens, Encoded, SubwordTokens, Tokens
from .torch_state import torch_state

__all__ = ["Learned", "fit_network"]

WINDOWS_AT_MOST = 8
"""Windows of one text that training reads; answering reads all."""
JUDGED_AT_MOST = 2000
"""Valid texts that int8 is judged on."""
UNKNOWN_MAX = 0.3
"""Share of tokens that a pretrained vocabulary may not know."""
INT8_LOSS = 0.002
"""Valid score that int8 may cost."""


@dataclass(slots=True)
class Learned:
    """All that predicting needs."""

    tokens: Tokens
    size: int
    onnx: bytes
    chain: Transitions | None
    int8: bool
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
    with torch_state(seed, hyper.threads or _threads(hyper)):
        tags = TagSet(tuple(labels)) if train.task == "tagging" else None
        network, tokens, size = _network(hyper, train, len(labels) if tags is None else len(tags))
        network.to(device())
        if hyper.save_memory:
            network.save_memory()
        judge = None if valid is None else _Judge(valid, tokens, size, labels)
        encoded = tokens.encode(train.texts)
        _check_vocabulary(hyper, tokens, encoded)
        pieces = pieces_of(encoded, size, at_most=WINDOWS_AT_MOST)
        stacker = Stacker(encoded, pieces, tokens)
        objective = _objective(hyper, train, encoded, stacker, labels=labels)
        if objective.layer is not None:
            objective.layer.to(device())

        def chain() -> Transitions | None:
            return None if tags is None else _chain(objective.layer, tags)

        score = None if judge is None else (lambda: judge(torch_run(network), chain(), 4096))
        feed = PieceFeed(stacker, hyper.batch_tokens)
        fitted = Trainer(network, objective, feed, _plan(hyper, seed, 0 if judge is None else judge.tokens_count()), curve, checkpoints).run(score)
        network.to("cpu")
        samples = _samples(stacker)
        onnx = to_onnx(network, samples[0])
        session = Session(onnx)
        difference = check_same(session, network, samples)
    found = _found(fitted, difference)
    part = None if judge is None else judge.part(JUDGED_AT_MOST)
    small = _small(
        hyper,
        onnx,
        session,
        samples,
        judge=None if part is None else (lambda run, budget: part(run, chain(), budget)),
        left_s=curve.left_s(),
        texts=0 if part is None else len(part.valid),
    )
    return Learned(tokens, size, small or onnx, chain(), small is not None, found)


def _request(hyper: Any, train: Examples, valid: Examples | None, *, labels: list[str], seed: int) -> str:
    """What shapes the fit: a checkpoint of anything else is not taken up."""
    data = [[e.task, e.texts, e.labels, e.spans, e.weights, e.texts_b, e.label_sets, e.grades] for e in (train, valid) if e is not None]
    return fingerprint({"hyper": hyper.model_dump(mode="json"), "data": data, "labels": labels, "seed": seed, "torch": torch.__version__, "device": device().type})


def _network(hyper: Any, train: Examples, outputs: int) -> tuple[Network, Tokens, int]:
    tagging = train.task == "tagging"
    folder = None if hyper.pretrained is None else Path(hyper.pretrained)
    if folder is not None and not is_ours(folder):
        network, subwords, positions = open_pretrained(folder, outputs=outputs, tagging=tagging, dropout=hyper.dropout)
        special = len(subwords.prefix) + len(subwords.suffix)
        return network, subwords, max(1, min(hyper.max_length, positions - special))
    grams = hyper.ngram_buckets if hyper.ngram_buckets is not None else 0 if tagging else 1 << 16
    tokens = CharTokens.learn(train.texts, min_count=hyper.min_count)
    start = None if folder is None else open_encoder(folder)
    tokens = CharTokens((tokens if start is None else start.widened(tokens.chars)).chars, patterns=PATTERNS[train.task], buckets=grams)
    if start is None:
        shape = EncoderShape(len(tokens), outputs, tagging, hyper.layers, hyper.hidden, hyper.heads, hyper.ff, hyper.dropout, grams, hyper.token_dropout)
        return Encoder(shape), tokens, hyper.max_length
    shape = replace(start.shape, vocabulary=len(tokens), outputs=outputs, tagging=tagging, dropout=hyper.dropout, gram_buckets=grams, token_dropout=hyper.token_dropout)
    return start.encoder(shape), tokens, hyper.max_length


def _check_vocabulary(hyper: Any, tokens: Tokens, encoded: Sequence[Encoded]) -> None:
    """Refuse a vocabulary that cannot spell the texts: its pretraining would be worth nothing."""
    if not isinstance(tokens, SubwordTokens) or tokens.unknown is None:
        return
    ids = np.concatenate([e.ids for e in encoded])
    share = float((ids == tokens.unknown).mean()) if len(ids) else 0.0
    if share > UNKNOWN_MAX:
        raise Invalid("neural.vocabulary-foreign", path=hyper.pretrained, share=round(share, 3), allowed=UNKNOWN_MAX)


def _objective(hyper: Any, train: Examples, encoded: Sequence[Encoded], stacker: Stacker, *, labels: list[str]) -> Objective:
    weights = np.array(train.weights, np.float32) if train.weights else None
    if train.task == "classification":
        number = {name: i for i, name in enumerate(labels)}
        targets = np.array([number[name] for name in train.labels], np.int64)
        if hyper.class_weights:
            weights = balanced_weights(targets, len(labels)) * (1 if weights is None else weights)
        return ClassObjective(
            targets, stacker.pieces, count=len(labels), smoothing=hyper.label_smoothing, weights=weights, loss=hyper.loss, gamma=hyper.focal_gamma, margin=hyper.margin,
            adjustment=hyper.logit_adjustment,
        )  # fmt: skip
    tags = TagSet(tuple(labels))
    rows = [tags.encode(tokens_of_spans(spans, text), len(text.ids)) for spans, text in zip(train.spans, encoded, strict=True)]
    crf = CrfLayer(tags.legal) if hyper.head == "crf" else None
    return TagObjective(rows, stacker.pieces, head=len(stacker.tokens.prefix), crf=crf, smoothing=hyper.label_smoothing, weights=weights)


def _chain(crf: nn.Module | None, tags: TagSet) -> Transitions:
    L = len(tags)
    zero = np.zeros(L, np.float32)
    chain = Transitions(zero, zero, np.where(tags.legal, np.float32(0), FORBIDDEN)) if not isinstance(crf, CrfLayer) else crf.transitions()
    return chain.constrained(tags.legal_start, tags.legal_end, tags.legal)


def _plan(hyper: Any, seed: int, score_tokens: int) -> Plan:
    scratch = hyper.pretrained is None
    ours = scratch or is_ours(Path(hyper.pretrained))
    rate = hyper.learning_rate or (1e-3 if scratch else 5e-4 if ours else 3e-5)
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
        scores_after=2 if hyper.int8 == "auto" else 0,
        score_tokens=score_tokens,
        seed=seed,
    )


class _Judge:
    """Scores a network on valid: accuracy, or micro F1 of exact spans."""

    def __init__(self, valid: Examples, tokens: Tokens, size: int, labels: list[str]) -> None:
        self.valid = valid
        self.tokens = tokens
        self.size = size
        self.labels = np.array(labels)
        self.tags = TagSet(tuple(labels))
        self.encoded = tokens.encode(valid.texts)

    def part(self, at_most: int) -> _Judge:
        """One of at most so many texts, evenly spread."""
        n = len(self.valid)
        rows = np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.intp)).tolist()
        return _Judge(self.valid.take(rows), self.tokens, self.size, self.labels.tolist())

    def tokens_count(self) -> int:
        """Tokens of all texts."""
        return sum(len(e.ids) for e in self.encoded)

    def __call__(self, run: Run, chain: Transitions | None, budget_tokens: int) -> float:
        answerer = Answerer(run, self.tokens, size=self.size, budget_tokens=budget_tokens)
        if chain is None:
            best = answerer.class_probabilities(self.encoded).argmax(axis=1)
            return float((self.labels[best] == np.array(self.valid.labels)).mean())
        paths, _ = answerer.tag_paths(self.encoded, chain)
        right = given = wanted = 0
        for path, text, raw, gold in zip(paths, self.encoded, self.valid.texts, self.valid.spans, strict=True):
            found = set(spans_of_tokens(self.tags.decode(path), text, raw))
            right, given, wanted = right + len(found & set(gold)), given + len(found), wanted + len(gold)
        return 2 * right / max(1, given + wanted)


def _samples(stacker: Stacker) -> list[Batch]:
    """Batches with padding in them and a single row: what the check and the timing run on."""
    spread = np.unique(np.linspace(0, len(stacker.lengths) - 1, 16).astype(np.intp))
    return [stacker.stack(spread[:8]), stacker.stack(spread), *(stacker.stack(spread[i : i + 1]) for i in range(min(4, len(spread))))]


def _small(hyper: Any, onnx: bytes, session: Session, samples: Sequence[Batch], *, judge: Callable[[Run, int], float] | None, left_s: float | None, texts: int) -> bytes | None:
    """The int8 model if it is wanted: always, or when the valid score stays, single texts are faster, and there is time to find out."""
    if hyper.int8 is False or (hyper.int8 == "auto" and judge is None):
        return None
    small = int8_of(onnx)
    if hyper.int8 is True or judge is None:
        return small
    candidate = Session(small)
    singles = samples[2:]
    small_s, whole_s = seconds_of(candidate, singles), seconds_of(session, singles)
    if small_s > 0.9 * whole_s or (left_s is not None and texts * (small_s + whole_s) / len(singles) > left_s):
        return None
    return small if judge(candidate, 0) >= judge(session, 512) - INT8_LOSS else None


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
