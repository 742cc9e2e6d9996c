"""Our own small encoder: pre-norm attention over characters and hashed n-grams, with a head for classes or tags. Knows nothing of texts or training.

Positions are a learned bias on the attention scores by signed distance (clipped), for each layer and head: direction matters for
tagging, any length works, and the exported graph needs no position table. With ``signed`` the content of a token meets distances, too (sinusoids
of the signed distance, without a limit), and scores are not scaled down.

Source: Vaswani et al. 2017; pre-norm: Xiong et al. 2020; relative bias: Raffel et al. 2020, section 2.1; signed: Yan et al. 2019 (TENER), section 3.2.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from .network import Network
from .tokens import CLS, UNK

__all__ = ["Block", "Encoder", "EncoderShape", "wave_lengths", "waves_of"]

REACH = 32
"""Distances beyond this share one bias."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of the network."""

    vocabulary: int
    outputs: int
    """L; 0: no head, the states themselves come out."""
    tagging: bool
    layers: int
    hidden: int
    heads: int
    ff: int
    dropout: float = 0.1
    gram_buckets: int = 0
    token_dropout: float = 0.0
    """Share of characters and n-grams not shown while training."""
    reach: int = REACH
    pairs: bool = False
    """Two texts with a separator, compared by the head."""
    signed: bool = False
    """What a token looks for depends on how far away and on which side it is; sharper attention."""

    def to_dict(self) -> dict[str, Any]:
        """The sizes by name."""
        return asdict(self)


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised view of the running state."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        H = shape.hidden
        self.heads = shape.heads
        self.dropout = shape.dropout
        self.attention_norm = nn.LayerNorm(H)
        self.places = nn.Parameter(torch.zeros(shape.heads, 1, H // shape.heads)) if shape.signed else None
        """What every token looks for by distance alone, shape (heads, 1, D)."""
        self.qkv = nn.Linear(H, 3 * H)
        self.out = nn.Linear(H, H)
        self.ff_norm = nn.LayerNorm(H)
        self.up = nn.Linear(H, shape.ff)
        self.down = nn.Linear(shape.ff, H)

    def forward(self, x: Tensor, bias: Tensor, waves: Tensor) -> Tensor:
        """States (B, T, H), score bias (B, heads, T, T) and ``waves_of`` positions to states."""
        B, T, H = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(B, T, 3, self.heads, H // self.heads).permute(2, 0, 3, 1, 4)
        scale = None
        if self.places is not None:
            bias, scale = bias + _turned(q + self.places, waves) @ waves.T, 1.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=self.dropout if self.training else 0.0, scale=scale)
        x = x + F.dropout(self.out(seen.transpose(1, 2).reshape(B, T, H)), self.dropout, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.ff_norm(x)))), self.dropout, self.training)


class Encoder(Network):
    """Token numbers to class or tag scores.

    Args:
        shape: all sizes.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.frugal = False
        self.started = False
        """Whether everything but the head comes from a pre-training."""
        H = shape.hidden
        self.chars = nn.Embedding(shape.vocabulary, H)
        self.grams = nn.EmbeddingBag(shape.gram_buckets + 1, H, mode="sum", sparse=True, padding_idx=0) if shape.gram_buckets else None
        self.distance = nn.Parameter(_looks(shape))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(H)
        self.sides = nn.Embedding(2, H) if shape.pairs else None
        self.head = nn.Linear(H if shape.tagging else 5 * H if shape.pairs else 3 * H, shape.outputs) if shape.outputs else nn.Identity()
        self.apply(_initialise)
        if self.grams is not None:
            nn.init.zeros_(self.grams.weight)  # an n-gram that training never saw says nothing

    def forward(self, ids: Tensor, mask: Tensor, grams: Tensor | None = None) -> Tensor:
        """Scores.

        Args:
            ids: shape (B, T).
            mask: True where a token stands, shape (B, T).
            grams: n-gram numbers, shape (B, T, G).

        Returns:
            shape (B, T, L) for tagging, (B, L) for classification.
        """
        x = inputs = self._embed(ids, grams)
        T = ids.shape[1]
        at = torch.arange(T, device=ids.device)
        between = (at[None, :] - at[:, None]).clamp(-self.shape.reach, self.shape.reach) + self.shape.reach
        hidden = torch.zeros(mask.shape, device=ids.device).masked_fill(~mask, -1e4)[:, None, None, :]
        self.states = []
        waves = waves_of(at, self.shape)
        for block, distance in zip(self.blocks, self.distance, strict=True):
            bias = distance[:, between][None] + hidden
            x = cast("Tensor", checkpoint(block, x, bias, waves, use_reentrant=False)) if self.frugal and self.training else block(x, bias, waves)
            if self.watched and self.training:
                self.states.append(x)
        x = self.norm(x)
        if self.shape.tagging:
            return self.head(x)
        return self.head(_compare(x, mask, _side_of(ids)) if self.shape.pairs else _pool(x, inputs, mask))

    def _embed(self, ids: Tensor, grams: Tensor | None) -> Tensor:
        hide = self.shape.token_dropout if self.training else 0.0
        if hide:
            ids = ids.masked_fill((torch.rand(ids.shape, device=ids.device) < hide) & (ids > CLS), UNK)
        x = self.chars(ids)
        if self.sides is not None:
            x = x + self.sides(_side_of(ids))
        if self.grams is not None and grams is not None:
            if hide:
                grams = grams.masked_fill(torch.rand(grams.shape, device=ids.device) < hide, 0)
            x = x + self.grams(grams.reshape(-1, grams.shape[-1])).view(x.shape)
        return F.dropout(x, self.shape.dropout, self.training)

    def state_widths(self) -> list[int]:
        """H of each block."""
        return [self.shape.hidden] * self.shape.layers

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Those whose gradients touch few rows."""
        return [] if self.grams is None else [cast("nn.Parameter", self.grams.weight)]

    def new_parameters(self) -> list[nn.Parameter]:
        """The head, when the rest is pretrained."""
        return list(self.head.parameters()) if self.started else []

    def embedding(self) -> nn.Parameter:
        """The vectors of the characters."""
        return cast("nn.Parameter", self.chars.weight)

    def save_memory(self) -> None:
        """Compute each block again going back."""
        self.frugal = True


