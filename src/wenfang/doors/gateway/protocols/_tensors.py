"""Tensors of the Open Inference Protocol: texts out of them, answers into them, as values and as raw bytes. Knows nothing of HTTP or gRPC.

Source: Open Inference Protocol, version 2; Triton's extensions for binary data and classification.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid
from wenfang.core.examples import Output
from wenfang.core.plain import plain
from wenfang.serve.routing import RoutedModel
from wenfang.serve.turns import RANKS

from .base import INPUTS_MAX, WRITING, generation_of, top_k_of

__all__ = ["INPUTS", "OUTPUTS", "Asked", "Tensor", "answered", "asked_of", "classes", "columns", "strings"]

Signature = tuple[tuple[str, str], ...]
"""(name, datatype) of each tensor."""
_SCORE = ("score", "FP32")
OUTPUTS: dict[str, Signature] = {
    "classification": (("label", "BYTES"), _SCORE),
    "multilabel": (("labels", "BYTES"), _SCORE),
    "tagging": (("spans", "BYTES"), _SCORE),
    "matching": (("label", "BYTES"), _SCORE),
    "embedding": (("vector", "FP32"),),
    "generation": (("text", "BYTES"), ("finish", "BYTES")),
    "chat": (("text", "BYTES"), ("finish", "BYTES")),
}
INPUTS: dict[str, Signature] = {task: (("text", "BYTES"), ("text_b", "BYTES")) if task == "matching" else (("text", "BYTES"),) for task in OUTPUTS}
_TEXT = frozenset({"text", "texts", "input", "inputs", "input-0"})
_SEQUENCES = frozenset({"sequence_id", "sequence_start", "sequence_end"})
_OF_THE_PROTOCOL = frozenset({"binary_data_output", "priority", "timeout"})
TIMEOUT_MAX_US = 10**12
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor by value: ``data`` is flat, strings for BYTES, numbers for FP32."""

    name: str
    datatype: str
    shape: list[int]
    data: Sequence[Any]

    def raw(self) -> bytes:
        """Little-endian bytes; a BYTES element is its length in four bytes and itself."""
        if self.datatype == "FP32":
            return self.data.tobytes() if isinstance(self.data, array) else array("f", self.data).tobytes()
        encoded = [value.encode() for value in self.data]
        return b"".join([part for value in encoded for part in (_LENGTH.pack(len(value)), value)])


@dataclass(frozen=True, slots=True)
class Asked:
    """What the parameters of a request ask for."""

    top_k: int = 1
    options: Generation | None = None
    deadline_s: float | None = None
    rank: int | None = None


def _bad(reason: str) -> Invalid:
    return Invalid("gateway.bad-tensor", reason=reason)


def strings(raw: bytes | memoryview) -> list[str]:
    r"""The elements of a raw BYTES tensor.

    Raises:
        Invalid: `gateway.bad-tensor`: cut off, or not UTF-8.

    >>> strings(b"\x02\x00\x00\x00hi\x00\x00\x00\x00")
    ['hi', '']
    """
    view, at, found = memoryview(raw), 0, list[str]()
    size = len(view)
    while at < size:
        if len(found) > INPUTS_MAX:
            raise _bad(f"its raw bytes have more than {INPUTS_MAX} elements")
        if at + 4 > size or (end := at + 4 + _LENGTH.unpack_from(view, at)[0]) > size:
            raise _bad(f"its raw bytes end inside element {len(found)}")
        try:
            found.append(str(view[at + 4 : end], "utf-8"))
        except UnicodeDecodeError as e:
            raise _bad(f"element {len(found)} is not UTF-8") from e
        at = end
    return found


def columns(tensors: Sequence[Tensor]) -> tuple[list[str], list[str]]:
    """The texts, and the second texts where there are two input tensors.

    Args:
        tensors: as they came; shapes are [B] or [B, 1].

    Raises:
        Invalid: `gateway.bad-tensor`, `gateway.pairs-mixed`.
    """
    if not 1 <= len(tensors) <= 2:
        raise _bad(f"{len(tensors)} inputs instead of one, or of two for pairs")
    seconds = [t for t in tensors if t.name == "text_b"]
    firsts = [t for t in tensors if t.name != "text_b"]
    if len(firsts) != 1:
        raise _bad("there must be exactly one input 'text'")
    if firsts[0].name not in _TEXT:
        raise _bad(f"its name is {firsts[0].name[:40]!r} instead of 'text'")
    texts, texts_b = _texts(firsts[0]), [text for tensor in seconds for text in _texts(tensor)]
    if seconds and len(texts_b) != len(texts):
        raise Invalid("gateway.pairs-mixed", pairs=len(texts_b), inputs=len(texts))
    return texts, texts_b


