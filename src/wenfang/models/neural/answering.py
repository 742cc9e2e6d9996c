"""From network outputs of pieces to one answer for each text: windows averaged or stitched. Knows nothing of who runs the network.

Torch (while training) and onnxruntime (ever after) run behind the same function, so what early stopping saw is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Span

from .batches import Batch, Piece, Stacker, buckets, pieces_of
from .paths import Floats, Transitions, best_paths
from .questions import Questions
from .tokens import Encoded, Tokens

__all__ = ["Aggregate", "Answerer", "Run", "softmax", "spans_of_tokens", "tokens_of_spans"]

Aggregate = Literal["mean", "vote", "max"]
Run = Callable[[Batch], Floats]
"""A network: class scores (B, L) or tag scores (B, T, L), special tokens included."""


class Answerer:
    """Runs texts through a network in batches of like length.

    Args:
        run: the network.
        tokens: makes numbers of texts.
        size: tokens of a text that the network reads at once, without special ones.
        budget_tokens: padded tokens of a batch; 0: every piece alone.
    """

    def __init__(self, run: Run, tokens: Tokens, *, size: int, budget_tokens: int) -> None:
        self.run = run
        self.tokens = tokens
        self.size = size
        self.budget_tokens = budget_tokens

    def probabilities(self, questions: Questions, *, sigmoid: bool = False, aggregate: Aggregate = "mean") -> Floats:
        """Shape (n, L): of the windows of each question, its texts' and its pairs' alike, weighted by their tokens.

        Args:
            questions: n.
            sigmoid: each output is a probability of its own; else they share one.
            aggregate: ``mean`` of the windows; ``vote``: each window votes for what it holds most likely; ``max``: the surest window of each label.
        """
        pieces, outputs = self._outputs(questions.encoded, 0)
        owners = questions.owners[[p.text for p in pieces]]
        scores = np.array(outputs, np.float64)
        given: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(scores, -60, 60))) if sigmoid else softmax(scores).astype(np.float64)
        weights = np.array([max(1, p.keep_end - p.keep_start) for p in pieces], np.float64)[:, None]
        found = np.zeros((questions.count, given.shape[1]))
        if aggregate == "max":
            np.maximum.at(found, owners, given)
            return (found if sigmoid else found / found.sum(axis=1, keepdims=True)).astype(np.float32)
        if aggregate == "vote":  # votes rule; the mean behind them parts equals
            votes = (given >= 0.5) if sigmoid else np.eye(given.shape[1])[given.argmax(axis=1)]
            several = np.bincount(owners, minlength=questions.count)[owners] > 1
            given = np.where(several[:, None], 0.99 * votes + 0.01 * given, given)
        np.add.at(found, owners, weights * given)
        total = np.zeros((questions.count, 1))
        np.add.at(total, owners, weights)
        return (found / total).astype(np.float32)

    def tag_paths(self, encoded: Sequence[Encoded], chain: Transitions) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.float64]]:
        """The best tags of each text's tokens and the probability of the whole path; overlapping windows are stitched before the search."""
        pieces, outputs = self._outputs(encoded, min(64, self.size // 4))
        head, L = len(self.tokens.prefix), outputs[0].shape[-1]
        emissions = [np.empty((len(text.ids), L), np.float32) for text in encoded]
        for piece, output in zip(pieces, outputs, strict=True):
            first = head + piece.keep_start - piece.start
            emissions[piece.text][piece.keep_start : piece.keep_end] = output[first : first + piece.keep_end - piece.keep_start]
        lengths = np.array([len(e) for e in emissions], np.int32)
        paths: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32)] * len(encoded)
        scores = np.ones(len(encoded))
        for rows in buckets(lengths, 4096):
            together = np.zeros((len(rows), int(lengths[rows].max()), L), np.float32)
            for b, row in enumerate(rows.tolist()):
                together[b, : lengths[row]] = emissions[row]
            found, probabilities = best_paths(together, lengths[rows], chain)
            for row, path, p in zip(rows.tolist(), found, probabilities.tolist(), strict=True):
                paths[row], scores[row] = path, p
        return paths, scores

    def _outputs(self, encoded: Sequence[Encoded], overlap: int) -> tuple[list[Piece], list[Floats]]:
        pieces = pieces_of(encoded, self.size, overlap=overlap)
        stacker = Stacker(encoded, pieces, self.tokens)
        outputs: list[Floats] = [np.zeros(0, np.float32)] * len(pieces)
        for rows in buckets(stacker.lengths, self.budget_tokens):
            answer = self.run(stacker.stack(rows))
            for row, output in zip(rows.tolist(), answer, strict=True):
                outputs[row] = output
        return pieces, outputs


def softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Probabilities over the last axis.

    >>> softmax(np.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def tokens_of_spans(spans: Sequence[Span], encoded: Encoded) -> list[Span]:
    """Spans in code points as spans in tokens: every token they touch; a token that two touch goes to the first."""
    if encoded.offsets is None:
        return list(spans)
    starts, ends = encoded.offsets[:, 0], encoded.offsets[:, 1]
    found: list[Span] = []
    free = 0
    for span in sorted(spans, key=lambda s: s.start):
        first = max(free, int(np.searchsorted(ends, span.start, side="right")))
        last = int(np.searchsorted(starts, span.end, side="left"))
        if first < last:
            found.append(Span(first, last, span.label))
            free = last
    return found


def spans_of_tokens(spans: Sequence[Span], encoded: Encoded, text: str) -> tuple[Span, ...]:
    """Spans in tokens as spans in code points, without blanks at their ends."""
    if encoded.offsets is None:
        return tuple(spans)
    found: list[Span] = []
    for span in spans:
        start, end = int(encoded.offsets[span.start, 0]), int(encoded.offsets[span.end - 1, 1])
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start < end:
            found.append(Span(start, end, span.label))
    return tuple(found)
