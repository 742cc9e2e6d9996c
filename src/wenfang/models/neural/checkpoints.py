"""A fit's state on disk: written whole at steps, taken up again after a crash. Knows nothing of what the state means.

``checkpoint.json`` names the newest ``state-N.safetensors`` with its hash and holds the plain values; it is replaced only when that
file is safely on disk. A state of another request, or one that was damaged, is never used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wenfang.core.durable import disk_error, publish_file, write_file

__all__ = ["Checkpoints", "DamagedCheckpoint", "State", "fingerprint"]

FORMAT = 1
POINTER = "checkpoint.json"
Array = npt.NDArray[Any]


class DamagedCheckpoint(Exception):
    """A checkpoint of this very request that cannot be read; never leaves the fit."""


@dataclass(slots=True)
class State:
    """What a fit needs to go on."""

    arrays: dict[str, Array]
    values: dict[str, Any]
    """JSON."""


class Checkpoints:
    """The checkpoints of one fit.

    Args:
        folder: of this fit alone; made when needed.
        request: fingerprint of everything that shapes the fit.
    """

    def __init__(self, folder: Path, request: str) -> None:
        self.folder = folder
        self.request = request
        self._number = 0

    def save(self, arrays: Mapping[str, Array], values: Mapping[str, Any]) -> None:
        """Replace the state, durably; a crash at any moment leaves the old one or the new one.

        Raises:
            Broken: `home.write-failed`.
        """
        from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

        self._number += 1
        name = f"state-{self._number}.safetensors"
        fresh = self.folder / f".{name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, fresh)
            digest = _digest(fresh)
            publish_file(fresh, self.folder / name)
        except OSError as e:
            raise disk_error(e, self.folder) from e
        pointer = {"format": FORMAT, "request": self.request, "file": name, "sha256": digest, "number": self._number, "values": dict(values)}
        write_file(self.folder / POINTER, json.dumps(pointer).encode())
        self._sweep(name)

    def load(self) -> State | None:
        """The newest state; None: there is none of this request.

        Raises:
            DamagedCheckpoint: it is there and cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

        try:
            pointer = json.loads((self.folder / POINTER).read_bytes())
            if (pointer["format"], pointer["request"]) != (FORMAT, self.request):
                return None
            path = self.folder / Path(pointer["file"]).name
            if _digest(path) != pointer["sha256"]:
                raise DamagedCheckpoint("hash")
            self._number = int(pointer["number"])
            return State(load_file(path), pointer["values"])
        except FileNotFoundError as e:
            if (self.folder / POINTER).exists():
                raise DamagedCheckpoint("file") from e
            return None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            raise DamagedCheckpoint(type(e).__name__) from e

    def discard(self) -> None:
        """Forget every state."""
        (self.folder / POINTER).unlink(missing_ok=True)
        self._sweep("")

    def _sweep(self, kept: str) -> None:
        for pattern in ("state-*.safetensors", ".state-*.safetensors"):
            for path in self.folder.glob(pattern):
                if path.name != kept:
                    path.unlink(missing_ok=True)


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 over ``parts``: JSON values, in any order of keys; lone surrogates are welcome."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
