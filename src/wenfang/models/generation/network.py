"""Our own small writer: a decoder over characters, with an encoder before it where the source is read as a whole. Knows nothing of texts or training.

Pre-norm blocks with root-mean-square norms, rotary positions, squared rectifiers and one table for reading and writing characters:
nothing in it needs more than matrix products and square roots, so that ``stepping`` is its numpy twin.

Source: Vaswani et al. 2017; rotary positions: Su et al. 2021; RMSNorm: Zhang and Sennrich 2019; squared ReLU: So et al. 2021; tied
tables: Press and Wolf 2017.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenfang.models.neural.network import Network

from .alphabet import BEGIN, PAD
from .shape import WriterShape, rotations

__all__ = ["Writer"]


class Writer(Network):
    """Token numbers to scores of the next token.

    With an encoder ``ids`` hold source and target one behind the other; ``BEGIN`` is where the targets start, in one column.

    Args:
        shape: all sizes.
    """

    def __init__(self, shape: WriterShape) -> None:
        super().__init__()
        self.shape = shape
        self.chars = nn.Embedding(shape.vocabulary, shape.hidden)
        self.encoder = nn.ModuleList(Block(shape, cross=False) for _ in range(shape.encoder_layers))
        self.encoder_norm = nn.RMSNorm(shape.hidden, eps=1e-5) if shape.encoder_layers else None
        self.blocks = nn.ModuleList(Block(shape, cross=shape.encoder_layers > 0) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=1e-5)
        nn.init.normal_(self.chars.weight, std=0.02)
        cos, sin = rotations(shape.length_max, shape.hidden // shape.heads)
        self.register_buffer("cos", torch.from_numpy(cos), persistent=False)
        self.register_buffer("sin", torch.from_numpy(sin), persistent=False)

    def forward(self, ids: Tensor, mask: Tensor, grams: Tensor | None = None) -> Tensor:
        """Scores of the token that follows each of ids (B, T), padding at the end: (B, T, V), or (B, T - S, V) where the first S are the encoder's."""
        del mask, grams  # causal: what stands behind a token does not change its score
        if not self.shape.encoder_layers:
            return self._write(ids, None, None)
        S = int((ids[0] == BEGIN).nonzero()[0])
        source, target = ids[:, :S], ids[:, S:]
        there = (source != PAD)[:, None, None, :].clone()
        there[..., 0] = True  # an empty source is one piece of padding: attention to nothing at all is not a number
        x = self._embed(source)
        for block in self.encoder:
            x = block(x, self._turns(S), seen=there)
        assert self.encoder_norm is not None
        return self._write(target, self.encoder_norm(x), there)

    def embedding(self) -> nn.Parameter:
        """The one table."""
        return cast("nn.Parameter", self.chars.weight)

    def _write(self, ids: Tensor, source: Tensor | None, there: Tensor | None) -> Tensor:
        return self._decode(ids, source, there) @ self.chars.weight.T

    def _decode(self, ids: Tensor, source: Tensor | None, there: Tensor | None) -> Tensor:
        x = self._embed(ids)
        for block in self.blocks:
            x = block(x, self._turns(ids.shape[1]), source=source, there=there)
        return F.dropout(self.norm(x), self.shape.dropout, self.training)

    def _embed(self, ids: Tensor) -> Tensor:
        return F.dropout(self.chars(ids.long()) * self.shape.hidden**0.5, self.shape.dropout, self.training)

    def _turns(self, T: int) -> tuple[Tensor, Tensor]:
        return self.cos[:T], self.sin[:T]  # pyright: ignore[reportIndexIssue, reportReturnType, reportUnknownVariableType]


class Block(nn.Module):
    """One layer: attention to what stands before (or to all, in the encoder), to the source, then feed-forward."""

    def __init__(self, shape: WriterShape, *, cross: bool) -> None:
        super().__init__()
        H = shape.hidden
        self.heads, self.dropout = shape.heads, shape.dropout
        self.attention_norm = nn.RMSNorm(H, eps=1e-5)
        self.qkv = nn.Linear(H, 3 * H, bias=False)
        self.out = nn.Linear(H, H, bias=False)
        self.cross_norm = nn.RMSNorm(H, eps=1e-5) if cross else None
        self.cross_q = nn.Linear(H, H, bias=False) if cross else None
        self.cross_kv = nn.Linear(H, 2 * H, bias=False) if cross else None
        self.cross_out = nn.Linear(H, H, bias=False) if cross else None
        self.ff_norm = nn.RMSNorm(H, eps=1e-5)
        self.up = nn.Linear(H, shape.ff, bias=False)
        self.down = nn.Linear(shape.ff, H, bias=False)
        depth = max(1, shape.layers + shape.encoder_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:  # what is added to the running state starts small: deep stacks then begin as shallow ones
                nn.init.normal_(parameter, std=H**-0.5 / (2 * depth) ** 0.5 if name.split(".")[0] in {"out", "cross_out", "down"} else 0.5 * H**-0.5)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], *, seen: Tensor | None = None, source: Tensor | None = None, there: Tensor | None = None) -> Tensor:
        """States (B, T, H) to states; ``seen`` (B, 1, 1, T) marks what the encoder may look at, None: only what stands before."""
        B, T, H = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(B, T, 3, self.heads, H // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        looked = F.scaled_dot_product_attention(_turn(q, turns), _turn(k, turns), v, attn_mask=seen, is_causal=seen is None, dropout_p=drop)
        x = x + F.dropout(self.out(looked.transpose(1, 2).reshape(B, T, H)), self.dropout, self.training)
        if self.cross_norm is not None and self.cross_q is not None and self.cross_kv is not None and self.cross_out is not None and source is not None:
            q = self.cross_q(self.cross_norm(x)).view(B, T, self.heads, H // self.heads).transpose(1, 2)
            k, v = self.cross_kv(source).view(B, source.shape[1], 2, self.heads, H // self.heads).permute(2, 0, 3, 1, 4)
            looked = F.scaled_dot_product_attention(q, k, v, attn_mask=there, dropout_p=drop)
            x = x + F.dropout(self.cross_out(looked.transpose(1, 2).reshape(B, T, H)), self.dropout, self.training)
        return x + F.dropout(self.down(F.relu(self.up(self.ff_norm(x))).square()), self.dropout, self.training)


def _turn(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate halves of each head by the position's angles."""
    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
