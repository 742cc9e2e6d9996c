"""Low-rank differences beside the linear layers of a pretrained network: put there, and folded in. Knows nothing of tasks.

Source: Hu et al. 2021, section 4.1.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from wenfang.core.errors import Invalid

__all__ = ["adapted", "linear_names", "merged"]


def linear_names(body: nn.Module) -> list[str]:
    """Last names of the layers that can be adapted, sorted."""
    found: set[str] = set()
    for name, layer in cast("Any", body).named_modules():
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D":
            found.add(name.rsplit(".", 1)[-1])
    return sorted(found)


def adapted(body: nn.Module, folder: Path, *, rank: int, alpha: float | None = None, targets: Sequence[str] = ()) -> nn.Module:
    """The network with low-rank differences to train in place of itself.

    Args:
        body: of the transformers library.
        folder: where it came from, for the error.
        rank: of the differences.
        alpha: their weight is ``alpha / rank``; None: twice the rank.
        targets: last names of the layers; none: every linear layer but the head over the vocabulary.

    Raises:
        Invalid: `neural.lora-no-modules`.
    """
    import peft

    known = linear_names(body)
    missing = sorted(set(targets) - set(known))
    if missing or not known:
        raise Invalid("neural.lora-no-modules", path=str(folder), missing=missing or ["linear"], known=known)
    lora: Any = peft
    config = lora.LoraConfig(r=rank, lora_alpha=2 * rank if alpha is None else alpha, lora_dropout=0.0, target_modules=list(targets) or "all-linear", bias="none")
    with warnings.catch_warnings():  # peft asks transformers by a name that is on its way out, and tells of transposed layers that it handles
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        return lora.get_peft_model(body, config)


def merged(body: nn.Module) -> nn.Module:
    """The network with the differences folded into its weights; as it is where there are none."""
    fold = getattr(body, "merge_and_unload", None)
    return body if fold is None else cast("nn.Module", fold())
