"""Graphs with a past as onnxruntime runs them, one token after another. Knows nothing of texts, files or training.

The writing graph takes ``ids mask places past_0 past_1 …`` and gives ``scores now_0 now_1 …``. Behind an encoder there is a second one that
reads a source, ``ids mask`` to ``cross_0 cross_1 …``, which the first then takes as well, with ``source``, the mask over them. A past is
filled up on its left, where its mask hides it: so distances between tokens stay true, for networks that know only those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Broken

__all__ = ["GraphCache", "GraphSteps"]

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class GraphCache:
    """Keys and values (B, heads, P, D) of each layer, which of them stand (B, P), and tokens of each text (B,)."""

    past: list[Floats]
    there: Ints
    lengths: Ints
    cross: list[Floats]
    """Of the source, (B, heads, S, D) of each layer; none without an encoder."""
    source: Ints
    """Which of those stand, (B, S)."""

    def take(self, rows: npt.NDArray[np.intp]) -> GraphCache:
        """Some of the texts; what none of them needs is dropped."""
        there, source = self.there[rows], self.source[rows]
        P, S = int(self.lengths[rows].max()), int(source.sum(axis=1).max())
        return GraphCache(
            [p[rows, :, p.shape[2] - P :] for p in self.past], there[:, there.shape[1] - P :], self.lengths[rows], [c[rows, :, :S] for c in self.cross], source[:, :S]
        )


class GraphSteps:
    """A writing graph, ready to write.

    Args:
        model: the bytes of the ONNX file.
        encoder: of the one that reads sources; empty: there is none, prompts are read by the first.
        starts: what stands before every text that is written behind an encoder.
        length_max: tokens it can stand in at once.
        vocabulary: tokens that mean something; networks are often a few rows wider.

    Raises:
        Broken: `neural.bad-graph`.
    """

    def __init__(self, model: bytes, *, encoder: bytes = b"", starts: Sequence[int] = (), length_max: int, vocabulary: int) -> None:
        self._session = _session(model)
        self._encoder = _session(encoder) if encoder else None
        self._past = [i for i in self._session.get_inputs() if i.name.startswith("past_")]
        self._names = {i.name for i in self._session.get_inputs()}
        self._starts = list(starts)
        self.length_max, self.vocabulary = length_max, vocabulary

    def room(self, prompt: int) -> int:
        """How many tokens fit behind a prompt of so many."""
        return self.length_max - (prompt if self._encoder is None else len(self._starts))

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[GraphCache, Floats]:
        """Read B prompts, each alone: scores (B, V) of the first token."""
        read = [self._read(prompt, []) for prompt in prompts]
        return self.together([cache for cache, _ in read]), np.stack([scores[-1] for _, scores in read])

    def step(self, cache: GraphCache, tokens: Sequence[int]) -> tuple[GraphCache, Floats]:
        """Append a token to each of B texts: scores (B, V) of the next."""
        cache, scores = self._on(cache, np.array(tokens, np.int64)[:, None])
        return cache, scores[:, -1]

    def together(self, caches: Sequence[GraphCache]) -> GraphCache:
        """Several caches as one, their texts in order."""
        if len(caches) == 1:
            return caches[0]
        P, S = (max(c.shape[1] for c in found) for found in ([c.there for c in caches], [c.source for c in caches]))
        past = [np.concatenate([_filled(p, 2, P, left=True) for p in layer]) for layer in zip(*(c.past for c in caches), strict=True)]
        cross = [np.concatenate([_filled(c, 2, S, left=False) for c in layer]) for layer in zip(*(c.cross for c in caches), strict=True)]
        there = np.concatenate([_filled(c.there, 1, P, left=True) for c in caches])
        return GraphCache(past, there, np.concatenate([c.lengths for c in caches]), cross, np.concatenate([_filled(c.source, 1, S, left=False) for c in caches]))

    def scores(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        """Of each of T ids behind a prompt and those before it, shape (T, V)."""
        return self._read(prompt, list(ids[:-1]))[1][-len(ids) :]

    def _read(self, prompt: Sequence[int], ids: list[int]) -> tuple[GraphCache, Floats]:
        nothing = GraphCache(
            [np.zeros((1, p.shape[1], 0, p.shape[3]), np.float32) for p in self._past], np.zeros((1, 0), np.int64), np.zeros(1, np.int64), [], np.zeros((1, 0), np.int64)
        )
        ids = [*prompt, *ids] if self._encoder is None else [*self._starts, *ids]
        if self._encoder is not None:
            nothing.source = np.ones((1, len(prompt)), np.int64)
            nothing.cross = self._encoder.run(None, {"ids": np.array([prompt], np.int64), "mask": nothing.source})
        cache, scores = self._on(nothing, np.array([ids], np.int64))
        return cache, scores[0]

    def _on(self, cache: GraphCache, ids: Ints) -> tuple[GraphCache, Floats]:
        """Scores (B, T, V) behind each of ids (B, T), and the new past."""
        there = np.concatenate([cache.there, np.ones(ids.shape, np.int64)], axis=1)
        given: dict[str, Any] = {"ids": ids, "mask": there, "places": cache.lengths[:, None] + np.arange(ids.shape[1]), "source": cache.source}
        given |= {f"past_{i}": p for i, p in enumerate(cache.past)} | {f"cross_{i}": c for i, c in enumerate(cache.cross)}
        scores, *now = self._session.run(None, {name: given[name] for name in self._names})
        return GraphCache(now, there, cache.lengths + ids.shape[1], cache.cross, cache.source), scores[..., : self.vocabulary]


def _session(model: bytes) -> Any:
    import onnxruntime as ort

    options: Any = cast("Any", ort).SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return cast("Any", ort).InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises its own unrelated classes for damaged files
        raise Broken("neural.bad-graph", reason=type(e).__name__) from e


def _filled(array: npt.NDArray[Any], axis: int, size: int, *, left: bool) -> npt.NDArray[Any]:
    missing = size - array.shape[axis]
    if not missing:
        return array
    empty = np.zeros((*array.shape[:axis], missing, *array.shape[axis + 1 :]), array.dtype)
    return np.concatenate([empty, array] if left else [array, empty], axis=axis)
