"""From a network of the transformers library to graphs with keys and values kept, proved against torch. Knows nothing of training or texts."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenfang.core.errors import Broken, Unsupported

from .graphs import GraphSteps

__all__ = ["Graphs", "exported"]

TOLERANCE = 1e-3
TRACED_OPSET = 17


@dataclass(frozen=True, slots=True)
class Graphs:
    """Bytes of ONNX files."""

    model: bytes
    encoder: bytes = b""
    """Empty: none."""


class _Stepping(nn.Module):
    """A decoder with a past that goes in and out."""

    def __init__(self, body: nn.Module, layers: int) -> None:
        super().__init__()
        self.body, self.layers = body, layers

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        given: Any = self.body(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=_cache(past), use_cache=True)
        return (given.logits, *_kept(given.past_key_values))


class _Reading(nn.Module):
    """A source as keys and values of each layer of the decoder."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        given: Any = self.body(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :1] * 0, use_cache=True)
        return tuple(_kept(given.past_key_values.cross_attention_cache))


class _Telling(nn.Module):
    """The decoder behind an encoder, with both pasts."""

    def __init__(self, body: Any, layers: int) -> None:
        super().__init__()
        self.body, self.layers = body, layers
        self._places: Tensor | None = None
        positions = getattr(body.get_decoder(), "embed_positions", None)
        if positions is not None:  # they count from the length of the past, which other texts made longer

            def replaced(module: Any, _given: Any, found: Tensor) -> Tensor:
                return found if self._places is None else F.embedding(self._places + getattr(module, "offset", 0), module.weight)

            positions.register_forward_hook(replaced)

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor, source: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers.cache_utils import EncoderDecoderCache
        from transformers.modeling_outputs import BaseModelOutput

        own, cross = past[: 2 * self.layers], past[2 * self.layers :]
        cache: Any = EncoderDecoderCache(_cache(own), _cache(cross))
        cache.is_updated = dict.fromkeys(range(self.layers), True)
        body: Any = self.body
        states: Any = (source[:, :, None] * 0).float().expand(-1, -1, body.config.hidden_size)  # never looked at: their keys and values are kept
        self._places = places
        try:
            given: Any = body(
                encoder_outputs=BaseModelOutput(last_hidden_state=states), attention_mask=source, decoder_input_ids=ids, decoder_attention_mask=mask,
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
        finally:
            self._places = None
        return (given.logits, *_kept(given.past_key_values.self_attention_cache))


def _cache(past: Sequence[Tensor]) -> Any:
    from transformers.cache_utils import DynamicCache

    cache: Any = DynamicCache()
    for i in range(len(past) // 2):
        cache.update(past[2 * i], past[2 * i + 1], i)
    return cache


def _kept(cache: Any) -> list[Tensor]:
    return [kept for layer in cache.layers for kept in (layer.keys, layer.values)]


def exported(body: Any, folder: Path, *, starts: Sequence[int]) -> Graphs:
    """The graphs of a network, proved: two texts of unequal lengths, written side by side, have the scores that torch gives each alone at once.

    Args:
        body: with a head over its vocabulary, in evaluation.
        folder: where it came from, for the error.
        starts: what stands before every text behind an encoder; none: it is a decoder alone.

    Raises:
        Unsupported: `generation.not-exportable`.

    Cost: twice the network in memory beside it; 2-20 s.
    """
    body.eval()
    made = torch.Generator().manual_seed(0)
    rows = int(body.get_input_embeddings().weight.shape[0])
    drawn: list[list[int]] = [torch.randint(0, rows, (size,), generator=made).tolist() for size in (7, 4, 3, 3)]
    prompts, texts = drawn[:2], drawn[2:]
    try:
        with warnings.catch_warnings(), torch.inference_mode():  # tracing warns of each Python branch; what it got wrong shows below
            warnings.simplefilter("ignore")
            graphs = _both(body, made) if starts else _alone(body, made)
            wanted = [_at_once(body, starts, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        steps = GraphSteps(graphs.model, encoder=graphs.encoder, starts=starts, length_max=64, vocabulary=wanted[0].shape[1])
        cache, scores = steps.begin(prompts)
        found = [scores]
        for tokens in zip(*texts, strict=True):
            cache, scores = steps.step(cache, tokens)
            found.append(scores)
        apart = float(np.abs(np.stack(found, axis=1) - np.stack(wanted)).max())
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, Broken) as e:
        raise Unsupported("generation.not-exportable", path=str(folder), reason=type(e).__name__) from e
    if not apart <= TOLERANCE:
        raise Unsupported("generation.not-exportable", path=str(folder), reason=f"{apart:.1e}" if math.isfinite(apart) else "NaN")
    return graphs


def _at_once(body: Any, starts: Sequence[int], prompt: list[int], text: list[int]) -> Any:
    """Scores (T + 1, V) of each token of a text and of what follows it, nothing kept."""
    if starts:
        given = body(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[*starts, *text]]), use_cache=False)
    else:
        given = body(input_ids=torch.tensor([[*prompt, *text]]), use_cache=False)
    return given.logits[0, -len(text) - 1 :].numpy()


def _alone(body: Any, made: torch.Generator) -> Graphs:
    probe = _kept(body(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=True).past_key_values)
    B, T, P = 2, 3, 5
    given = (*_example(made, B, T, P), *(torch.randn(B, p.shape[1], P, p.shape[3], generator=made) for p in probe))
    names = [f"past_{i}" for i in range(len(probe))]
    return Graphs(_traced(_Stepping(body, len(probe) // 2), given, ["ids", "mask", "places", *names], ["scores", *_now(len(probe))]))


def _both(body: Any, made: torch.Generator) -> Graphs:
    reading = _Reading(body)
    B, T, P, S = 2, 3, 5, 6
    source = torch.ones(B, S, dtype=torch.long)
    cross = reading(torch.zeros(B, S, dtype=torch.long), source)
    names = [f"cross_{i}" for i in range(len(cross))]
    encoder = _traced(reading, (torch.arange(B * S).view(B, S) % 5, source), ["ids", "mask"], names)
    past = tuple(torch.randn(B, c.shape[1], P, c.shape[3], generator=made) for c in cross)
    given = (*_example(made, B, T, P), source, *past, *cross)
    pasts = [f"past_{i}" for i in range(len(cross))]
    return Graphs(_traced(_Telling(body, len(cross) // 2), given, ["ids", "mask", "places", "source", *pasts, *names], ["scores", *_now(len(cross))]), encoder)


def _example(made: torch.Generator, B: int, T: int, P: int) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.ones(B, P + T, dtype=torch.long)
    mask[0, : P // 2] = 0
    places = torch.arange(P, P + T)[None].repeat(B, 1)
    places[0] -= P // 2
    return torch.randint(0, 5, (B, T), generator=made), mask, places


def _now(count: int) -> list[str]:
    return [f"now_{i}" for i in range(count)]


def _traced(network: nn.Module, given: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    axes: dict[str, dict[int, str]] = {}
    sizes = {"ids": {0: "B", 1: "T"}, "mask": {0: "B", 1: "M"}, "places": {0: "B", 1: "T"}, "source": {0: "B", 1: "S"}, "scores": {0: "B", 1: "T"}}
    for name in (*inputs, *outputs):
        kind = name.split("_")[0]
        axes[name] = sizes.get(kind) or {0: "B", 2: {"past": "P", "now": "N", "cross": "S"}[kind]}
    file = io.BytesIO()
    cast("Any", torch.onnx).export(network.eval(), given, file, input_names=inputs, output_names=outputs, dynamic_axes=axes, opset_version=TRACED_OPSET, dynamo=False)
    return file.getvalue()