def wave_lengths(shape: EncoderShape) -> list[float]:
    """Radians of one position for each pair of dimensions of a head."""
    D = shape.hidden // shape.heads
    return [10000.0 ** (-2 * i / D) for i in range(D // 2)]


def waves_of(at: Tensor, shape: EncoderShape) -> Tensor:
    """Sines, then cosines of positions (T,), shape (T, D); empty unless ``signed``."""
    if not shape.signed:
        return at.new_zeros(0, dtype=torch.float32)
    angle = at[:, None].float() * torch.tensor(wave_lengths(shape), device=at.device)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _turned(q: Tensor, waves: Tensor) -> Tensor:
    """Each token's vector turned by its position, so that its product with a position's waves is one with the waves of their signed distance."""
    a, b = q.chunk(2, dim=-1)
    sine, cosine = waves.chunk(2, dim=-1)
    return torch.cat([b * sine - a * cosine, a * sine + b * cosine], dim=-1)


def _looks(shape: EncoderShape) -> Tensor:
    """First values of the distance bias, (layers, heads, 2 reach + 1): heads begin by looking left, right, around, and everywhere."""
    at = torch.arange(-shape.reach, shape.reach + 1, dtype=torch.float32)
    kinds = [-steep * (at - centre).abs() for centre, steep in ((-1, 1.0), (1, 1.0), (0, 0.3), (0, 0.0))]
    return torch.stack([kinds[h % len(kinds)] for h in range(shape.heads)]).repeat(shape.layers, 1, 1)


def _pool(x: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
    """Mean and maximum of the states, and mean of the inputs: the last lets n-grams vote directly, as in fastText (Joulin et al. 2017)."""
    there = mask[:, :, None].to(x.dtype)
    n = there.sum(dim=1)
    top = x.masked_fill(~mask[:, :, None], -1e4).amax(dim=1)
    return torch.cat([(x * there).sum(dim=1) / n, top, (inputs * there).sum(dim=1) / n], dim=-1)


def _side_of(ids: Tensor) -> Tensor:
    """0 for the first text of a pair and the token before it, 1 from the separator on, (B, T)."""
    return ((ids == CLS).long().cumsum(dim=1) - 1).clamp(0, 1)


def _compare(x: Tensor, mask: Tensor, side: Tensor) -> Tensor:
    """Means of both texts, how far they are apart, what they share, and the first state.

    Source: Conneau et al. 2017, section 3.1 (without the maximum).
    """
    means: list[Tensor] = []
    for which in (0, 1):
        there = (mask & (side == which))[:, :, None].to(x.dtype)
        means.append((x * there).sum(dim=1) / there.sum(dim=1).clamp_min(1.0))
    one, two = means
    return torch.cat([one, two, (one - two).abs(), one * two, x[:, 0]], dim=-1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02 if isinstance(module, nn.Linear) else 0.05)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
