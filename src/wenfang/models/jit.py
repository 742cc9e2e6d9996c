"""Compiled inner loops: numba when it is there. Modules that use ``jit`` are imported only where their loops run.

Knows nothing of what the loops compute.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

from wenfang.core.errors import Unsupported

__all__ = ["available", "jit"]

P = ParamSpec("P")
R = TypeVar("R")


@cache
def available() -> bool:
    """Whether numba is installed; does not import it."""
    return importlib.util.find_spec("numba") is not None


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` for the types it is first called with; it runs without the interpreter's lock, and division by zero gives infinity.

    The machine code is kept beside the source, or in the user's cache folder where that cannot be written; where neither can,
    it is compiled anew in each process.

    Raises:
        Unsupported: `model.needs-package` without numba.
    """
    try:
        import numba
    except ModuleNotFoundError as e:
        raise Unsupported("model.needs-package", package=e.name or "numba") from e
    njit = cast("Callable[..., Any]", numba.njit)
    try:
        return cast("Callable[P, R]", njit(function, cache=True, nogil=True, error_model="numpy"))
    except RuntimeError:  # numba found no folder it may write to
        return cast("Callable[P, R]", njit(function, nogil=True, error_model="numpy"))
