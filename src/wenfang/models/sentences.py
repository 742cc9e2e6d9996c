"""Training a network whose output is a sentence's vector: texts against themselves under dropout, pairs against the rest of their batch.

Imported by ``fit`` alone: needs torch. Knows nothing of families.

Source: Gao et al., SimCSE, 2021 (dropout as the only change, in-batch negatives); Su, CoSENT, 2022 (order of cosines by grade).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Curve
from .latent import normalised
from .neural.batches import Batch, Stacker, pieces_of
from .neural.encoder import Encoder, EncoderShape
from .neural.export import check_same, seconds_of, to_onnx, torch_run
from .neural.folders import is_ours, open_encoder
from .neural.loop import Plan, Trainer
from .neural.network import Network
from .neural.precision import device
from .neural.pretrained import open_pretrained
from .neural.quantising import int8_of
from .neural.selfcheck import made_up
from .neural.session import Session
from .neural.tokens import PATTERNS, CharTokens, Tokens
from .neural.torch_state import torch_state

__all__ = ["Learned", "Pairs", "open_network", "train_sentences"]

F32 = npt.NDArray[np.float32]
ORDER_SHARPNESS = 20.0
MINED_FROM_MAX = 4000
"""Texts among which near neighbours are looked for at once."""
INT8_COSINE = 0.995
"""Mean cosine of int8 vectors with the whole ones below which int8 is not taken."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """n pairs of texts to learn from; a text beside itself learns from dropout alone.

    Args:
        texts: n strings.
        texts_b: n strings.
        grades: 0..1, how alike, shape (n,); None: all alike.
    """

    texts: Sequence[str]
    texts_b: Sequence[str]
    grades: F32 | None


@dataclass(slots=True)
class Learned:
    """All that embedding needs."""

    tokens: Tokens
    size: int
    onnx: bytes
    int8: bool
    check: dict[str, npt.NDArray[Any]] | None
    """int8: questions that a serving machine must answer as this one did."""
    found: dict[str, Any]


class _Objective:
    """In-batch contrast of alike pairs, and the order of all pairs' cosines where they are graded."""

    layer: nn.Module | None = None

    def __init__(self, pairs: Pairs, temperature: float) -> None:
        n = len(pairs.texts)
        self.grades = np.ones(n, np.float32) if pairs.grades is None else pairs.grades
        self.graded = pairs.grades is not None
        self.temperature = temperature
        number: dict[str, int] = {}
        self.same = np.array([[number.setdefault(t, len(number)) for t in side] for side in (pairs.texts, pairs.texts_b)], np.int64)

    def weight(self, batch: Batch) -> float:
        """Pairs that stand in the batch with both sides."""
        return float(len(_whole(batch)[0]))

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """Sum over the pairs."""
        pair, left, right = _whole(batch)
        if len(pair) < 2:
            return scores.sum() * 0.0
        z = F.normalize(scores, dim=1)
        one, two = z[torch.from_numpy(left).to(z.device)], z[torch.from_numpy(right).to(z.device)]
        grades = torch.from_numpy(self.grades[pair]).to(z.device)
        loss = self._contrast(one, two, pair, grades)
        return (loss + self._order((one * two).sum(dim=1), grades) if self.graded else loss) * len(pair)

    def _contrast(self, one: Tensor, two: Tensor, pair: npt.NDArray[np.int64], grades: Tensor) -> Tensor:
        """Each side of an alike pair finds the other among the batch; equal texts are no rivals."""
        alike = (grades >= 0.75).float()
        a, b = self.same[0, pair], self.same[1, pair]
        rivals = (b[None, :] != b[:, None]) & (b[None, :] != a[:, None]) & (a[None, :] != a[:, None])
        mask = torch.from_numpy(~(rivals | np.eye(len(pair), dtype=np.bool_))).to(one.device)
        similar = (one @ two.T / self.temperature).masked_fill(mask, -1e4)
        target = torch.arange(len(pair), device=one.device)
        both = F.cross_entropy(similar, target, reduction="none") + F.cross_entropy(similar.T, target, reduction="none")
        return (both * alike).sum() / (2 * alike.sum().clamp_min(1.0))

    def _order(self, cosine: Tensor, grades: Tensor) -> Tensor:
        """CoSENT: a pair with the higher grade has the higher cosine."""
        apart = ORDER_SHARPNESS * (cosine[None, :] - cosine[:, None])  # [i, j]: how far j stands above i
        wrong = (grades[:, None] > grades[None, :]).float()
        return torch.logsumexp(torch.cat([apart.masked_fill(wrong == 0, -1e4).flatten(), apart.new_zeros(1)]), dim=0)

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """Sum over the rows of how far the two vectors point apart."""
        del batch
        return (1 - F.cosine_similarity(one, other, dim=1)).sum() / 2


