"""What a trainable network is to the training loop. Knows nothing of any particular one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """Scores of a batch: ``forward(ids, mask, grams)``."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Any] = {}
        """What was done to it before training, for those who read of the model."""
        self.watched = False
        """Keep what each layer hands on while learning."""
        self.states: list[Tensor] = []
        """Of each layer, lowest first, shape (B, T, H)."""

    def scores(self, ids: Tensor, mask: Tensor, grams: Tensor | None) -> Tensor:
        """Class scores (B, L) or tag scores (B, T, L) in fp32.

        Args:
            ids: token numbers, shape (B, T).
            mask: True where a token stands, shape (B, T).
            grams: n-gram numbers, shape (B, T, G), or None.
        """
        given: Tensor = self(ids, mask, grams)
        return given.float()

    def state_widths(self) -> list[int]:
        """H of each layer whose states it keeps when it is watched."""
        return []

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Those whose gradients touch few rows."""
        return []

    def new_parameters(self) -> list[nn.Parameter]:
        """Those on top of a pretrained network that no pretraining has seen."""
        return []

    def embedding(self) -> nn.Parameter | None:
        """The dense table of token vectors, for adversarial training; None: it has none."""
        return None

    def save_memory(self) -> None:
        """Keep no states inside layers while training: they are computed again going back."""

    def merge(self) -> None:
        """Fold what was trained beside the weights into them; called once, after training."""
