"""Open Inference Protocol over REST (KServe's "V2"): ``/v2``, ``/v2/health/…``, ``/v2/models/{name}[/versions/{v}][/ready|/infer]``.

Texts are one ``BYTES`` tensor ``text``, pairs two (``text``, ``text_b``). Answers are tensors by task: ``label`` and ``score``, ``labels`` or
``spans`` (each a JSON list) and ``score``, ``vector`` (FP32, one row each), ``text``. What is asked of generation stands in
``parameters``. The binary tensor extension is not spoken. Source: Open Inference Protocol, REST, version 2.
"""

from __future__ import annotations

from array import array
from typing import Any, ClassVar

import msgspec

from wenfang.core.errors import Invalid, NotFound, WenfangError
from wenfang.core.examples import Output
from wenfang.core.plain import plain
from wenfang.core.version import __version__
from wenfang.doors.gateway.access import authorise
from wenfang.doors.gateway.exchange import JSON, Request, Response
from wenfang.doors.gateway.problems import headers_of, status_of
from wenfang.serve.routing import RoutedModel

from .base import WRITING, Protocol, decode_json, generation_of, only, top_k_of, unknown_version

__all__ = ["Inference"]


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class _Wanted(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct, frozen=True):
    inputs: list[_Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Wanted] = []


_decoder = msgspec.json.Decoder(_Infer)
_SCORE = ("score", "FP32")
_OUTPUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "classification": (("label", "BYTES"), _SCORE),
    "multilabel": (("labels", "BYTES"), _SCORE),
    "tagging": (("spans", "BYTES"), _SCORE),
    "matching": (("label", "BYTES"), _SCORE),
    "embedding": (("vector", "FP32"),),
    "generation": (("text", "BYTES"), ("finish", "BYTES")),
    "chat": (("text", "BYTES"), ("finish", "BYTES")),
}
_TEXT = frozenset({"text", "texts", "input", "inputs", "input-0"})


class Inference(Protocol):
    """``/v2`` and everything below."""

    segments: ClassVar[tuple[str, ...]] = ("v2",)

    def is_open(self, path: str) -> bool:
        """Health needs no key."""
        return path in {"/v2/health/live", "/v2/health/ready"}

    def problem(self, error: WenfangError, request: Request) -> Response:
        """``{"error": "…"}``; what the caller got wrong is 400."""
        status = status_of(error)
        body = msgspec.json.encode({"error": f"{error.detail(request.lang)} {error.hint(request.lang)}".strip()})
        return Response(400 if status == 422 else status, body, JSON, headers_of(error, status))

    async def answer(self, request: Request) -> Response:
        """One of the protocol's resources."""
        parts = request.path.strip("/").split("/")[1:]
        match parts:
            case []:
                only(request, "GET", "HEAD")
                return _json({"name": "wenfang", "version": __version__, "extensions": []})
            case ["health", "live"]:
                only(request, "GET", "HEAD")
                return _json({"live": True})
            case ["health", "ready"]:
                only(request, "GET", "HEAD")
                return _json({"ready": self.desk.router.ready}, 200 if self.desk.router.ready else 503)
            case ["models", name, *rest]:
                version, verb = _version_and_verb(request, rest)
                if verb == "infer":
                    only(request, "POST")
                    return await self._infer(request, name, version)
                only(request, "GET", "HEAD")
                return self._about(request, name, version, ready=verb == "ready")
            case _:
                raise NotFound("gateway.no-such-path", path=request.path[:200])

    def _about(self, request: Request, name: str, version: str | None, *, ready: bool) -> Response:
        router = self.desk.router
        service = router.service(name, request.principal)
        authorise(request.principal, service)
        request.service = name
        pool, model = router.target(service)
        number = model.version.rpartition(":")[2]
        if version is not None and version != number:
            raise unknown_version(name, version, model)
        if ready:
            return _json({"name": name, "version": number, "ready": bool(pool.ready)}, 200 if pool.ready else 503)
        return _json(
            {
                "name": name,
                "versions": [number],
                "platform": "wenfang",
                "inputs": [{"name": n, "datatype": "BYTES", "shape": [-1]} for n in (("text", "text_b") if model.task == "matching" else ("text",))],
                "outputs": [{"name": n, "datatype": kind, "shape": [-1, -1] if n == "vector" else [-1]} for n, kind in _OUTPUTS[model.task]],
            }
        )

    async def _infer(self, request: Request, name: str, version: str | None) -> Response:
        self.desk.router.service(name, request.principal)
        if b"inference-header-content-length" in request.headers:
            raise Invalid("gateway.bad-tensor", reason="the binary tensor extension is not spoken here")
        body = decode_json(request, _decoder)
        texts, texts_b = _columns(body)
        top_k, options = 1, None
        if body.parameters:
            if self.desk.target(request, name)[1].task in WRITING:
                options = generation_of(body.parameters)
            elif "top_k" in body.parameters:
                top_k = top_k_of(body.parameters["top_k"])
        outputs, model = await self.desk.predict(request, name, texts, texts_b=texts_b, top_k=top_k, version=version, options=options)
        tensors = _tensors(outputs, texts, model, top_k)
        if body.outputs:
            tensors = [_asked(tensors, wanted.name) for wanted in body.outputs]
        return _json({"model_name": name, "model_version": model.version.rpartition(":")[2], "id": body.id or request.request_id, "outputs": tensors})


