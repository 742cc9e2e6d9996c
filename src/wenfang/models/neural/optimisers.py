"""Which parameters learn how fast, and the moving average of all of them. Knows nothing of losses or data."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .network import Network

__all__ = ["Average", "depth_of", "optimisers_for", "state_of", "take_state"]

AVERAGE_EVERY = 8
"""Steps between two updates of the average: it moves slowly, and tables are large."""
BOTTOM, LAYER = re.compile(r"(^|\.)(\w*embed\w*|chars|grams|distance)(\.|$)"), re.compile(r"\.(\d+)\.")


def depth_of(name: str) -> int | None:
    """How deep a parameter lies, by its name: 0 for embeddings, 1 for the first layer; None: above all layers.

    >>> depth_of("body.embeddings.word_embeddings.weight"), depth_of("body.encoder.layer.3.output.dense.bias"), depth_of("norm.weight")
    (0, 4, None)
    """
    if BOTTOM.search(name):
        return 0
    layer = LAYER.search(name)
    return None if layer is None else 1 + int(layer[1])


def optimisers_for(
    network: Network, layer: nn.Module | None, *, rate: float, head_rate: float, gram_rate: float, weight_decay: float, layer_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW over everything, and a sparse Adam where gradients touch few rows.

    Args:
        network: what is trained.
        layer: the objective's own parameters, or None.
        rate: learning rate of the top of the network.
        head_rate: of what no pretraining has seen.
        gram_rate: of sparse tables.
        weight_decay: of matrices.
        layer_decay: factor on the rate for each layer further down; 1: the same everywhere.

    Source: layer-wise decay: Howard & Ruder 2018, section 3.2.
    """
    sparse, new = network.sparse_parameters(), network.new_parameters()
    apart = {id(p) for p in (*sparse, *new)}
    rest = [(depth_of(name), p) for name, p in network.named_parameters() if id(p) not in apart and p.requires_grad]
    top = 1 + max((d for d, _ in rest if d is not None), default=0)
    groups: list[dict[str, Any]] = []
    for depth in range(top, -1, -1):
        here = [p for d, p in rest if (top if d is None else d) == depth]
        own = rate * layer_decay ** (top - depth)
        groups += [
            {"params": [p for p in here if p.dim() == 2], "lr": own, "weight_decay": weight_decay},
            {"params": [p for p in here if p.dim() != 2], "lr": own, "weight_decay": 0.0},
        ]
    groups.append({"params": [*new, *(layer.parameters() if layer is not None else [])], "lr": head_rate, "weight_decay": 0.0})
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW([g for g in groups if g["params"]], fused=True)]
    if sparse:
        optimisers.append(torch.optim.SparseAdam(sparse, lr=gram_rate))
    return optimisers


def state_of(optimisers: Sequence[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What the optimisers remember: tensors and plain numbers, by ``optimiser.parameter.name``."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for i, optimiser in enumerate(optimisers):
        remembered: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
        for j, values in remembered.items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{i}.{j}.{name}"] = value
                else:
                    numbers[f"{i}.{j}.{name}"] = value
    return tensors, numbers


def take_state(optimisers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
    """Remember again what ``state_of`` gave."""
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in (*tensors.items(), *numbers.items()):
            owner, number, name = key.split(".", 2)
            if int(owner) == i:
                state.setdefault(int(number), {})[name] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": state})


class Average:
    """Exponential moving average of all parameters; it starts fast and slows down to ``decay``.

    Args:
        parameters: by name.
        decay: share that stays at each step.

    Source: Tarvainen & Valpola 2017, section 2.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.mean = {name: p.detach().clone() for name, p in self.parameters.items()}

    def step(self, steps: int) -> None:
        """After step number ``steps``."""
        if steps % AVERAGE_EVERY:
            return
        decay = min(self.decay, (1 + steps) / (10 + steps)) ** AVERAGE_EVERY
        with torch.no_grad():
            for name, p in self.parameters.items():
                self.mean[name].lerp_(p, 1 - decay)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """The parameters hold the average inside, and their own values again afterwards."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.put(self.mean)
        try:
            yield
        finally:
            self.put(own)

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Set the parameters."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(values[name])


def to_array(tensor: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """A tensor's values in main memory."""
    return tensor.detach().cpu().numpy()
