"""Whether an int8 network answers on this machine as it did where it was made. Knows nothing of texts: made-up tokens are asked, never data.

Processors with and without VNNI add int8 products differently; a network that was judged on one may be wrong on another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.errors import Broken

from .answering import Run
from .batches import Batch
from .tokens import CharTokens, Tokens
from .word_tokens import WordTokens

__all__ = ["FORMAT", "made_up", "verify"]

Arrays = dict[str, npt.NDArray[Any]]
FORMAT: Mapping[str, tuple[Any, int]] = {"ids": (np.int32, 2), "grams": (np.int32, 3), "small": (np.float32, 2), "whole": (np.float32, 2)}
ROWS, LENGTH, SEED = 8, 24, 12
FACTOR = 2.0
"""How many times further from the exact network than at home the answers may lie."""
SLACK = 0.01
"""Of the spread of the exact answers, for networks that int8 hardly changes."""


def made_up(small: Run, whole: Run, tokens: Tokens) -> Arrays:
    """Questions with the answers of the int8 network and of the exact one, as arrays to keep.

    Args:
        small: the int8 network, on the machine where its score was judged.
        whole: the same in fp32.
        tokens: for the numbers there are.
    """
    rng = np.random.default_rng(SEED)
    size = len(tokens) if isinstance(tokens, (CharTokens, WordTokens)) else int(getattr(tokens, "size", 2))
    ids = rng.integers(1, max(2, size), (ROWS, LENGTH)).astype(np.int32)
    ids[:, : len(tokens.prefix)] = tokens.prefix
    grams = rng.integers(0, max(1, getattr(tokens, "buckets", 0)) + 1, (ROWS, LENGTH, tokens.gram_count)).astype(np.int32)
    return {"ids": ids, "grams": grams, "small": _answers(small, ids, grams), "whole": _answers(whole, ids, grams)}


def verify(run: Run, check: Mapping[str, npt.NDArray[Any]]) -> None:
    """Ask again here.

    Raises:
        Broken: `neural.int8-differs`.

    Cost: 8 passes of 24 tokens.
    """
    whole = check["whole"]
    home = float(np.abs(check["small"] - whole).max())
    here = float(np.abs(_answers(run, check["ids"], check["grams"]) - whole).max())
    allowed = FACTOR * home + SLACK * float(whole.std())
    if not here <= allowed:
        raise Broken("neural.int8-differs", difference=f"{here:.2g}", allowed=f"{allowed:.2g}")


def _answers(run: Run, ids: npt.NDArray[np.int32], grams: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Shape (rows, outputs): each row alone, as int8 is served."""
    found: list[npt.NDArray[np.float32]] = []
    for i in range(len(ids)):
        one = slice(i, i + 1)
        batch = Batch(np.arange(1), ids[one], np.ones((1, ids.shape[1]), np.bool_), grams[one] if grams.shape[2] else None, np.array([ids.shape[1]], np.int32))
        found.append(run(batch).reshape(-1))
    return np.stack(found)
