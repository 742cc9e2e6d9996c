"""Which arithmetic pays on this machine: asked of the hardware where it answers, measured where it does not. Knows nothing of models."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch

__all__ = ["Precision", "device", "precision_of"]

Precision = Literal["fp32", "bf16", "fp16"]


def device() -> torch.device:
    """The accelerator torch sees, else the processor."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


@cache
def precision_of(kind: str) -> Precision:
    """The arithmetic for training on a device of ``kind`` (``cpu``, ``cuda``): on a card bf16, or fp16 with loss scaling where it has none.

    Without instructions for it bf16 on a CPU is an order of magnitude slower than fp32, with them two to three times faster:
    the answer is far from the threshold on either side, so it is the same each time.

    Cost: about 0.1 s once in a process.
    """
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    a, b = torch.randn(512, 256), torch.randn(256, 512)
    x, y = a.bfloat16(), b.bfloat16()
    return "bf16" if 1.5 * _best_s(x, y) < _best_s(a, b) else "fp32"


def _best_s(a: torch.Tensor, b: torch.Tensor) -> float:
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return best
