"""An ONNX network with narrower weights: int8 with scales found at each call or fixed beforehand, or half floats. Knows nothing of tasks or training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .batches import Batch
from .session import Session

__all__ = ["fp16_of", "int8_of", "int8_static_of"]

HALF_MAX = float(np.finfo(np.float16).max)
HALF_LEAST = 64
"""Smaller arrays stay as they are: nothing is gained by them."""


def int8_of(model: bytes) -> bytes:
    """The same network with int8 weights, its inputs scaled by what each call holds: a quarter of the size.

    Seven bits of range, scales for each channel: full range saturates on processors without VNNI and loses ten times the precision.
    """
    from onnxruntime import quantization

    quantize: Any = quantization.quantize_dynamic  # pyright: ignore[reportUnknownVariableType]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.onnx"
        quantize(_prepared(model), small, per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"])
        return small.read_bytes()


def int8_static_of(model: bytes, calibration: Sequence[Batch]) -> bytes:
    """The same network with int8 weights, its inputs scaled by what ``calibration`` showed: an answer does not depend on its neighbours.

    Only products with weights are int8; those inside the attention, and every sum, stay fp32.

    Args:
        model: fp32.
        calibration: texts like those to come, some dozens.

    Cost: one pass of all of them.
    Source: Jacob et al. 2018, section 2 (ranges by minimum and maximum); quantise and dequantise nodes as onnxruntime fuses them.
    """
    from onnxruntime import quantization

    whole = _prepared(model)
    given = Session(model).given
    weights = {w.name for w in whole.graph.initializer}

    class Shown(quantization.CalibrationDataReader):
        """The texts, one batch after the other."""

        def __init__(self) -> None:
            self._left: Iterator[dict[str, Any]] = iter([given(batch) for batch in calibration])

        def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self._left, None)

    quantize: Any = quantization.quantize_static  # pyright: ignore[reportUnknownVariableType]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.onnx"
        quantize(
            whole, small, Shown(), quant_format=quantization.QuantFormat.QDQ, per_channel=True, reduce_range=True, weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8, op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[n.name for n in whole.graph.node if n.op_type == "MatMul" and n.input[1] not in weights],
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )  # fmt: skip
        return small.read_bytes()


def fp16_of(model: bytes) -> bytes:
    """The same network with its weights kept as half floats, half the size; they are widened when it is loaded, so it computes as fp32 does.

    A weight beyond the range of a half float leaves its whole array as it is.
    """
    whole = onnx.load_model_from_string(model)
    graph = whole.graph
    kept: list[Any] = []
    widened: list[Any] = []
    for weight in graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype != np.float32 or value.size < HALF_LEAST or not np.abs(value).max() <= HALF_MAX:
            kept.append(weight)
            continue
        kept.append(numpy_helper.from_array(value.astype(np.float16), f"{weight.name}.half"))
        widened.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], name=f"widen_{weight.name}", to=TensorProto.FLOAT))
    nodes = [*widened, *graph.node]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return whole.SerializeToString()


def _prepared(model: bytes) -> onnx.ModelProto:
    whole = onnx.load_model_from_string(model)
    helper.set_model_props(whole, {"onnx.quant.pre_process": "onnxruntime.quant"})  # shapes are inferred there for static int8; else it warns
    return whole