def _texts(tensor: Tensor) -> list[str]:
    if tensor.datatype != "BYTES":
        raise _bad(f"its datatype is {tensor.datatype[:20]!r}")
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise _bad(f"its shape is {shape[:8]}")
    if len(tensor.data) > INPUTS_MAX:
        raise Invalid("gateway.too-many-inputs", n=len(tensor.data), max=INPUTS_MAX)
    data: list[Any] = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in tensor.data]  # pyright: ignore[reportUnknownArgumentType]
    if len(data) != shape[0]:
        raise _bad(f"its shape says {shape[0]} texts and {len(data)} are there")
    for index, value in enumerate(data):
        if not isinstance(value, str):
            raise _bad(f"element {index} is not a string")
    return data


def asked_of(parameters: Mapping[str, Any], model: RoutedModel) -> Asked:
    """What a request's parameters ask of ``model``: ``top_k``, options of generation, ``timeout`` in microseconds, ``priority``.

    Raises:
        Invalid: `gateway.bad-parameter`.
    """
    if not parameters:
        return Asked()
    deadline_s = None
    if "timeout" in parameters:
        timeout_us = parameters["timeout"]
        if type(timeout_us) is not int or timeout_us < 0:
            raise Invalid("gateway.bad-parameter", parameter="timeout", got=str(timeout_us)[:40], expected="whole microseconds")
        deadline_s = min(timeout_us, TIMEOUT_MAX_US) / 1e6 or None
    priority = parameters.get("priority", 0)
    if type(priority) is not int or priority < 0:
        raise Invalid("gateway.bad-parameter", parameter="priority", got=str(priority)[:40], expected="0 (as usual), 1 (most urgent), 2, 3")
    rank = min(priority, len(RANKS)) - 1 if priority else None
    rest = {name: value for name, value in parameters.items() if name not in _OF_THE_PROTOCOL}
    if given := sorted(_SEQUENCES & set(rest)):
        raise Invalid("gateway.bad-parameter", parameter=given[0], got="given", expected="left out: every request stands alone")
    if model.task in WRITING:
        return Asked(1, generation_of(rest), deadline_s, rank)
    if unknown := sorted(set(rest) - {"top_k"}):
        raise Invalid("gateway.bad-parameter", parameter=unknown[0][:40], got="unknown", expected="top_k, timeout, priority")
    return Asked(top_k_of(rest["top_k"]) if "top_k" in rest else 1, None, deadline_s, rank)


def answered(outputs: Sequence[Output], texts: Sequence[str], model: RoutedModel, top_k: int) -> list[Tensor]:
    """The answers to B texts as the output tensors of the task; lists and objects are JSON in BYTES."""
    n = len(outputs)
    if outputs[0].vector is not None:
        vectors = array("f", b"".join([o.vector or b"" for o in outputs]))
        return [Tensor("vector", "FP32", [n, len(vectors) // n], vectors)]
    if model.task == "classification" and top_k == 1:  # by far the most frequent
        return [Tensor("label", "BYTES", [n], [o.label or "" for o in outputs]), Tensor("score", "FP32", [n], [o.score or 0.0 for o in outputs])]
    told = [plain(o, t, top_k) for o, t in zip(outputs, texts, strict=True)]
    signature = OUTPUTS[model.task] if "label" in told[0] or model.task != "matching" else (_SCORE,)
    tensors = [_tensor(name, datatype, told) for name, datatype in signature]
    if top_k > 1:
        tensors += [_tensor(name, "BYTES", told) for name in ("scores", "alternatives") if all(name in t for t in told)]
    return tensors


def _tensor(name: str, datatype: str, told: Sequence[dict[str, Any]]) -> Tensor:
    """One value of each answer; a list or an object as its JSON."""
    values = [t.get(name, 0.0 if datatype == "FP32" else "") for t in told]
    return Tensor(name, datatype, [len(told)], [v if isinstance(v, (str, float, int)) else msgspec.json.encode(v).decode() for v in values])


def classes(name: str, outputs: Sequence[Output], model: RoutedModel, k: int) -> Tensor:
    """The ``k`` likeliest labels of each answer as ``score:index:label`` (the classification extension): BYTES [B, min(k, L)].

    Raises:
        Invalid: `gateway.bad-tensor`: the task has no classes.
    """
    if name not in {"label", "score"} or any(o.label is None for o in outputs):
        raise _bad(f"output {name[:40]!r} has no classes")
    index = {label: i for i, label in enumerate(model.labels)}
    rows = [
        [f"{score:f}:{index.get(label, -1)}:{label}" for label, score in sorted((o.scores or {o.label or "": o.score or 0.0}).items(), key=lambda pair: -pair[1])[:k]]
        for o in outputs
    ]
    width = min(map(len, rows))
    return Tensor(name, "BYTES", [len(rows), width], [value for row in rows for value in row[:width]])
