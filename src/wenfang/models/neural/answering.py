"""From network outputs of pieces to one answer for each text: windows averaged or stitched. Knows nothing of who runs the network.

Torch (while training) and onnxruntime (ever after) run behind the same function, so what early stopping saw is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wenfang.core.examples import Span

from .batches import Batch, Piece, Stacker, buckets, pieces_of
from .paths import Floats, Transitions, best_paths
from .tokens import Encoded, Tokens

__all__ = ["Answerer", "Run", "softmax", "spans_of_tokens", "tokens_of_spans"]

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

    def class_probabilities(self, encoded: Sequence[Encoded]) -> Floats:
        """Shape (n, L): the mean over each text's windows, weighted by their tokens."""
        pieces, outputs = self._outputs(encoded, 0)
        total = np.zeros((len(encoded), outputs[0].shape[-1]), np.float64)
        weight = np.zeros((len(encoded), 1))
        for piece, output in zip(pieces, outputs, strict=True):
            share = max(1, piece.keep_end - piece.keep_start)
            total[piece.text] += share * softmax(output.astype(np.float64))
            weight[piece.text] += share
        return (total / weight).astype(np.float32)

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
