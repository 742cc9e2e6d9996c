"""A network as onnxruntime runs it: what is served. Knows nothing of training, texts or labels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnxruntime as ort

from wenfang.core.errors import Broken

from .batches import Batch
from .paths import Floats

__all__ = ["Session"]


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

    def __call__(self, batch: Batch) -> Floats:
        """Scores of a batch."""
        given: dict[str, Any] = {"ids": batch.ids, "mask": batch.mask, "grams": batch.grams}
        return cast("Floats", self._session.run(None, {name: given[name].astype(kind, copy=False) for name, kind in self._inputs.items()})[0])
