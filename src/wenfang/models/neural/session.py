"""A network as onnxruntime runs it: what is served. Knows nothing of training, texts or labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import onnxruntime as ort

from wenfang.core.errors import Broken

from .batches import Batch
from .paths import Floats

__all__ = ["BUDGETS", "CHECKED", "Session", "Width", "width_of"]

Width = Literal["fp32", "fp16", "int8", "int8-static"]
"""Of the weights: fp16 is widened when it is loaded; int8 finds the scales of its inputs at each call, int8-static has learned them."""
CHECKED: frozenset[str] = frozenset({"int8", "int8-static"})
"""Those whose arithmetic differs between processors: asked again where they are loaded."""
BUDGETS: Mapping[str, int] = {"fp32": 512, "fp16": 512, "int8": 0, "int8-static": 512}
"""Padded tokens of a batch; dynamic int8 takes its scales from the whole batch, so a text's answer would depend on its neighbours: alone, and it costs no more."""


def width_of(name: str) -> Width:
    """The width of that name; ValueError: there is none."""
    if name not in BUDGETS:
        raise ValueError(name)
    return cast("Width", name)


class Session:
    """One model on one thread: a service scales by replicas, not by threads inside a session.

    Args:
        model: the bytes of an ONNX file with inputs among ``ids mask grams`` and one output.
        threads: intra-op threads.

    Raises:
        Broken: `neural.bad-graph`.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        options: Any = cast("Any", ort).SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime raises its own unrelated classes for damaged files
            raise Broken("neural.bad-graph", reason=type(e).__name__) from e
        self._inputs: dict[str, Any] = {i.name: np.int64 if i.type == "tensor(int64)" else np.bool_ if i.type == "tensor(bool)" else np.int32 for i in self._session.get_inputs()}

    def given(self, batch: Batch) -> dict[str, Any]:
        """A batch as the network's inputs, by name."""
        arrays: dict[str, Any] = {"ids": batch.ids, "mask": batch.mask, "grams": batch.grams}
        return {name: arrays[name].astype(kind, copy=False) for name, kind in self._inputs.items()}

    def every(self, batch: Batch) -> list[Floats]:
        """All outputs of a batch."""
        return self._session.run(None, self.given(batch))

    def __call__(self, batch: Batch) -> Floats:
        """Scores of a batch."""
        return cast("Floats", self._session.run(None, self.given(batch))[0])
