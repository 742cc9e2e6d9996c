"""Sources and targets as rows of numbers, and passes over them for training. Knows nothing of networks.

A row is the prompt, ``BEGIN``, the target, ``END``. With an encoder the sources of a batch fill its first columns, so that ``BEGIN`` stands
in the same column of every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wenfang.core.conversation import conversation
from wenfang.core.examples import Examples
from wenfang.core.records import Task
from wenfang.core.text import encodable
from wenfang.models.neural.batches import Batch, buckets

from .alphabet import BEGIN, END, PAD, Alphabet

__all__ = ["Row", "RowFeed", "prompt_of", "rows_of"]

EVALUATED_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One example as numbers."""

    prompt: list[int]
    target: list[int]
    """``BEGIN`` first, ``END`` last unless it was cut."""


def prompt_of(text: str, alphabet: Alphabet, *, task: Task, limit: int) -> list[int]:
    """A source from its beginning, or the turns of a conversation up to its end, each behind the mark of its role; at most ``limit`` tokens."""
    if task != "chat":
        return alphabet.encode(encodable(text[:limit]))
    ids: list[int] = []
    for message in conversation(text):
        ids += [alphabet.role(message.role), *alphabet.encode(encodable(message.content))]
    return ids[-limit:] if limit else []


def rows_of(examples: Examples, alphabet: Alphabet, *, source_max: int, target_max: int) -> list[Row]:
    """Every example as a row; what is longer is cut, and then has no end."""
    rows: list[Row] = []
    for text, target in zip(examples.texts, examples.targets, strict=True):
        ids = alphabet.encode(encodable(target))
        whole = [BEGIN, *ids, END]
        rows.append(Row(prompt_of(text, alphabet, task=examples.task, limit=source_max), whole[: target_max + 2]))
    return rows


class RowFeed:
    """Rows in memory, shuffled into buckets of like length.

    Args:
        rows: n of them.
        batch_tokens: padded tokens of a batch.
        apart: source and target stand in columns of their own, for an encoder.
        learn_prompt: the network learns to write the prompts too; never with an encoder.
        pad: stands where nothing stands.
    """

    def __init__(self, rows: Sequence[Row], batch_tokens: int, *, apart: bool, learn_prompt: bool, pad: int = PAD) -> None:
        self.rows = rows
        self.batch_tokens = batch_tokens
        self.apart = apart
        self.pad = pad
        self.learn_prompt = learn_prompt and not apart
        self.lengths = np.array([len(r.prompt) + len(r.target) for r in rows], np.int32)

    def epoch(self, rng: np.random.Generator) -> tuple[int, Iterator[Batch]]:
        """Every row once."""
        batches = list(buckets(self.lengths, self.batch_tokens, rng))
        return len(batches), (self.stack(rows) for rows in batches)

    def in_order(self) -> Iterator[Batch]:
        """Every row once, by length: for evaluation."""
        for rows in buckets(self.lengths, EVALUATED_TOKENS):
            yield self.stack(rows)

    def stack(self, numbers: npt.NDArray[np.intp]) -> Batch:
        """Rows as one batch; targets are the tokens that follow, -1 where nothing is learned."""
        which: list[int] = numbers.tolist()
        rows = [self.rows[i] for i in which]
        first = max(len(r.prompt) for r in rows) if self.apart else 0
        begins = [max(first, 1) if self.apart else len(r.prompt) for r in rows]
        T = max(b + len(r.target) for b, r in zip(begins, rows, strict=True))
        ids = np.full((len(rows), T), self.pad, np.int32)
        targets = np.full((len(rows), T), -1, np.int32)
        mask = np.zeros((len(rows), T), np.bool_)
        for b, (row, begin) in enumerate(zip(rows, begins, strict=True)):
            end = begin + len(row.target)
            ids[b, : len(row.prompt)] = row.prompt
            ids[b, begin:end] = row.target
            mask[b, :end] = True
            learned = 0 if self.learn_prompt else begin
            targets[b, learned : end - 1] = ids[b, learned + 1 : end]
        return Batch(numbers, ids, mask, None, np.array([len(r.target) for r in rows], np.int32), targets)
