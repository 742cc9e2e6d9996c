"""Compiled inner loops: numba when it is there, imported only when a loop first runs. Knows nothing of what the loops compute."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from wenfang.core.errors import Unsupported

__all__ = ["available", "jit"]

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()


@cache
def available() -> bool:
    """Whether numba is installed; does not import it."""
    return importlib.util.find_spec("numba") is not None


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` when it is first called, without the interpreter's lock while it runs.

    The machine code is kept beside the source, or in the user's cache folder where that cannot be written; where neither can,
    it is compiled anew in each process.

    Raises:
        Unsupported: `model.needs-package` when called without numba.
    """
    compiled: list[Callable[P, R]] = []

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not compiled:
            with _lock:
                if not compiled:
                    compiled.append(_compile(function))
        return compiled[0](*args, **kwargs)

    return call


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    if not available():
        raise Unsupported("model.needs-package", package="numba")
    import numba  # pyright: ignore[reportMissingTypeStubs]

    try:
        return numba.njit(function, cache=True, nogil=True)  # pyright: ignore[reportUnknownVariableType]
    except RuntimeError:  # numba found no folder it may write to
        return numba.njit(function, nogil=True)  # pyright: ignore[reportUnknownVariableType]
