"""What a teacher's hidden states have to say to a student while it learns: layer by layer, token by token, whatever either calls a token.

The teacher is a served network: its states are read off its ONNX graph. A student's layer is compared with the teacher's at the same relative
depth, through a linear map of its own, so that their widths may differ; each dimension of the teacher is centred and scaled first, or a few large ones
would be all that counts. Knows nothing of tasks.
Source: Jiao et al. 2020, section 3.1 (hidden states of mapped layers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from torch import Tensor, nn

from wenfang.core.errors import Broken, Invalid

from .batches import Batch, Piece, Stacker
from .network import Network
from .objectives import Objective
from .session import Session
from .stored_tokens import tokens_from_json
from .tokens import Encoded

__all__ = ["Guided", "Teacher", "open_teacher", "state_names"]

Half = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]
SAMPLE = 64
"""Pieces that tell the mean and the spread of the teacher's states."""
CACHE_MAX_BYTES = 512 << 20
"""Of the teacher's states; what does not fit is computed again in each pass."""
SCOPE = re.compile(r"(?:layers?|blocks?|h)\.(\d+)/")


class Teacher:
    """A served network whose layers can be read.

    Args:
        model: its ONNX bytes.
        tokens: of its bundle.
        size: tokens it reads at once.

    Raises:
        Invalid: `neural.guide-unfit`: no layer can be told in it.
    """

    def __init__(self, model: bytes, tokens: Any, size: int) -> None:
        whole = onnx.load_model_from_string(model)
        self.names = state_names(whole)
        if not self.names:
            raise Invalid("neural.guide-unfit")
        del whole.graph.output[:]
        whole.graph.output.extend([helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.names])
        self.session = Session(whole.SerializeToString())
        self.tokens = tokens
        self.size = size
        probe = Stacker(tokens.encode([""]), [Piece(0, 0, 0, 0, 0)], tokens).stack(np.arange(1))
        self.widths = [int(s.shape[-1]) for s in self.session.every(probe)]
        """H of each layer."""


def open_teacher(folder: Path) -> Teacher:
    """The network of an unpacked bundle of the family ``transformer``.

    Raises:
        Invalid: `neural.guide-missing`, `neural.guide-unfit`.
    """
    try:
        head = json.loads((folder / "tokens.json").read_bytes())
        tokens = tokens_from_json(head["tokens"], {p.name: p.read_bytes() for p in folder.glob("tokenizer.json")})
        return Teacher((folder / "model.onnx").read_bytes(), tokens, int(head["size"]))
    except (OSError, ValueError, KeyError, TypeError, Broken, DecodeError) as e:
        raise Invalid("neural.guide-missing", path=str(folder), reason=type(e).__name__) from e


def state_names(model: onnx.ModelProto) -> list[str]:
    """What each layer hands on, lowest first: named so in our own graph, found by the names of layers in a traced one."""
    made = {name: node for node in model.graph.node for name in node.output}
    own = sorted((name for name in made if re.fullmatch(r"state_\d+", name)), key=lambda n: int(n[6:]))
    if own:
        return own

    def layer(node: Any) -> int | None:
        found = SCOPE.search(node.name)
        return None if found is None else int(found[1])

    found: dict[int, str] = {}
    for node in model.graph.node:
        for name in node.input:
            if name in made and (inside := layer(made[name])) is not None and layer(node) != inside:
                found[inside] = name
    return [found[i] for i in sorted(found)]


