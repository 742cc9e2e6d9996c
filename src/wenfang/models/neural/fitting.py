"""One fit of a neural family, from examples to checked ONNX bytes: the order of the steps. Knows nothing of how each is done, nor of families."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenfang.core.examples import Examples
from wenfang.models.base import Curve
from wenfang.models.tags import TagSet

from .answering import Answerer, Run, spans_of_tokens, tokens_of_spans
from .batches import Batch, Stacker, pieces_of
from .crf_layer import CrfLayer
from .encoder import Encoder, EncoderShape
from .export import check_same, int8_of, seconds_of, to_onnx, torch_run
from .loop import Fitted, Plan, Trainer
from .network import Network
from .objectives import ClassObjective, Objective, TagObjective, balanced_weights
from .paths import FORBIDDEN, Transitions
from .precision import bf16_pays, device
from .pretrained import open_pretrained
from .session import Session
from .tokens import PATTERNS, CharTokens, Encoded, Tokens

__all__ = ["Learned", "fit_network"]

WINDOWS_AT_MOST = 8
"""Windows of one text that training reads; answering reads all."""
JUDGED_AT_MOST = 2000
"""Valid texts that int8 is judged on."""
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
    with _torch_state(seed, hyper.threads or _threads(hyper)):
        tags = TagSet(tuple(labels)) if train.task == "tagging" else None
        network, tokens, size = _network(hyper, train, len(labels) if tags is None else len(tags))
        network.to(device())
        judge = None if valid is None else _Judge(valid, tokens, size, labels)
        encoded = tokens.encode(train.texts)
        pieces = pieces_of(encoded, size, at_most=WINDOWS_AT_MOST)
        stacker = Stacker(encoded, pieces, tokens)
        objective = _objective(hyper, train, encoded, stacker, labels=labels)
        if objective.crf is not None:
            objective.crf.to(device())

        def chain() -> Transitions | None:
            return None if tags is None else _chain(objective.crf, tags)

        score = None if judge is None else (lambda: judge(torch_run(network), chain(), 4096))
        fitted = Trainer(network, objective, stacker, _plan(hyper, seed, 0 if judge is None else judge.tokens_count()), curve).run(score)
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


def _network(hyper: Any, train: Examples, outputs: int) -> tuple[Network, Tokens, int]:
    tagging = train.task == "tagging"
    if hyper.pretrained is not None:
        network, subwords, positions = open_pretrained(Path(hyper.pretrained), outputs=outputs, tagging=tagging, dropout=hyper.dropout)
        special = len(subwords.prefix) + len(subwords.suffix)
        return network, subwords, max(1, min(hyper.max_length, positions - special))
    grams = hyper.ngram_buckets if hyper.ngram_buckets is not None else 0 if tagging else 1 << 16
    tokens = CharTokens.learn(train.texts, min_count=hyper.min_count, patterns=PATTERNS[train.task], buckets=grams)
    shape = EncoderShape(len(tokens), outputs, tagging, hyper.layers, hyper.hidden, hyper.heads, hyper.ff, hyper.dropout, grams, hyper.token_dropout)
    return Encoder(shape), tokens, hyper.max_length


def _objective(hyper: Any, train: Examples, encoded: Sequence[Encoded], stacker: Stacker, *, labels: list[str]) -> Objective:
    if train.task == "classification":
        number = {name: i for i, name in enumerate(labels)}
        targets = np.array([number[name] for name in train.labels], np.int64)
        weights = balanced_weights(targets, len(labels)) if hyper.class_weights else None
        return ClassObjective(targets, stacker.pieces, smoothing=hyper.label_smoothing, class_weights=weights)
    tags = TagSet(tuple(labels))
    rows = [tags.encode(tokens_of_spans(spans, text), len(text.ids)) for spans, text in zip(train.spans, encoded, strict=True)]
    crf = CrfLayer(tags.legal) if hyper.head == "crf" else None
    return TagObjective(rows, stacker.pieces, head=len(stacker.tokens.prefix), crf=crf, smoothing=hyper.label_smoothing)


def _chain(crf: CrfLayer | None, tags: TagSet) -> Transitions:
    L = len(tags)
    zero = np.zeros(L, np.float32)
    chain = Transitions(zero, zero, np.where(tags.legal, np.float32(0), FORBIDDEN)) if crf is None else crf.transitions()
    return chain.constrained(tags.legal_start, tags.legal_end, tags.legal)


def _plan(hyper: Any, seed: int, score_tokens: int) -> Plan:
    scratch = hyper.pretrained is None
    rate = hyper.learning_rate or (1e-3 if scratch else 3e-5)
    return Plan(
        epochs=hyper.epochs,
        decay_epochs=max(hyper.epochs, hyper.decay_epochs or hyper.epochs),
        learning_rate=rate,
        head_rate=5e-3 if scratch else 1e-3,
        gram_rate=hyper.gram_rate * rate,
        batch_tokens=hyper.batch_tokens,
        patience=hyper.patience,
        weight_decay=hyper.weight_decay,
        bf16=bf16_pays(device().type) if hyper.bf16 == "auto" else hyper.bf16,
        reserve_s=2.0 if scratch else 20.0,
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
        "onnx_difference": difference,
    }


def _threads(hyper: Any) -> int:
    """Layers narrower than 256 are over before a second thread has begun."""
    return 1 if hyper.pretrained is None and hyper.hidden < 256 else len(os.sched_getaffinity(0))


@contextmanager
def _torch_state(seed: int, threads: int) -> Generator[None]:
    """Torch's process-wide seed and threads, put back afterwards."""
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.random.set_rng_state(state)
