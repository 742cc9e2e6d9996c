"""Sizes of our writer and its rotary angles: shared by the torch network and its numpy twin. Knows nothing of either."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WriterShape", "rotations"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WriterShape:
    """All sizes of one writer."""

    vocabulary: int
    layers: int
    encoder_layers: int
    """0: a decoder alone."""
    hidden: int
    heads: int
    ff: int
    length_max: int
    """Tokens it can stand in at once."""
    dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The sizes by name."""
        return asdict(self)


def rotations(length: int, width: int) -> tuple[Floats, Floats]:
    """Cosine and sine of each position's angles, shape (length, width / 2) each."""
    rates = 10_000.0 ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    angles = np.arange(length)[:, None] * rates
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
