"""Learned arrays in one safetensors file, checked when they are read. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.durable import write_file
from wenfang.core.errors import Broken

__all__ = ["load_arrays", "save_arrays"]

Array = npt.NDArray[Any]


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write ``arrays`` durably.

    Raises:
        Broken: `home.write-failed`.
    """
    from safetensors.numpy import save

    write_file(path, save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))


def load_arrays(path: Path, expected: Mapping[str, tuple[Any, int]]) -> dict[str, Array]:
    """The arrays of ``path``: exactly those of ``expected``, each of its type and number of dimensions.

    Raises:
        Broken: `model.damaged`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, Array] = load(path.read_bytes())
    except (OSError, SafetensorError, KeyError, ValueError) as e:
        raise Broken("model.damaged", file=path.name, reason=type(e).__name__) from e
    if set(arrays) != set(expected):
        raise Broken("model.damaged", file=path.name, reason="names")
    for name, (dtype, ndim) in expected.items():
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].ndim != ndim:
            raise Broken("model.damaged", file=path.name, reason=name)
    return arrays
