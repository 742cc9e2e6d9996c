"""Our encoder as an ONNX graph, written operator by operator from its weights: a tenth of a second where tracing takes six or more.

Knows nothing of training. Standard operators only (opset 20), batch and length free; what layer i hands on is named ``state_i``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.onnx_ml_pb2 import ModelProto, NodeProto

from .encoder import EncoderShape, wave_lengths
from .tokens import CLS

__all__ = ["OPSET", "encoder_graph"]

OPSET = 20
Array = npt.NDArray[np.generic]


class _Writer:
    """Nodes and weights of a graph in the making; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Array] = {}

    def weight(self, name: str, value: Array) -> str:
        self.weights[name] = np.ascontiguousarray(value).reshape(value.shape)  # a scalar stays one
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))  # pyright: ignore[reportArgumentType]
        return name

    def number(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.weight("i_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.weight(f"f_{value}".replace("-", "m").replace(".", "p"), np.array(value, np.float32))

    def linear(self, x: str, name: str, weights: Mapping[str, Array]) -> str:
        product = self.op("MatMul", x, self.weight(f"{name}.weight_t", weights[f"{name}.weight"].T))
        return self.op("Add", product, self.weight(f"{name}.bias", weights[f"{name}.bias"]))

    def norm(self, x: str, name: str, weights: Mapping[str, Array]) -> str:
        return self.op("LayerNormalization", x, *(self.weight(f"{name}.{k}", weights[f"{name}.{k}"]) for k in ("weight", "bias")), axis=-1, epsilon=1e-5)


def encoder_graph(shape: EncoderShape, weights: Mapping[str, Array]) -> ModelProto:
    """The graph: inputs ``ids`` int32 (B, T), ``mask`` bool (B, T) and, with n-grams, ``grams`` int32 (B, T, G); output ``scores``.

    Args:
        shape: sizes of the encoder.
        weights: its ``state_dict`` as arrays.
    """
    w = _Writer()
    x = w.op("Gather", w.weight("chars.weight", weights["chars.weight"]), "ids")
    side = _side(w) if shape.pairs else ""
    if shape.pairs:
        x = w.op("Add", x, w.op("Gather", w.weight("sides.weight", weights["sides.weight"]), side))
    if shape.gram_buckets:
        votes = w.op("Gather", w.weight("grams.weight", weights["grams.weight"]), "grams")
        x = w.op("Add", x, w.op("ReduceSum", votes, w.number(2), keepdims=0))
    inputs = x
    between, hidden = _distances(w, shape), _hidden(w)
    waves = _waves(w, shape) if shape.signed else None
    for i in range(shape.layers):
        distance = w.op("Gather", w.weight(f"distance.{i}", weights["distance"][i]), between, axis=1)  # (heads, T, T)
        x = _block(w, x, w.op("Add", w.op("Unsqueeze", distance, w.number(0)), hidden), i, shape=shape, weights=weights, waves=waves)
    x = w.norm(x, "norm", weights)
    scores = w.linear(x if shape.tagging else _compare(w, x, side) if shape.pairs else _pool(w, x, inputs), "head", weights)
    w.op("Identity", scores, name="scores")
    return _model(w, shape)


def _distances(w: _Writer, shape: EncoderShape) -> str:
    """Clipped signed distances as table rows, (T, T)."""
    length = w.op("Gather", w.op("Shape", "ids"), w.weight("one", np.array(1, np.int64)))
    at = w.op("Range", w.weight("zero", np.array(0, np.int64)), length, w.weight("one", np.array(1, np.int64)), name="positions")
    apart = w.op("Sub", w.op("Unsqueeze", at, w.number(0)), w.op("Unsqueeze", at, w.number(1)))
    reach = w.weight("reach", np.array(shape.reach, np.int64))
    clipped = w.op("Clip", apart, w.weight("reach_low", np.array(-shape.reach, np.int64)), reach)
    return w.op("Add", clipped, reach)


def _hidden(w: _Writer) -> str:
    """-1e4 where padding stands, (B, 1, 1, T)."""
    padded = w.op("Where", "mask", w.scalar(0.0), w.scalar(-1e4))
    return w.op("Unsqueeze", padded, w.number(1, 2))


def _waves(w: _Writer, shape: EncoderShape) -> tuple[str, str]:
    """Sines and cosines of positions, (T, D / 2) each."""
    at = w.op("Cast", "positions", to=TensorProto.FLOAT)
    angle = w.op("Mul", w.op("Unsqueeze", at, w.number(1)), w.weight("wave_lengths", np.array(wave_lengths(shape), np.float32)))
    return w.op("Sin", angle), w.op("Cos", angle)


def _by_distance(w: _Writer, q: str, waves: tuple[str, str], D: int) -> str:
    """Scores of what each token looks for by signed distance, (B, heads, T, T)."""
    sine, cosine = waves
    a, b = (w.op("Slice", q, w.number(j * D // 2), w.number((j + 1) * D // 2), w.number(3)) for j in range(2))
    one = w.op("Sub", w.op("Mul", b, sine), w.op("Mul", a, cosine))
    two = w.op("Add", w.op("Mul", a, sine), w.op("Mul", b, cosine))
    return w.op("MatMul", w.op("Concat", one, two, axis=-1), w.op("Transpose", w.op("Concat", sine, cosine, axis=-1), perm=[1, 0]))


def _block(w: _Writer, x: str, bias: str, i: int, *, shape: EncoderShape, weights: Mapping[str, Array], waves: tuple[str, str] | None) -> str:
    name = f"blocks.{i}"
    H, heads = shape.hidden, shape.heads
    qkv = w.linear(w.norm(x, f"{name}.attention_norm", weights), f"{name}.qkv", weights)
    parts = w.op("Transpose", w.op("Reshape", qkv, w.number(0, 0, 3 * heads, H // heads)), perm=[0, 2, 1, 3])  # (B, 3 heads, T, D)
    q, k, v = (w.op("Slice", parts, w.number(j * heads), w.number((j + 1) * heads), w.number(1)) for j in range(3))
    if waves is not None:
        bias = w.op("Add", bias, _by_distance(w, w.op("Add", q, w.weight(f"{name}.places", weights[f"{name}.places"])), waves, H // heads))
    scaled = q if waves is not None else w.op("Mul", q, w.scalar((H // heads) ** -0.5))
    product = w.op("MatMul", scaled, w.op("Transpose", k, perm=[0, 1, 3, 2]))
    seen = w.op("MatMul", w.op("Softmax", w.op("Add", product, bias), axis=-1), v)
    joined = w.op("Reshape", w.op("Transpose", seen, perm=[0, 2, 1, 3]), w.number(0, 0, H))
    x = w.op("Add", x, w.linear(joined, f"{name}.out", weights))
    inner = w.op("Gelu", w.linear(w.norm(x, f"{name}.ff_norm", weights), f"{name}.up", weights))
    return w.op("Add", x, w.linear(inner, f"{name}.down", weights), name=f"state_{i}")


def _pool(w: _Writer, x: str, inputs: str) -> str:
    mask = w.op("Unsqueeze", "mask", w.number(2))
    there = w.op("Cast", mask, to=TensorProto.FLOAT)
    n = w.op("ReduceSum", there, w.number(1), keepdims=0)
    mean, direct = (w.op("Div", w.op("ReduceSum", w.op("Mul", part, there), w.number(1), keepdims=0), n) for part in (x, inputs))
    top = w.op("ReduceMax", w.op("Where", mask, x, w.scalar(-1e4)), w.number(1), keepdims=0)
    return w.op("Concat", mean, top, direct, axis=-1)


def _side(w: _Writer) -> str:
    """0 for the first text of a pair, 1 from the separator on, (B, T)."""
    starts = w.op("Cast", w.op("Equal", "ids", w.weight("cls", np.array(CLS, np.int32))), to=TensorProto.INT64)
    one = w.weight("one", np.array(1, np.int64))
    return w.op("Clip", w.op("Sub", w.op("CumSum", starts, one), one), w.weight("zero", np.array(0, np.int64)), one)


def _compare(w: _Writer, x: str, side: str) -> str:
    means: list[str] = []
    for which in (0, 1):
        here = w.op("Equal", side, w.weight(("zero", "one")[which], np.array(which, np.int64)))
        there = w.op("Unsqueeze", w.op("Cast", w.op("And", here, "mask"), to=TensorProto.FLOAT), w.number(2))
        n = w.op("Max", w.op("ReduceSum", there, w.number(1), keepdims=0), w.scalar(1.0))
        means.append(w.op("Div", w.op("ReduceSum", w.op("Mul", x, there), w.number(1), keepdims=0), n))
    first = w.op("Gather", x, w.weight("zero", np.array(0, np.int64)), axis=1)
    return w.op("Concat", *means, w.op("Abs", w.op("Sub", *means)), w.op("Mul", *means), first, axis=-1)


def _model(w: _Writer, shape: EncoderShape) -> ModelProto:
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT32, ["B", "T"]), helper.make_tensor_value_info("mask", TensorProto.BOOL, ["B", "T"])]
    if shape.gram_buckets:
        inputs.append(helper.make_tensor_value_info("grams", TensorProto.INT32, ["B", "T", "G"]))
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", "T", shape.outputs] if shape.tagging else ["B", shape.outputs])
    weights = [numpy_helper.from_array(value, name) for name, value in w.weights.items()]
    graph = helper.make_graph(w.nodes, "encoder", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10, producer_name="wenfang")
    checker.check_model(model)
    return model
