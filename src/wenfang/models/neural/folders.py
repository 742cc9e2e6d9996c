"""A pretrained encoder of ours as a local directory: written whole, checked when it is read. Knows nothing of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid

from .encoder import Encoder, EncoderShape
from .stored_tokens import tokens_from_json
from .tokens import CharTokens

__all__ = ["Start", "is_ours", "open_encoder", "save_encoder"]

HEAD, WEIGHTS = "encoder.json", "encoder.safetensors"
FORMAT = 1


class Start:
    """A pretrained encoder to start from.

    Args:
        shape: its sizes, without a head.
        tokens: its characters.
        weights: by name, of everything but a head.
    """

    def __init__(self, shape: EncoderShape, tokens: CharTokens, weights: Mapping[str, torch.Tensor]) -> None:
        self.shape = shape
        self.tokens = tokens
        self.weights = dict(weights)

    def encoder(self, shape: EncoderShape) -> Encoder:
        """An encoder of ``shape`` with these weights; what they do not cover (head, n-grams, further characters) is new."""
        encoder = Encoder(shape)
        own = encoder.state_dict()
        with torch.no_grad():
            for name, value in self.weights.items():
                own[name][: len(value)].copy_(value)
        encoder.started = True
        return encoder

    def widened(self, more: str) -> CharTokens:
        """The characters with those of ``more`` that are not yet among them behind."""
        known = set(self.tokens.chars)
        return CharTokens(self.tokens.chars + "".join(c for c in more if c not in known))


def is_ours(folder: Path) -> bool:
    """Whether ``folder`` is one of ``save_encoder``'s."""
    return (folder / HEAD).is_file()


def save_encoder(folder: Path, encoder: Encoder, tokens: CharTokens, told: Mapping[str, Any]) -> None:
    """Write the encoder without its head; the description comes last, so that a half-written directory is none.

    Args:
        folder: made when needed.
        encoder: on the CPU.
        tokens: its characters.
        told: how it was made, JSON.

    Raises:
        Broken: `home.write-failed`.
    """
    from safetensors.torch import save

    weights = save({name: value.contiguous() for name, value in encoder.state_dict().items() if not name.startswith(("head.", "grams."))})
    shape = replace(encoder.shape, outputs=0, gram_buckets=0).to_dict()
    head = {"format": FORMAT, "shape": shape, "tokens": tokens.to_json(), "sha256": sha256(weights).hexdigest(), **told}
    write_file(folder / WEIGHTS, weights)
    write_file(folder / HEAD, json.dumps(head, ensure_ascii=True).encode())


def open_encoder(folder: Path) -> Start:
    """The encoder that ``save_encoder`` wrote.

    Raises:
        Invalid: `neural.pretrained-incomplete`, `neural.pretrained-unreadable`, `neural.vocabulary-differs`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not (folder / WEIGHTS).is_file():
        raise Invalid("neural.pretrained-incomplete", path=str(folder), missing=[WEIGHTS])
    try:
        head = json.loads((folder / HEAD).read_bytes())
        data = (folder / WEIGHTS).read_bytes()
        whole = head["format"] == FORMAT and head["sha256"] == sha256(data).hexdigest()
        shape, tokens, weights = EncoderShape(**head["shape"]), tokens_from_json(head["tokens"], {}), load(data)
        expected = {n: v.shape for n, v in Encoder(shape).state_dict().items()}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, Broken) as e:
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason=type(e).__name__) from e
    if not whole:
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason="hash")
    if not isinstance(tokens, CharTokens) or len(tokens) != shape.vocabulary or len(weights["chars.weight"]) != shape.vocabulary:
        raise Invalid("neural.vocabulary-differs", path=str(folder), characters=len(getattr(tokens, "chars", "")), rows=shape.vocabulary)
    if {n: v.shape for n, v in weights.items()} != expected:
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason="shapes")
    return Start(shape, tokens, weights)
