"""Torch's process-wide seed and threads, borrowed for a fit and put back afterwards. Knows nothing of fits."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

__all__ = ["torch_state"]


@contextmanager
def torch_state(seed: int, threads: int) -> Generator[None]:
    """Inside, torch runs on ``threads`` threads from ``seed``."""
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.random.set_rng_state(state)