def _whole(batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs whose two sides both stand in the batch, and the rows of the sides: piece 2 i and 2 i + 1 are pair i."""
    pair, side = np.divmod(batch.rows.astype(np.int64), 2)
    left, right = ({int(p): i for i, p in enumerate(pair) if side[i] == s} for s in (0, 1))
    both = sorted(left.keys() & right.keys())
    return np.array(both, np.int64), np.array([left[p] for p in both], np.int64), np.array([right[p] for p in both], np.int64)


class _PairFeed:
    """Batches of pairs; from the second pass on each batch holds neighbourhoods, so that its negatives are hard.

    Args:
        stacker: pieces 2 i and 2 i + 1 are pair i.
        size: pairs of a batch.
        embed: vectors of pieces as the network stands now.
        hard: share of each batch that are near neighbours of the rest.
    """

    def __init__(self, stacker: Stacker, size: int, embed: Callable[[npt.NDArray[np.intp]], F32], hard: float) -> None:
        self.stacker, self.size, self.embed, self.hard = stacker, size, embed, hard
        self.batch_tokens = max(1, int(2 * size * float(stacker.lengths.mean())))
        self.passes = 0

    def epoch(self, rng: np.random.Generator) -> tuple[int, Iterator[Batch]]:
        """Every pair once."""
        n = len(self.stacker.lengths) // 2
        order = rng.permutation(n)
        if self.hard and self.passes and n > self.size:
            order = np.concatenate([self._near(order[i : i + MINED_FROM_MAX]) for i in range(0, n, MINED_FROM_MAX)])
        self.passes += 1
        cuts = [order[i : i + self.size] for i in range(0, n, self.size)]
        if len(cuts) > 1 and len(cuts[-1]) < 2:
            cuts.pop()
        rows = [np.stack([2 * c, 2 * c + 1], axis=1).ravel().astype(np.intp) for c in cuts]
        return len(rows), (self.stacker.stack(r) for r in rows)

    def _near(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The same pairs, with near neighbours brought together."""
        vectors = self.embed((2 * order).astype(np.intp))
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -2.0)
        follow = round(self.hard / (1 - min(0.9, self.hard))) or 1
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, : 4 * follow]
        free, found = np.ones(len(order), np.bool_), list[int]()
        for i in range(len(order)):
            if free[i]:
                company = [i, *(j for j in nearest[i].tolist() if free[j])][: 1 + follow]
                free[company] = False
                found += company
        return order[found]


