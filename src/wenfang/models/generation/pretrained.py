"""A local decoder-only directory of the transformers library: fine-tuned, then exported with keys and values kept. Never fetches, never unpickles.

Knows nothing of families. The exported graph must answer as torch does for other shapes than those it was traced with, else it is refused.
"""

from __future__ import annotations

import io
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wenfang.core.errors import Broken, Invalid, Unsupported
from wenfang.core.examples import Examples
from wenfang.models.base import Curve
from wenfang.models.neural.directories import describe
from wenfang.models.neural.network import Network
from wenfang.models.neural.pretrained import OFFLINE
from wenfang.models.neural.torch_state import torch_state

from .sequences import Row
from .served import GraphSteps, PretrainedWriter
from .subwords import Subwords
from .training import found_of, train_rows

__all__ = ["fit_pretrained"]

TOLERANCE = 1e-3
TRACED_OPSET = 17


@dataclass(slots=True)
class LearnedPretrained:
    """What serves, and what training found."""

    writer: PretrainedWriter
    found: dict[str, Any]


class Causal(Network):
    """A transformers model as the training loop sees it.

    Args:
        body: with a head over its vocabulary.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: Tensor, mask: Tensor, grams: Tensor | None = None) -> Tensor:
        """Scores (B, T, V) of the token that follows each of ids (B, T)."""
        del grams
        return self.body(input_ids=ids.long(), attention_mask=mask.long(), use_cache=False).logits


class _Stepping(nn.Module):
    """The same with a past that goes in and out: what is exported."""

    def __init__(self, body: nn.Module, layers: int) -> None:
        super().__init__()
        self.body, self.layers = body, layers

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers.cache_utils import DynamicCache

        cache: Any = DynamicCache()
        for i in range(self.layers):
            cache.update(past[2 * i], past[2 * i + 1], i)
        given: Any = self.body(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True)
        now: list[Tensor] = [kept for layer in given.past_key_values.layers for kept in (layer.keys, layer.values)]
        return (given.logits, *now)


def fit_pretrained(hyper: Any, train: Examples, valid: Examples | None, *, seed: int, curve: Curve) -> LearnedPretrained:
    """Fine-tune all weights on pairs, export, and check the export.

    Raises:
        Invalid: `neural.pretrained-missing`, `neural.pickled-weights`, `neural.pretrained-incomplete`, `neural.pretrained-unreadable`, `neural.not-finite`.
        Unsupported: `generation.not-a-decoder`, `generation.not-exportable`.
    """
    folder = Path(hyper.pretrained)
    body, tokens, positions = _open(folder)
    size = min(hyper.max_length, positions)
    encoded = [tokens.encode(t) for t in train.targets]
    target_max = max(1, min(size // 2, max(map(len, encoded))))
    rows = _rows(train, tokens, size=size, target_max=target_max)
    judged = _rows(valid, tokens, size=size, target_max=target_max) if valid is not None else []
    network = Causal(body)
    request = {"hyper": hyper.model_dump(mode="json"), "rows": [[r.prompt, r.target] for r in [*rows, *judged]], "seed": seed}
    with torch_state(seed, hyper.threads or len(os.sched_getaffinity(0))):
        fitted, loss = train_rows(network, rows, judged, hyper=hyper, curve=curve, request=request, seed=seed)
        model = _exported(network.body, folder)
    writer = PretrainedWriter(model, tokens, length_max=size, target_max=target_max)
    return LearnedPretrained(writer, found_of(fitted, loss, target_max))


def _open(folder: Path) -> tuple[nn.Module, Subwords, int]:
    config = describe(folder)
    if config.get("is_encoder_decoder"):
        raise Unsupported("generation.not-a-decoder", path=str(folder))
    for name in OFFLINE:
        os.environ.setdefault(name, "1")  # before the first import of transformers: it reads them once
    import transformers

    load: Any = cast("Any", transformers).AutoModelForCausalLM.from_pretrained
    try:
        body: Any = load(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32)
        body.config.use_cache = True
        tokens = Subwords((folder / "tokenizer.json").read_bytes(), end=_end(config), template=_template(folder))
    except Exception as e:  # tokenizers and safetensors raise bare Exceptions of their own for damaged files
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason=type(e).__name__) from e
    return body, tokens, int(config.get("max_position_embeddings") or config.get("n_positions") or 1024)


def _end(config: dict[str, Any]) -> int:
    given: Any = config.get("eos_token_id")
    return int(given[0] if isinstance(given, list) else given)  # pyright: ignore[reportUnknownArgumentType]


def _template(folder: Path) -> str | None:
    """The chat template, as the directory has it in one of two places."""
    alone, within = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    found: Any = json.loads(within.read_bytes()).get("chat_template") if within.is_file() else None
    return found if isinstance(found, str) else None


def _rows(examples: Examples, tokens: Subwords, *, size: int, target_max: int) -> list[Row]:
    rows: list[Row] = []
    for text, target in zip(examples.texts, examples.targets, strict=True):
        prompt = tokens.prompt(text, task=examples.task, limit=max(1, size - target_max - 1))
        rows.append(Row(prompt[:-1], [prompt[-1], *[*tokens.encode(target), tokens.end][: target_max + 1]]))
    return rows


def _exported(body: nn.Module, folder: Path) -> bytes:
    """The graph, proved against torch in two shapes it was not traced with."""
    config: Any = cast("Any", body).config
    layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    kept = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    stepping = _Stepping(body, layers).eval()

    def example(B: int, T: int, P: int) -> tuple[Tensor, ...]:
        made = torch.Generator().manual_seed(B + T + P)
        past = [torch.randn(B, kept, P, width, generator=made) for _ in range(2 * layers)]
        mask = torch.ones(B, P + T, dtype=torch.long)
        mask[0, : P // 2] = 0
        return torch.randint(0, int(config.vocab_size), (B, T), generator=made), mask, torch.arange(P, P + T)[None].repeat(B, 1), *past

    names = [f"{when}_{i}" for when in ("past", "now") for i in range(2 * layers)]
    axes: dict[str, dict[int, str]] = {"ids": {0: "B", 1: "T"}, "mask": {0: "B", 1: "S"}, "places": {0: "B", 1: "T"}, "scores": {0: "B", 1: "T"}}
    axes |= {name: {0: "B", 2: "P" if name.startswith("past") else "S"} for name in names}
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():  # tracing warns of each Python branch; what it got wrong shows below
            warnings.simplefilter("ignore")
            cast("Any", torch.onnx).export(
                stepping, example(2, 3, 5), file, input_names=["ids", "mask", "places", *names[: 2 * layers]], output_names=["scores", *names[2 * layers :]],
                dynamic_axes=axes, opset_version=TRACED_OPSET, dynamo=False,
            )  # fmt: skip
        model = file.getvalue()
        apart = max(_apart(model, stepping, example(*shape)) for shape in ((1, 4, 0), (3, 1, 7)))
    except (RuntimeError, TypeError, ValueError, AttributeError, Broken) as e:
        raise Unsupported("generation.not-exportable", path=str(folder), reason=type(e).__name__) from e
    if not apart <= TOLERANCE:
        raise Unsupported("generation.not-exportable", path=str(folder), reason=f"{apart:.1e}" if math.isfinite(apart) else "NaN")
    return model


def _apart(model: bytes, stepping: nn.Module, given: tuple[Tensor, ...]) -> float:
    """How far the graph is from torch."""
    with torch.inference_mode():
        wanted = stepping(*given)[0].numpy()
    ids, mask, places, *past = (t.numpy() for t in given)
    scores, _ = GraphSteps(model, length_max=1).run(ids, mask, places, past)
    return float(np.abs(scores - wanted).max())
