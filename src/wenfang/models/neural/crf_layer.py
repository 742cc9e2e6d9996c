"""The linear-chain CRF as a loss over tag scores. Knows nothing of the network below it; the search for the best path is ``paths``.

Source: Lafferty et al. 2001; Lample et al. 2016, section 2.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .paths import FORBIDDEN, Transitions

__all__ = ["CrfLayer"]

FLOOR = 1e-37
"""Smallest probability mass kept apart from nothing at all in float32."""


class CrfLayer(nn.Module):
    """Learned scores of starting with, stepping between and ending with tags.

    Steps that no annotation can contain are forbidden. Starts and ends are not: a window may begin inside a span.

    Args:
        legal: which tag may follow which, shape (L, L).
    """

    def __init__(self, legal: npt.NDArray[np.bool_]) -> None:
        super().__init__()
        L = len(legal)
        self.start = nn.Parameter(torch.zeros(L))
        self.end = nn.Parameter(torch.zeros(L))
        self.step = nn.Parameter(torch.zeros(L, L))
        self.register_buffer("forbidden", torch.from_numpy(np.where(legal, 0.0, FORBIDDEN).astype(np.float32)))

    def scores(self) -> Tensor:
        """Scores of steps with the forbidden ones far below, shape (L, L)."""
        return self.step + cast("Tensor", self.forbidden)

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Log of the sum over all paths, shape (B,).

        Args:
            emissions: shape (B, T, L), float32.
            lengths: at least 1 each, shape (B,).
        """
        weights = self.scores().exp()
        alpha = self.start + emissions[:, 0]
        for t in range(1, emissions.shape[1]):
            top = alpha.amax(dim=1, keepdim=True).detach()
            ahead = ((alpha - top).exp() @ weights).clamp_min(FLOOR).log() + top + emissions[:, t]
            alpha = torch.where((lengths > t)[:, None], ahead, alpha)
        return torch.logsumexp(alpha + self.end, dim=1)

    def path_score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Score of the given paths, shape (B,); tags behind a row's length are not read."""
        T = emissions.shape[1]
        there = torch.arange(T, device=tags.device)[None] < lengths[:, None]
        own = emissions.gather(2, tags[:, :, None])[:, :, 0] * there
        steps = self.scores()[tags[:, :-1], tags[:, 1:]] * there[:, 1:]
        last = tags.gather(1, (lengths - 1)[:, None])[:, 0]
        return own.sum(dim=1) + steps.sum(dim=1) + self.start[tags[:, 0]] + self.end[last]

    def forward(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Negative log probability of the given paths, shape (B,)."""
        return self.log_partition(emissions, lengths) - self.path_score(emissions, tags, lengths)

    def transitions(self) -> Transitions:
        """What was learned, for ``paths``."""
        with torch.no_grad():
            return Transitions(*(p.detach().cpu().numpy().astype(np.float32) for p in (self.start, self.end, self.scores())))
