"""From a trained network to ONNX bytes: our graph or a traced one, and the proof that they answer alike. Knows nothing of tasks."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch

from wenfang.core.errors import Broken

from .batches import Batch
from .encoder import Encoder
from .graph import encoder_graph
from .loop import to_tensors
from .network import Network
from .paths import Floats
from .session import Session

__all__ = ["TOLERANCE", "check_same", "seconds_of", "to_onnx", "torch_run"]

TOLERANCE = 1e-4
"""ONNX and torch answer within this, relative to scores above 1."""
TRACED_OPSET = 17
"""The newest that the tracing exporter writes without gaps."""


def torch_run(network: Network) -> Callable[[Batch], Floats]:
    """The network as a function of batches, in evaluation mode, fp32."""

    def run(batch: Batch) -> Floats:
        network.eval()
        with torch.inference_mode():
            return network.scores(*to_tensors(batch, next(network.parameters()).device)).cpu().numpy()

    return run


def to_onnx(network: Network, example: Batch) -> bytes:
    """The network as an fp32 ONNX file.

    Args:
        network: on the CPU.
        example: a batch with at least two rows and some padding, for tracing.

    Cost: 0.1 s for our own encoder, 5-20 s for a pretrained one, which is traced.
    """
    network.eval()
    if isinstance(network, Encoder):
        return encoder_graph(network.shape, {k: v.numpy() for k, v in network.state_dict().items()}).SerializeToString()
    ids, mask, _ = to_tensors(example, torch.device("cpu"))
    file = io.BytesIO()
    free = {0: "B", 1: "T"}
    with warnings.catch_warnings():  # the tracing exporter is deprecated, yet a tenth of the cost of its successor and exact here; tracing warns of each Python branch
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.onnx")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|transformers)")
        axes: dict[str, Any] = {"ids": free, "mask": free, "scores": free if network(ids[:1], mask[:1]).dim() == 3 else {0: "B"}}
        cast("Any", torch.onnx).export(
            network, (ids.long(), mask), file, input_names=["ids", "mask"], output_names=["scores"], dynamic_axes=axes, opset_version=TRACED_OPSET, dynamo=False
        )
    return file.getvalue()


def check_same(session: Session, network: Network, batches: Sequence[Batch]) -> float:
    """The largest difference between the ONNX session and torch, over tokens that stand.

    Raises:
        Broken: `neural.onnx-differs`.
    """
    run = torch_run(network)
    worst = 0.0
    for batch in batches:
        one, other = session(batch), run(batch)
        apart = np.abs(one - other) / np.maximum(1.0, np.abs(other))
        worst = max(worst, float((apart[batch.mask] if apart.ndim == 3 else apart).max()))
    if not worst <= TOLERANCE:
        raise Broken("neural.onnx-differs", difference=f"{worst:.1e}", allowed=f"{TOLERANCE:.0e}")
    return worst


def seconds_of(session: Session, batches: Sequence[Batch]) -> float:
    """The least of three timings of all batches."""

    def once() -> float:
        start = time.perf_counter()
        for batch in batches:
            session(batch)
        return time.perf_counter() - start

    return min(once() for _ in range(3))
