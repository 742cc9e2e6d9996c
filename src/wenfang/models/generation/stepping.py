"""Our own writer in numpy: one token after another, with the keys and values of all earlier ones kept. Knows nothing of texts or rules.

The twin of ``network``: equal weights give equal scores up to rounding. A prompt is read alone, so that no padding can touch it; then
all texts of a batch step together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .alphabet import BEGIN
from .shape import WriterShape, rotations

__all__ = ["Steps", "WriterSteps"]

Floats = npt.NDArray[np.floating]
"""float32 in practice; arithmetic is typed more widely."""
Rows = npt.NDArray[np.intp]
EPSILON = np.float32(1e-5)
GROW = 32
"""Positions by which a cache grows."""


class Cache(Protocol):
    """What was read and written so far, for B texts."""

    def take(self, rows: Rows) -> Cache:
        """The same for some of the texts, in that order; a text may come twice."""
        ...


class Steps(Protocol):
    """A network that writes one token at a time."""

    def room(self, prompt: int) -> int:
        """How many tokens fit behind a prompt of so many."""
        ...

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[Cache, Floats]:
        """Read B prompts: scores (B, V) of the first token."""
        ...

    def step(self, cache: Any, tokens: Sequence[int]) -> tuple[Cache, Floats]:
        """Append a token to each of B texts: scores (B, V) of the next. Takes the kind of cache it gave; the cache that was given is spent."""
        ...

    def together(self, caches: Sequence[Any]) -> Cache:
        """Several caches as one, their texts in order."""
        ...


@dataclass(slots=True)
class WriterCache:
    """Keys and values: own (layers, 2, B, heads, room, D), of the source (layers, 2, B, heads, S, D) under an encoder."""

    own: Floats
    lengths: npt.NDArray[np.intp]
    source: Floats | None = None
    source_lengths: npt.NDArray[np.intp] | None = None

    def take(self, rows: Rows) -> WriterCache:
        """Some of the texts."""
        source, lengths = self.source, self.source_lengths
        return WriterCache(self.own[:, :, rows], self.lengths[rows], None if source is None else source[:, :, rows], None if lengths is None else lengths[rows])


class WriterSteps:
    """Our writer, ready to write.

    Args:
        shape: all sizes.
        weights: the ``state_dict`` of ``network.Writer`` as arrays.
    """

    def __init__(self, shape: WriterShape, weights: Mapping[str, Floats]) -> None:
        self.shape = shape
        self.length_max = shape.length_max
        self._w = {name: np.ascontiguousarray(value.T) if value.ndim == 2 and name != "chars.weight" else value for name, value in weights.items()}
        self._scale = np.float32(shape.hidden**0.5)
        self._cos, self._sin = rotations(shape.length_max, shape.hidden // shape.heads)

    def room(self, prompt: int) -> int:
        """How many tokens fit behind a prompt of so many."""
        return self.length_max - 1 - (0 if self.shape.encoder_layers else prompt)

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[WriterCache, Floats]:
        """Read B prompts, each alone: scores (B, V) of the first token."""
        caches: list[WriterCache] = []
        states: list[Floats] = []
        for prompt in prompts:
            cache, state = self._read(list(prompt), [])
            caches.append(cache)
            states.append(state[-1])
        return self.together(caches), self._scores(np.stack(states))

    def step(self, cache: WriterCache, tokens: Sequence[int]) -> tuple[WriterCache, Floats]:
        """Append a token to each of B texts: scores (B, V) of the next."""
        lengths = cache.lengths
        B, room, widest = len(lengths), cache.own.shape[4], int(lengths.max()) + 1
        if widest > room:
            more = np.zeros((*cache.own.shape[:4], min(GROW, self.length_max + 1 - room), cache.own.shape[5]), np.float32)
            cache.own = np.concatenate([cache.own, more], axis=4)
        cos, sin = self._cos[lengths][:, None], self._sin[lengths][:, None]
        x = self._w["chars.weight"][np.asarray(tokens)] * self._scale
        rows = np.arange(B)
        hidden = np.where(np.arange(widest) <= lengths[:, None], np.float32(0), np.float32(-1e9))[:, None]
        for i in range(self.shape.layers):
            q, k, v = self._qkv(x, f"blocks.{i}")
            own = cache.own[i]
            own[0, rows, :, lengths], own[1, rows, :, lengths] = _turn(k, cos, sin), v
            looked = _attend(_turn(q, cos, sin)[:, :, None], own[0, :, :, :widest], own[1, :, :, :widest], hidden[:, :, None])
            x = x + looked[:, :, 0].reshape(B, -1) @ self._w[f"blocks.{i}.out.weight"]
            x = self._rest(x, i, cache)
        cache.lengths = lengths + 1
        return cache, self._scores(x)

    def together(self, caches: Sequence[WriterCache]) -> WriterCache:
        """Several caches as one, padded at their ends."""
        if len(caches) == 1:
            return caches[0]
        lengths = np.concatenate([c.lengths for c in caches])
        own = _padded([c.own for c in caches], min(self.length_max + 1, int(lengths.max()) + GROW))
        sources = [c.source for c in caches if c.source is not None]
        if not sources:
            return WriterCache(own, lengths)
        source_lengths = np.concatenate([c.source_lengths for c in caches if c.source_lengths is not None])
        return WriterCache(own, lengths, _padded(sources, int(source_lengths.max())), source_lengths)

    def log_probabilities(self, prompt: Sequence[int], target: Sequence[int]) -> Floats:
        """Of each token of ``target`` behind ``prompt``, shape (T,)."""
        _, states = self._read(list(prompt), list(target[:-1]))
        scores = self._scores(states[-len(target) :]).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        return (scores[np.arange(len(target)), target] - np.log(np.exp(scores).sum(axis=1))).astype(np.float32)

    def _read(self, prompt: list[int], target: list[int]) -> tuple[WriterCache, Floats]:
        """One prompt and what was written so far: its cache and the states (T, H) of the decoder."""
        source = None
        if self.shape.encoder_layers:
            source = self._encode(prompt or [0])
            prompt = []
        ids = [*prompt, BEGIN, *target]
        T, shape = len(ids), self.shape
        cache = WriterCache(np.zeros((shape.layers, 2, 1, shape.heads, T, shape.hidden // shape.heads), np.float32), np.array([T]), source)
        if source is not None:
            cache.source_lengths = np.array([source.shape[4]], np.intp)
        x = self._w["chars.weight"][ids] * self._scale
        ahead = np.triu(np.full((T, T), -1e9, np.float32), 1)
        for i in range(shape.layers):
            q, k, v = self._qkv(x, f"blocks.{i}")
            q, k = (_turn(a, self._cos[:T, None], self._sin[:T, None]) for a in (q, k))
            cache.own[i, 0, 0], cache.own[i, 1, 0] = k.transpose(1, 0, 2), v.transpose(1, 0, 2)
            looked = _attend(q.transpose(1, 0, 2), cache.own[i, 0, 0], cache.own[i, 1, 0], ahead)
            x = x + looked.transpose(1, 0, 2).reshape(T, -1) @ self._w[f"blocks.{i}.out.weight"]
            x = self._rest(x, i, cache)
        return cache, x

    def _encode(self, ids: list[int]) -> Floats:
        """Keys and values (layers, 2, 1, heads, S, D) that the decoder looks at."""
        S, shape = len(ids), self.shape
        x = self._w["chars.weight"][ids] * self._scale
        cos, sin = self._cos[:S, None], self._sin[:S, None]
        for i in range(shape.encoder_layers):
            q, k, v = self._qkv(x, f"encoder.{i}")
            looked = _attend(_turn(q, cos, sin).transpose(1, 0, 2), _turn(k, cos, sin).transpose(1, 0, 2), v.transpose(1, 0, 2), np.float32(0))
            x = x + looked.transpose(1, 0, 2).reshape(S, -1) @ self._w[f"encoder.{i}.out.weight"]
            x = x + self._feed(x, f"encoder.{i}")
        x = self._norm(x, "encoder_norm")
        pairs = [(x @ self._w[f"blocks.{i}.cross_kv.weight"]).reshape(S, 2, shape.heads, -1).transpose(1, 2, 0, 3) for i in range(shape.layers)]
        return np.stack(pairs)[:, :, None]

    def _rest(self, x: Floats, i: int, cache: WriterCache) -> Floats:
        """What follows self-attention in block ``i``: a look at the source, then feed-forward; x is (B, H) of B texts, or (T, H) of one."""
        name, source = f"blocks.{i}", cache.source
        if source is not None and cache.source_lengths is not None:
            q = (self._norm(x, f"{name}.cross_norm") @ self._w[f"{name}.cross_q.weight"]).reshape(len(x), self.shape.heads, -1)
            at: npt.NDArray[np.intp] = np.arange(int(source.shape[4]))
            there = np.less(at, cache.source_lengths[:, None])
            hidden = np.where(there, np.float32(0), np.float32(-1e9))[:, None, None]
            looked = _attend(q[:, :, None], source[i, 0], source[i, 1], hidden)  # one text: its keys and values serve all T rows
            x = x + looked[:, :, 0].reshape(len(x), -1) @ self._w[f"{name}.cross_out.weight"]
        return x + self._feed(x, name)

    def _qkv(self, x: Floats, name: str) -> tuple[Floats, Floats, Floats]:
        q, k, v = (self._norm(x, f"{name}.attention_norm") @ self._w[f"{name}.qkv.weight"]).reshape(len(x), 3, self.shape.heads, -1).transpose(1, 0, 2, 3)
        return q, k, v

    def _feed(self, x: Floats, name: str) -> Floats:
        inner = np.maximum(self._norm(x, f"{name}.ff_norm") @ self._w[f"{name}.up.weight"], np.float32(0))
        return (inner * inner) @ self._w[f"{name}.down.weight"]

    def _norm(self, x: Floats, name: str) -> Floats:
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON) * self._w[f"{name}.weight"]

    def _scores(self, x: Floats) -> Floats:
        return self._norm(x, "norm") @ self._w["chars.weight"].T


def _attend(q: Floats, k: Floats, v: Floats, hidden: Floats | np.float32) -> Floats:
    """Attention (…, Tq, D) over (…, Tk, D); ``hidden`` is added to the scores."""
    scores = q @ np.swapaxes(k, -1, -2) * np.float32(q.shape[-1] ** -0.5) + hidden
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores @ v


def _turn(x: Floats, cos: Floats, sin: Floats) -> Floats:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _padded(arrays: list[Floats], room: int) -> Floats:
    first = arrays[0].shape
    joined = np.zeros((*first[:2], sum(a.shape[2] for a in arrays), first[3], room, first[5]), np.float32)
    at = 0
    for array in arrays:
        wide = min(room, array.shape[4])  # what is dropped is room that nothing stands in
        joined[:, :, at : at + array.shape[2], :, :wide] = array[:, :, :, :, :wide]
        at += array.shape[2]
    return joined
