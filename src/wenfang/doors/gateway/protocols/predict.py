"""``POST /predict/{service}``: texts in, labels and scores or spans out. Wenfang's own protocol, the shortest there is."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from wenfang.core.errors import Invalid, NotFound
from wenfang.core.examples import Output
from wenfang.doors.gateway.exchange import Request, Response

from .base import Protocol, decode_json, only, top_k_of

__all__ = ["Predict", "as_plain"]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: list[str] | str
    parameters: dict[str, Any] = {}


class _Label(msgspec.Struct, frozen=True, omit_defaults=True):
    label: str
    score: float
    scores: dict[str, float] | None = None


class _Answer(msgspec.Struct, frozen=True):
    outputs: list[Any]
    model: str
    id: str


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()
_PARAMETERS = {"top_k"}


def as_plain(output: Output, text: str, top_k: int) -> Any:
    """One output as JSON shows it: spans carry the piece of text they stand for."""
    if output.spans is not None:
        spans = [{"start": s.start, "end": s.end, "label": s.label, "text": text[s.start : s.end]} for s in output.spans]
        return {"spans": spans, "score": output.score}
    scores = output.scores
    if scores is not None and top_k < len(scores):
        scores = dict(sorted(scores.items(), key=lambda pair: -pair[1])[:top_k])
    return _Label(output.label or "", output.score or 0.0, scores if top_k > 1 else None)


class Predict(Protocol):
    """``{"inputs": ["…"]}`` → ``{"outputs": […], "model": "name:version", "id": "…"}``."""

    segments: ClassVar[tuple[str, ...]] = ("predict",)

    async def answer(self, request: Request) -> Response:
        """Predict."""
        name = request.path[len("/predict/") :]
        if not name or "/" in name:
            raise NotFound("gateway.no-such-path", path=request.path[:200])
        only(request, "POST")
        self.desk.router.service(name, request.principal)
        body = decode_json(request, _decoder)
        top_k = 1
        if body.parameters:
            _known(body.parameters)
            top_k = top_k_of(body.parameters["top_k"])
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        outputs, model = await self.desk.predict(request, name, texts, top_k=top_k)
        answer = _Answer([as_plain(o, t, top_k) for o, t in zip(outputs, texts, strict=True)], model.version, request.request_id)
        return Response(200, _encoder.encode(answer))


def _known(parameters: dict[str, Any]) -> None:
    if unknown := sorted(set(parameters) - _PARAMETERS):
        raise Invalid("gateway.bad-parameter", parameter=unknown[0][:40], got="unknown", expected="top_k")
