"""Whether a pretrained directory can be used, from the names of its files and its ``config.json``: no weights are read, no torch is needed.

Knows nothing of networks or tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from wenfang.core.errors import Invalid

__all__ = ["check_directory", "describe"]

OURS = ("encoder.json", "encoder.safetensors")
"""Of our own pre-training."""


def check_directory(folder: Path) -> None:
    """Refuse at once what no family could start from, before time is spent on the others.

    Args:
        folder: of our own pre-training, or of the transformers library.

    Raises:
        Invalid: as ``describe``.
    """
    if not (folder / OURS[0]).is_file():
        describe(folder)
    elif not (folder / OURS[1]).is_file():
        raise Invalid("neural.pretrained-incomplete", path=str(folder), missing=[OURS[1]])


def describe(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a usable directory.

    Raises:
        Invalid: `neural.pretrained-missing`, `neural.pickled-weights`, `neural.pretrained-incomplete`, `neural.pretrained-unreadable`.
    """
    if not folder.is_dir():
        raise Invalid("neural.pretrained-missing", path=str(folder))
    names = {p.name for p in folder.iterdir()}
    if not any(n.endswith(".safetensors") for n in names):
        pickled = sorted(n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5")))
        if pickled:
            raise Invalid("neural.pickled-weights", path=str(folder), files=pickled)
    wanted = {"config.json", "tokenizer.json"}
    missing = sorted(wanted - names) + ([] if any(n.endswith(".safetensors") for n in names) else ["model.safetensors"])
    if missing:
        raise Invalid("neural.pretrained-incomplete", path=str(folder), missing=missing)
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as e:
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason=type(e).__name__) from e
    if not isinstance(config, dict) or config.get("auto_map"):  # pyright: ignore[reportUnknownMemberType]  # a model that brings its own code is not run
        raise Invalid("neural.pretrained-unreadable", path=str(folder), reason="config.json")
    return cast("dict[str, Any]", config)
