"""A local directory of the transformers library as the network and tokens of a family. Never fetches, never unpickles. Knows nothing of training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wenfang.core.errors import Broken, Invalid

from .adapters import adapted, merged
from .directories import describe
from .network import Network
from .tokens import SubwordTokens

__all__ = ["Pretrained", "open_pretrained"]

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class Pretrained(Network):
    """A pretrained encoder with a new head: mean of the states for classes, one score row for each token for tags.

    Args:
        body: the transformers model.
        hidden: H.
        outputs: L.
        tagging: which head.
        dropout: before the head.
        separator: token between the texts of a pair, where the body tells their sides apart; None: it does not.
    """

    def __init__(self, body: nn.Module, *, hidden: int, outputs: int, tagging: bool, dropout: float, separator: int | None = None) -> None:
        super().__init__()
        self.body = body
        self.separator = separator
        self.tagging = tagging
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden if tagging else 2 * hidden, outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, mask: Tensor, grams: Tensor | None = None) -> Tensor:
        """Scores (B, T, L) or (B, L) of ids (B, T) under mask (B, T); ``grams`` is not used."""
        del grams
        more: dict[str, Tensor] = {}
        if self.separator is not None:
            here = (ids == self.separator).long()
            more["token_type_ids"] = (here.cumsum(dim=1) - here).clamp(max=1)
        states: Tensor = self.body(input_ids=ids.long(), attention_mask=mask.long(), **more).last_hidden_state
        if self.tagging:
            return self.head(self.dropout(states))
        there = mask[:, :, None].to(states.dtype)
        mean = (states * there).sum(dim=1) / there.sum(dim=1)
        return self.head(self.dropout(torch.cat([states[:, 0], mean], dim=-1)))

    def new_parameters(self) -> list[nn.Parameter]:
        """Those that no pretraining has seen."""
        return list(self.head.parameters())

    def embedding(self) -> nn.Parameter:
        """The vectors of the subwords."""
        return cast("Any", self.body).get_input_embeddings().weight

    def add_adapters(self, folder: Path, rank: int) -> None:
        """Train low-rank differences of the linear layers instead of the body itself."""
        self.body = adapted(self.body, folder, rank=rank)

    def merge(self) -> None:
        """Fold low-rank differences into the body."""
        self.body = merged(self.body)

    def save_memory(self) -> None:
        """Compute each layer again going back."""
        cast("Any", self.body).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def open_pretrained(folder: Path, *, outputs: int, tagging: bool, dropout: float, pairs: bool = False) -> tuple[Pretrained, SubwordTokens, int]:
    """The network, its tokens, and how many tokens it reads at once (special ones included).

    Raises:
        Invalid: as ``describe``; `neural.pretrained-unreadable`, `neural.vocabulary-differs`.
    """
    config = describe(folder)
    try:
        body: Any = _auto_model()(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32)
        tokens = SubwordTokens((folder / "tokenizer.json").read_bytes(), pad=int(config.get("pad_token_id") or 0))
    except Exception as e:  # tokenizers and safetensors raise bare Exceptions of their own for damaged files
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason=type(e).__name__) from e
    rows = int(body.get_input_embeddings().weight.shape[0])
    if tokens.size > rows:
        raise Invalid("neural.vocabulary-differs", path=str(folder), characters=tokens.size, rows=rows)
    hidden = getattr(body.config, "hidden_size", None)
    if not isinstance(hidden, int):
        raise Broken("neural.pretrained-shape", path=str(folder))
    sides = pairs and bool(tokens.between) and int(config.get("type_vocab_size") or 0) > 1
    network = Pretrained(body, hidden=hidden, outputs=outputs, tagging=tagging, dropout=dropout, separator=tokens.between[0] if sides else None)
    return network, tokens, int(config.get("max_position_embeddings") or 512)


def _auto_model() -> Any:
    for name in OFFLINE:
        os.environ.setdefault(name, "1")  # before the first import of transformers: it reads them once
    import transformers

    return cast("Any", transformers).AutoModel.from_pretrained
