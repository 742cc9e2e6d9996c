"""The extractive writer: learns which pieces of a source its target keeps, puts pieces together, and lets a judge choose. Numpy only.

Knows nothing of networks. The judge learns from sources that the labels it sees were not learned from (four folds), else it would trust
them too much.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid, Unsupported
from wenfang.core.examples import Examples, Output
from wenfang.core.records import Task
from wenfang.models.base import Curve, Emit
from wenfang.models.weights import load_arrays, save_arrays

from .asking import Habits
from .candidates import Phrases, candidates_of
from .judging import FIGURES, Judge, figures_of, overlap
from .keeping import HEADS, Keeper
from .ngrams import NGrams
from .units import ROWS, Frequencies, Units, units_of

__all__ = ["Composer"]

Doubles = npt.NDArray[np.float64]
FOLDS = 4
ORDER = 3
PAIRS_MAX = 10_000
"""Pairs whose features are held in memory at once."""
JUDGED_MAX = 2_000
SCORED_MAX = 300
_ARRAYS: dict[str, tuple[Any, int]] = {
    "keep": (np.float16, 2), "bias": (np.float32, 1), "pairs": (np.uint64, 1), "pair_texts": (np.int64, 1), "seen": (np.uint64, 1), "seen_chance": (np.float64, 1),
    "rest": (np.uint64, 1), "rest_share": (np.float64, 1), "centre": (np.float64, 1), "spread": (np.float64, 1), "judge": (np.float64, 1),
}  # fmt: skip


@dataclass(slots=True)
class Composer:
    """What was learned."""

    keeper: Keeper
    language: NGrams
    phrases: Phrases
    judge: Judge
    length: tuple[float, float]
    """Mean and deviation of targets, in units."""

    @property
    def target_max(self) -> int:
        """Units that an answer has at most where nobody asks: four deviations above the mean."""
        return max(1, round(self.length[0] + 4 * self.length[1]))

    @classmethod
    def learn(cls, train: Examples, valid: Examples | None, *, epochs: int, seed: int, curve: Curve) -> tuple[Self, float | None]:
        """From pairs; the score on valid is the mean ROUGE-L, None without valid or time.

        Cost: 1,000 pairs of 200 characters in about 30 CPU-s, 12 ms for an answer.
        """
        rng = np.random.default_rng(seed)
        rows: list[int] = sorted(rng.permutation(len(train))[:PAIRS_MAX].tolist())
        sources, targets = [units_of(train.texts[i]) for i in rows], [units_of(train.targets[i]) for i in rows]
        weights = [train.weights[i] for i in rows] if train.weights else []
        keeper = Keeper.learn(sources, targets, epochs=epochs, seed=seed, curve=curve, weights=weights)
        sizes = np.array([len(t) for t in targets])
        blank = Judge.learn([])
        composer = cls(keeper, NGrams.learn((t.words for t in targets), order=ORDER), Phrases.learn(targets), blank, (float(sizes.mean()), float(max(1.0, sizes.std()))))
        composer.judge = Judge.learn(composer._lessons(sources, targets, epochs=epochs, rng=rng, curve=curve))
        if valid is None or curve.late():
            return composer, None
        score = composer._score(valid.take(range(min(SCORED_MAX, len(valid)))))
        curve.point(epochs, valid_score=score)
        return composer, score

    def _lessons(self, sources: Sequence[Units], targets: Sequence[Units], *, epochs: int, rng: np.random.Generator, curve: Curve) -> Iterator[tuple[Doubles, Doubles]]:
        """Figures and overlaps of the candidates of sources that their keeper has not seen."""
        order = rng.permutation(len(sources))
        if len(sources) < 2 * FOLDS:
            return
        for fold in range(FOLDS):
            held: list[int] = order[fold::FOLDS].tolist()
            rest: list[int] = np.setdiff1d(order, held).tolist()
            if curve.late():
                return
            keeper = Keeper.learn([sources[i] for i in rest], [targets[i] for i in rest], epochs=epochs, seed=fold, curve=Curve(deadline=curve.deadline))
            language = NGrams.learn((targets[i].words for i in rest), order=ORDER)
            for i in held[: JUDGED_MAX // FOLDS]:
                if curve.late():
                    return
                figures, words = self._candidates(sources[i], keeper, language)
                yield figures, np.array([overlap(w, targets[i].words) for w, _ in words])

    def _candidates(self, units: Units, keeper: Keeper, language: NGrams) -> tuple[Doubles, list[tuple[tuple[str, ...], str]]]:
        odds = keeper.scores(units)
        found = candidates_of(units, odds, self.phrases, language)
        figures = figures_of(units, odds, found, self.phrases, language, length=self.length)
        return figures, [(c.words, c.text) for c in found]

    def _score(self, examples: Examples) -> float:
        said = self.write(examples.texts, [Generation()] * len(examples), task="generation", habits=Habits(self.target_max), emit=None)
        return float(np.mean([overlap(units_of(o.text or "").words, units_of(t).words) for o, t in zip(said, examples.targets, strict=True)]))

    def write(self, texts: Sequence[str], asked: Sequence[Generation], *, task: Task, habits: Habits, emit: Emit | None) -> list[Output]:
        """The best text for each source; tokens are units, and sampling has no meaning here.

        Raises:
            Invalid: `generation.no-schema`.
        """
        del task
        if any(a.json_schema is not None for a in asked):
            raise Invalid("generation.no-schema")
        outputs: list[Output] = []
        for row, (text, ask) in enumerate(zip(texts, asked, strict=True)):
            units = units_of(text)
            said, finish = self._best(units, ask, ask.max_tokens or habits.max_tokens)
            for word in ask.stop:
                said = said[: said.find(word)] if word and word in said else said
            if emit is not None and said:
                emit(row, said)
            outputs.append(Output(text=said, finish=finish, tokens_in=len(units), tokens_out=len(units_of(said))))
        return outputs

    def _best(self, units: Units, ask: Generation, most: int) -> tuple[str, str]:
        figures, found = self._candidates(units, self.keeper, self.language)
        allowed = [i for i, (words, text) in enumerate(found) if len(words) <= most and not any(w and w in text for w in ask.forbidden)]
        allowed = [i for i in allowed if len(found[i][0]) >= ask.min_tokens] or allowed
        if allowed:
            worth = self.judge.worth(figures[allowed])
            return found[allowed[int(worth.argmax())]][1], "stop"
        return _beginning(units, min(most, self.target_max), ask.forbidden)

    def losses(self, examples: Examples) -> tuple[Doubles, npt.NDArray[np.int64]]:  # noqa: ARG002 for those that can
        """It has no probabilities.

        Raises:
            Unsupported: `generation.no-perplexity`.
        """
        raise Unsupported("generation.no-perplexity")

    def save(self, folder: Path) -> None:
        """``composer.json`` and ``composer.safetensors``."""
        pairs, texts = _columns(self.keeper.frequencies.counts, np.int64)
        seen, seen_chance = _columns(self.language.seen, np.float64)
        rest, rest_share = _columns(self.language.rest, np.float64)
        judge = self.judge
        arrays = {
            "keep": self.keeper.weights.astype(np.float16), "bias": self.keeper.bias, "pairs": pairs, "pair_texts": texts, "seen": seen, "seen_chance": seen_chance,
            "rest": rest, "rest_share": rest_share, "centre": judge.centre, "spread": judge.spread, "judge": judge.weights,
        }  # fmt: skip
        head = {"endings": self.phrases.endings, "links": self.phrases.links, "length": self.length, "floor": self.language.floor, "texts": self.keeper.frequencies.n}
        write_file(folder / "composer.json", json.dumps(head, ensure_ascii=True).encode())
        save_arrays(folder / "composer.safetensors", arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The composer that ``save`` wrote.

        Raises:
            Broken: `model.damaged`.
        """
        arrays = load_arrays(folder / "composer.safetensors", _ARRAYS)
        try:
            head: dict[str, Any] = json.loads((folder / "composer.json").read_bytes())
            phrases = Phrases(tuple((tuple(w), float(s)) for w, s in head["endings"]), tuple(tuple(w) for w in head["links"]))
            mean, deviation = map(float, head["length"])
            frequencies = Frequencies(dict(zip(arrays["pairs"].tolist(), arrays["pair_texts"].tolist(), strict=True)), int(head["texts"]))
            seen, rest = (dict(zip(arrays[k].tolist(), arrays[v].tolist(), strict=True)) for k, v in (("seen", "seen_chance"), ("rest", "rest_share")))
            language = NGrams(ORDER, seen, rest, float(head["floor"]))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("model.damaged", file="composer.json", reason=type(e).__name__) from e
        judge = Judge(arrays["centre"], arrays["spread"], arrays["judge"])
        if arrays["keep"].shape != (ROWS, HEADS) or len(judge.centre) != FIGURES:
            raise Broken("model.damaged", file="composer.safetensors", reason="shapes")
        return cls(Keeper(arrays["keep"].astype(np.float32), arrays["bias"], frequencies), language, phrases, judge, (mean, deviation))


def _beginning(units: Units, most: int, forbidden: Sequence[str]) -> tuple[str, str]:
    """Where nothing seems worth keeping: the first clause, up to a forbidden word."""
    there = [i for i, mark in enumerate(units.mark) if not mark]
    if not there:
        return "", "stop"
    start = there[0]
    end = next((i for i in range(start, len(units)) if units.mark[i]), len(units))
    text = units.text[units.spans[start][0] : units.spans[min(end, start + most) - 1][1]]
    for word in forbidden:
        text = text[: text.find(word)] if word and word in text else text
    return text, "stop" if end <= start + most else "length"


def _columns(table: dict[int, Any], dtype: Any) -> tuple[npt.NDArray[np.uint64], npt.NDArray[Any]]:
    keys = sorted(table)
    return np.array(keys, np.uint64), np.array([table[k] for k in keys], dtype)
