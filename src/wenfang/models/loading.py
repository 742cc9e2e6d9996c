"""What a first fit waits for: libraries, loaded once in a process. Knows what they are called and what loading them takes, nothing of models."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

__all__ = ["LOOPS", "TORCH", "load", "wait_s"]

LOOPS = ("numba", "scipy.sparse")
"""For compiled loops, whose machine code is kept beside the source."""
TORCH = ("wenfang.models.neural.fitting", "torch._dynamo", "onnxruntime.quantization")
"""For all of a fit with torch; whoever makes the first optimiser loads ``torch._dynamo``."""
_TAKES_S = {"numba": 0.6, "scipy.sparse": 0.3, "wenfang.models.neural.fitting": 3.2, "torch._dynamo": 1.4, "onnxruntime.quantization": 0.5}
"""Processor-seconds, measured."""


def wait_s(modules: Sequence[str]) -> float:
    """Processor-seconds until all of ``modules`` are loaded, estimated; those that are count nothing.

    >>> wait_s(("sys",))
    0.0
    """
    return sum((_TAKES_S.get(name, 0.5) for name in modules if name not in sys.modules), 0.0)


def load(modules: Sequence[str]) -> None:
    """Load those of ``modules`` that are installed: a fit that misses one says so better."""
    if TORCH[0] in modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: threads that spin at barriers crawl on a busy machine (40 times slower, measured)
    for name in modules:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