def _version_and_verb(request: Request, rest: list[str]) -> tuple[str | None, str]:
    match rest:
        case []:
            return None, ""
        case [("ready" | "infer") as verb]:
            return None, verb
        case ["versions", version]:
            return version, ""
        case ["versions", version, ("ready" | "infer") as verb]:
            return version, verb
        case _:
            raise NotFound("gateway.no-such-path", path=request.path[:200])


def _columns(body: _Infer) -> tuple[list[str], list[str]]:
    """The texts, and the second texts where there are two input tensors."""
    if not 1 <= len(body.inputs) <= 2:
        raise Invalid("gateway.bad-tensor", reason=f"{len(body.inputs)} inputs instead of one, or of two for pairs")
    seconds = [t for t in body.inputs if t.name == "text_b"]
    firsts = [t for t in body.inputs if t.name != "text_b"]
    if len(firsts) != 1:
        raise Invalid("gateway.bad-tensor", reason="there must be exactly one input 'text'")
    if firsts[0].name not in _TEXT:
        raise Invalid("gateway.bad-tensor", reason=f"its name is {firsts[0].name[:40]!r} instead of 'text'")
    texts, texts_b = _texts(firsts[0]), [text for tensor in seconds for text in _texts(tensor)]
    if seconds and len(texts_b) != len(texts):
        raise Invalid("gateway.pairs-mixed", pairs=len(texts_b), inputs=len(texts))
    return texts, texts_b


def _texts(tensor: _Tensor) -> list[str]:
    """The texts of an input tensor; flat or one row each."""
    if tensor.datatype != "BYTES":
        raise Invalid("gateway.bad-tensor", reason=f"its datatype is {tensor.datatype[:20]!r}")
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
        raise Invalid("gateway.bad-tensor", reason=f"its shape is {tensor.shape[:8]}")
    data: list[Any] = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in tensor.data]  # pyright: ignore[reportUnknownArgumentType]
    if len(data) != tensor.shape[0]:
        raise Invalid("gateway.bad-tensor", reason=f"its shape says {tensor.shape[0]} texts and {len(data)} are there")
    for index, value in enumerate(data):
        if not isinstance(value, str):
            raise Invalid("gateway.bad-tensor", reason=f"element {index} is not a string")
    return data


def _tensors(outputs: list[Output], texts: list[str], model: RoutedModel, top_k: int) -> list[dict[str, Any]]:
    n = len(outputs)
    if outputs[0].vector is not None:
        vectors = array("f", b"".join([o.vector or b"" for o in outputs]))
        return [{"name": "vector", "datatype": "FP32", "shape": [n, len(vectors) // n], "data": vectors.tolist()}]
    told = [plain(o, t, top_k) for o, t in zip(outputs, texts, strict=True)]
    tensors = [_tensor(name, datatype, told) for name, datatype in _OUTPUTS[model.task] if name != "vector"] or [_tensor(*_SCORE, told)]
    if top_k > 1:
        tensors += [_tensor(name, "BYTES", told) for name in ("scores", "alternatives") if all(name in t for t in told)]
    return tensors


def _tensor(name: str, datatype: str, told: list[dict[str, Any]]) -> dict[str, Any]:
    """One value of each answer; a list or an object as its JSON."""
    values = [t.get(name, 0.0 if datatype == "FP32" else "") for t in told]
    data = [v if isinstance(v, (str, float, int)) else msgspec.json.encode(v).decode() for v in values]
    return {"name": name, "datatype": datatype, "shape": [len(told)], "data": data}


def _asked(tensors: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for tensor in tensors:
        if tensor["name"] == name:
            return tensor
    raise Invalid("gateway.bad-tensor", reason=f"there is no output {name[:40]!r}")


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(value))
