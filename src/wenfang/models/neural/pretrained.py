"""A local directory of the transformers library as the network and tokens of a family. Never fetches, never unpickles. Knows nothing of training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wenfang.core.errors import Broken, Invalid

from .adapters import adapted, merged
from .directories import describe
from .network import Network
from .tokens import SubwordTokens
from .vocabulary import Numbers, Vocabulary, needed, pruned_tokenizer

__all__ = ["Pretrained", "open_pretrained"]

AT_ONCE = 1000
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
        told = self.body(input_ids=ids.long(), attention_mask=mask.long(), output_hidden_states=self.watched and self.training, **more)
        self.states = list(told.hidden_states[1:]) if self.watched and self.training else []
        states: Tensor = told.last_hidden_state
        if self.tagging:
            return self.head(self.dropout(states))
        there = mask[:, :, None].to(states.dtype)
        mean = (states * there).sum(dim=1) / there.sum(dim=1)
        return self.head(self.dropout(torch.cat([states[:, 0], mean], dim=-1)))

    def state_widths(self) -> list[int]:
        """H of each layer."""
        config = cast("Any", self.body).config
        return [int(config.hidden_size)] * int(config.num_hidden_layers)

    def new_parameters(self) -> list[nn.Parameter]:
        """Those that no pretraining has seen."""
        return list(self.head.parameters())

    def embedding(self) -> nn.Parameter:
        """The vectors of the subwords."""
        return cast("Any", self.body).get_input_embeddings().weight

    def keep_tokens(self, kept: Numbers) -> None:
        """Only these rows of the token vectors, in this order."""
        table = self.embedding()
        padding: int | None = cast("Any", self.body).get_input_embeddings().padding_idx
        place = int(np.searchsorted(kept, padding)) if padding is not None and padding in set(kept.tolist()) else None
        fewer = nn.Embedding.from_pretrained(table.detach()[torch.from_numpy(kept)].clone(), freeze=False, padding_idx=place)  # draws no random numbers
        cast("Any", self.body).set_input_embeddings(fewer)
        self.told["vocabulary"] = {"whole": int(table.shape[0]), "kept": len(kept), "kb": (table.shape[0] - len(kept)) * table.shape[1] * 4 // 1024}

    def add_adapters(self, folder: Path, rank: int) -> None:
        """Train low-rank differences of the linear layers instead of the body itself."""
        self.body = adapted(self.body, folder, rank=rank)

    def merge(self) -> None:
        """Fold low-rank differences into the body."""
        self.body = merged(self.body)

    def save_memory(self) -> None:
        """Compute each layer again going back."""
        cast("Any", self.body).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def open_pretrained(
    folder: Path, *, outputs: int, tagging: bool, dropout: float, pairs: bool = False, vocabulary: Vocabulary = "whole", texts: Sequence[str] = ()
) -> tuple[Pretrained, SubwordTokens, int]:
    """The network, its tokens, and how many tokens it reads at once (special ones included).

    Args:
        folder: of the transformers library.
        outputs: L.
        tagging: which head.
        dropout: before the head.
        pairs: questions have two texts.
        vocabulary: which tokens stay.
        texts: what has to be spelled as before when not all stay.

    Raises:
        Invalid: as ``describe``; `neural.pretrained-unreadable`, `neural.vocabulary-differs`, `neural.vocabulary-fixed`.
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
    kept: Numbers | None = None
    if vocabulary != "whole":
        seen = {i for start in range(0, len(texts), AT_ONCE) for e in tokens.encode(texts[start : start + AT_ONCE]) for i in e.ids.tolist()}
        kept = needed(tokens.source, seen, pad=tokens.pad, characters=vocabulary == "characters", path=str(folder))
        tokens = SubwordTokens(pruned_tokenizer(tokens.source, kept), pad=int(np.searchsorted(kept, tokens.pad)))
    hidden = getattr(body.config, "hidden_size", None)
    if not isinstance(hidden, int):
        raise Broken("neural.pretrained-shape", path=str(folder))
    sides = pairs and bool(tokens.between) and int(config.get("type_vocab_size") or 0) > 1
    network = Pretrained(body, hidden=hidden, outputs=outputs, tagging=tagging, dropout=dropout, separator=tokens.between[0] if sides else None)
    if kept is not None:
        network.keep_tokens(kept)
    return network, tokens, int(config.get("max_position_embeddings") or 512)


def _auto_model() -> Any:
    for name in OFFLINE:
        os.environ.setdefault(name, "1")  # before the first import of transformers: it reads them once
    import transformers

    return cast("Any", transformers).AutoModel.from_pretrained