class Guided:
    """An objective with the teacher's states beside it.

    Args:
        inner: of the task.
        network: the student; it keeps its states while it learns.
        teacher: whose states are wanted.
        texts: n.
        stacker: of the student, a sequence for each text.
        strength: weight of the states' disagreement.

    Raises:
        Invalid: `neural.guide-shallow`: the student has no layers.
    """

    def __init__(self, inner: Objective, network: Network, teacher: Teacher, *, texts: Sequence[str], stacker: Stacker, strength: float) -> None:
        own = network.state_widths()
        if not own:
            raise Invalid("neural.guide-shallow")
        self.inner, self.network, self.teacher, self.strength = inner, network, teacher, strength
        self.texts, self.stacker = texts, stacker
        network.watched = True
        self.mapped = [round((i + 1) * len(teacher.widths) / len(own)) - 1 for i in range(len(own))]
        """Which layer of the teacher each of the student's is compared with."""
        self.maps = nn.ModuleList(nn.Linear(width, teacher.widths[at]) for width, at in zip(own, self.mapped, strict=True))
        self._layer = nn.ModuleList([self.maps, *([inner.layer] if inner.layer is not None else [])])
        self._kept: dict[tuple[str, int, int], tuple[Places, list[Half]]] = {}
        self._kept_bytes = 0
        spread = np.unique(np.linspace(0, len(stacker.pieces) - 1, SAMPLE).astype(np.intp))
        sample = [np.concatenate(column).astype(np.float32) for column in zip(*(states for _, states in self.told(spread)), strict=True)]
        self.centre = [torch.from_numpy(s.mean(axis=0)) for s in sample]
        self.spread = [torch.from_numpy(s.std(axis=0) + 1e-3) for s in sample]

    @property
    def layer(self) -> nn.Module | None:
        """The linear maps, and the inner objective's own."""
        return self._layer

    def weight(self, batch: Batch) -> float:
        """The inner objective's."""
        return self.inner.weight(batch)

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """The inner loss and, as much as the batch weighs, the squared distance of the mapped states."""
        states, device = self.network.states, scores.device
        told = self.told(batch.rows)
        rows = torch.from_numpy(np.repeat(np.arange(len(told)), [len(places) for places, _ in told])).to(device)
        places = torch.from_numpy(np.concatenate([places for places, _ in told])).to(device)
        apart = scores.new_zeros(())
        for k, one in enumerate(self.maps):
            wanted = torch.from_numpy(np.concatenate([columns[k] for _, columns in told])).to(device).float()
            wanted = (wanted - self.centre[k].to(device)) / self.spread[k].to(device)
            own = states[k][rows, places].float()
            apart = apart + F.mse_loss(one(F.layer_norm(own, own.shape[-1:])), wanted)
        return self.inner(scores, batch) + self.strength * self.inner.weight(batch) / len(self.maps) * apart

    def apart(self, one: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """The inner objective's."""
        return self.inner.apart(one, other, batch)

    # ---- the teacher's side

    def told(self, rows: npt.NDArray[np.intp]) -> list[tuple[Places, list[Half]]]:
        """Of each piece: places in the student's row that have a state, and that state of each mapped layer, (places, H)."""
        numbers: list[int] = rows.tolist()
        pieces = [self.stacker.pieces[row] for row in numbers]
        keys: list[tuple[str, int, int]] = [(self.texts[p.text], p.start, p.end) for p in pieces]
        fresh = {key: row for key, row in zip(keys, numbers, strict=True) if key not in self._kept}
        found = dict(zip(fresh, self._asked(list(fresh.values())), strict=True))
        for key, (places, states) in found.items():
            size = sum(s.nbytes for s in states) + places.nbytes
            if self._kept_bytes + size <= CACHE_MAX_BYTES:
                self._kept[key] = places, states
                self._kept_bytes += size
        return [found[key] if key in found else self._kept[key] for key in keys]

    def _asked(self, rows: list[int]) -> list[tuple[Places, list[Half]]]:
        if not rows:
            return []
        teacher = self.teacher
        pieces = [self.stacker.pieces[row] for row in rows]
        encoded = teacher.tokens.encode([self.texts[p.text] for p in pieces])
        spans = [_span(encoded[i], *_borders(self.stacker.encoded[p.text], p), teacher.size) for i, p in enumerate(pieces)]
        stacker = Stacker(encoded, [Piece(i, a, b, a, b) for i, (a, b) in enumerate(spans)], teacher.tokens)
        states = teacher.session.every(stacker.stack(np.arange(len(rows))))
        head, own_head = len(teacher.tokens.prefix), len(self.stacker.tokens.prefix)
        found: list[tuple[Places, list[Half]]] = []
        for i, piece in enumerate(pieces):
            at = _aligned(self.stacker.encoded[piece.text], piece, encoded[i], *spans[i])
            own = np.flatnonzero(at >= 0)
            places, theirs = own + own_head, at[own] + head
            if head and own_head:
                places, theirs = np.concatenate([[0], places]), np.concatenate([[0], theirs])
            found.append((places.astype(np.int64), [states[layer][i, theirs].astype(np.float16) for layer in self.mapped]))
        return found


def _borders(encoded: Encoded, piece: Piece) -> tuple[int, int]:
    """The code points of a piece."""
    if encoded.offsets is None or piece.start == piece.end:
        return piece.start, piece.end
    return int(encoded.offsets[piece.start, 0]), int(encoded.offsets[piece.end - 1, 1])


def _span(encoded: Encoded, start: int, end: int, size: int) -> tuple[int, int]:
    """The tokens that touch code points ``[start, end)``, at most ``size``."""
    if encoded.offsets is None:
        first, last = start, end
    else:
        first = int(np.searchsorted(encoded.offsets[:, 1], start, side="right"))
        last = max(first, int(np.searchsorted(encoded.offsets[:, 0], end, side="left")))
    return first, min(last, first + size)


def _aligned(own: Encoded, piece: Piece, other: Encoded, first: int, last: int) -> Places:
    """For each token of the piece the other's token that covers its first code point, counted from ``first``; -1: none does."""
    at = np.arange(piece.start, piece.end) if own.offsets is None else own.offsets[piece.start : piece.end, 0].astype(np.int64)
    if other.offsets is None:
        found = at
    else:
        found = np.searchsorted(other.offsets[:, 0], at, side="right") - 1
        inside = (found >= 0) & (at < other.offsets[np.maximum(found, 0), 1]) if len(other.offsets) else np.zeros(len(at), np.bool_)
        found = np.where(inside, found, -1)
    return np.where((found >= first) & (found < last), found - first, -1).astype(np.int64)