def open_network(hyper: Any, texts: Sequence[str]) -> tuple[Network, Tokens, int]:
    """The untrained network, its tokens, and how many of them it reads at once.

    A pretrained body begins with the mean of its states as the vector, so nothing it knows is lost before training.

    Raises:
        Invalid: `neural.pretrained-missing` and its like.
    """
    folder = None if hyper.pretrained is None else Path(hyper.pretrained)
    if folder is not None and not is_ours(folder):
        network, subwords, positions = open_pretrained(folder, outputs=hyper.dimension, tagging=False, dropout=0.0)
        _begin(network.head, network.head.in_features // 2, mean_at=1, pretrained=True)
        return network, subwords, max(1, min(hyper.max_length, positions - len(subwords.prefix) - len(subwords.suffix)))
    tokens = CharTokens.learn(texts, min_count=hyper.min_count)
    start = None if folder is None else open_encoder(folder)
    tokens = CharTokens((tokens if start is None else start.widened(tokens.chars)).chars, patterns=PATTERNS["classification"], buckets=hyper.ngram_buckets)
    sizes: dict[str, Any] = {
        "vocabulary": len(tokens),
        "outputs": hyper.dimension,
        "tagging": False,
        "dropout": hyper.dropout,
        "gram_buckets": hyper.ngram_buckets,
        "token_dropout": hyper.token_dropout,
    }
    shape = EncoderShape(layers=hyper.layers, hidden=hyper.hidden, heads=hyper.heads, ff=hyper.ff, **sizes) if start is None else replace(start.shape, **sizes)
    own = Encoder(shape) if start is None else start.encoder(shape)
    assert isinstance(own.head, nn.Linear)
    _begin(own.head, shape.hidden, mean_at=0, pretrained=start is not None)
    return own, tokens, hyper.max_length


def _begin(head: nn.Linear, H: int, *, mean_at: int, pretrained: bool) -> None:
    """First weights of the head, far from zero, for a direction is all that counts; over a pretrained body the mean of the states, as it is or shuffled."""
    with torch.no_grad():
        nn.init.normal_(head.weight, std=H**-0.5)
        if pretrained:
            mean = head.weight[:, mean_at * H : (mean_at + 1) * H].clone()
            head.weight.zero_()
            D = len(head.weight)
            head.weight[:, mean_at * H : (mean_at + 1) * H] = torch.eye(H)[:D] if D <= H else mean


def _plan(hyper: Any, seed: int) -> Plan:
    scratch = hyper.pretrained is None
    rate = hyper.learning_rate or (1e-3 if scratch else 3e-5)
    return Plan(
        epochs=hyper.epochs, decay_epochs=max(hyper.epochs, hyper.decay_epochs or hyper.epochs), learning_rate=rate, head_rate=rate, gram_rate=hyper.gram_rate * rate,
        patience=hyper.patience, reserve_s=2.0 if scratch else 20.0, seed=seed,
    )  # fmt: skip


def train_sentences(hyper: Any, pairs: Pairs, *, seed: int, curve: Curve, score: Callable[[Callable[[Batch], Any], Tokens, int], float] | None) -> Learned:
    """Train, export, check.

    Args:
        hyper: of the ``encoder`` family.
        pairs: to learn from.
        seed: of everything random.
        curve: told how it goes.
        score: judges a network, with its tokens and their number at once, on valid; None: there is nothing to judge by.
    """
    threads = hyper.threads or (1 if hyper.pretrained is None and hyper.hidden < 256 else len(os.sched_getaffinity(0)))
    with torch_state(seed, threads):
        return _train(hyper, pairs, _plan(hyper, seed), curve, score)


def _train(hyper: Any, pairs: Pairs, plan: Plan, curve: Curve, score: Callable[[Callable[[Batch], Any], Tokens, int], float] | None) -> Learned:
    network, tokens, size = open_network(hyper, [*pairs.texts, *pairs.texts_b])
    network.to(device())
    encoded = tokens.encode([t for pair in zip(pairs.texts, pairs.texts_b, strict=True) for t in pair])
    pieces = pieces_of(encoded, size, at_most=1)
    stacker = Stacker(encoded, pieces, tokens)

    def embed(rows: npt.NDArray[np.intp]) -> F32:
        run = torch_run(network)
        found = normalised(np.concatenate([run(stacker.stack(rows[i : i + 256])) for i in range(0, len(rows), 256)]))
        network.train()
        return found

    hard = 0.0 if pairs.texts_b is pairs.texts else hyper.hard  # texts alone: the nearest ones may well mean the same
    feed = _PairFeed(stacker, hyper.pairs_at_once, embed, hard)
    fitted = Trainer(network, _Objective(pairs, hyper.temperature), feed, plan, curve).run(None if score is None else (lambda: score(torch_run(network), tokens, size)))
    network.to("cpu")
    spread = np.unique(np.linspace(0, len(pieces) - 1, 16).astype(np.intp))
    samples = [stacker.stack(spread[:8]), stacker.stack(spread), *(stacker.stack(spread[i : i + 1]) for i in range(min(4, len(spread))))]
    onnx = to_onnx(network, samples[0])
    session = Session(onnx)
    difference = check_same(session, network, samples)
    small = _small(onnx, session, samples[2:], hyper.int8)
    found = {"best_epoch": fitted.best_epoch or fitted.decay_epochs, "decay_epochs": fitted.decay_epochs, "steps": fitted.steps, "onnx_difference": difference}
    check = None if small is None else made_up(Session(small), session, tokens)
    return Learned(tokens, size, small or onnx, small is not None, check, found)


def _small(onnx: bytes, session: Session, singles: Sequence[Batch], wish: bool | str) -> bytes | None:
    """The int8 network if it is wanted: always, or when its vectors point the same way and it is faster."""
    if wish is False:
        return None
    small = int8_of(onnx)
    if wish is True:
        return small
    candidate = Session(small)
    cosine = np.mean([(normalised(candidate(b)) * normalised(session(b))).sum(axis=1).mean() for b in singles])
    return small if cosine >= INT8_COSINE and seconds_of(candidate, singles) <= 0.9 * seconds_of(session, singles) else None
