"""Open Inference Protocol over REST (KServe's "V2"): ``/v2``, ``/v2/health/…``, ``/v2/models/{name}[/versions/{v}][/ready|/infer]``.

Texts are one ``BYTES`` tensor; classification answers ``label`` (BYTES) and ``score`` (FP32), tagging answers ``spans`` (BYTES, each
a JSON list) and ``score``. The binary tensor extension is not spoken. Source: Open Inference Protocol, REST, version 2.
"""

from __future__ import annotations

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

from .base import Protocol, decode_json, only, top_k_of, unknown_version

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
_FIRST = {"classification": "label", "matching": "label", "tagging": "spans"}
"""Name of the first output tensor; other tasks have ``output``, each a JSON object."""


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
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": _FIRST.get(model.task, "output"), "datatype": "BYTES", "shape": [-1]}, {"name": "score", "datatype": "FP32", "shape": [-1]}],
            }
        )

    async def _infer(self, request: Request, name: str, version: str | None) -> Response:
        self.desk.router.service(name, request.principal)
        if b"inference-header-content-length" in request.headers:
            raise Invalid("gateway.bad-tensor", reason="the binary tensor extension is not spoken here")
        body = decode_json(request, _decoder)
        texts = _texts(body)
        top_k = top_k_of(body.parameters["top_k"]) if "top_k" in body.parameters else 1
        outputs, model = await self.desk.predict(request, name, texts, top_k=top_k, version=version)
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


def _texts(body: _Infer) -> list[str]:
    """The texts of the one input tensor; flat or one row each."""
    if len(body.inputs) != 1:
        raise Invalid("gateway.bad-tensor", reason=f"{len(body.inputs)} inputs instead of one")
    tensor = body.inputs[0]
    if tensor.name not in {"text", "texts", "input", "inputs", "input-0"}:
        raise Invalid("gateway.bad-tensor", reason=f"its name is {tensor.name[:40]!r} instead of 'text'")
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
    shape = [len(outputs)]
    score = {"name": "score", "datatype": "FP32", "shape": shape, "data": [o.score or 0.0 for o in outputs]}
    told = [plain(o, t, top_k) for o, t in zip(outputs, texts, strict=True)]
    if model.task not in {"classification", "matching"}:
        name = _FIRST.get(model.task, "output")
        data = [msgspec.json.encode(p.get(name, p)).decode() for p in told]
        return [{"name": name, "datatype": "BYTES", "shape": shape, "data": data}, score]
    tensors: list[dict[str, Any]] = [{"name": "label", "datatype": "BYTES", "shape": shape, "data": [o.label or "" for o in outputs]}, score]
    if top_k > 1:
        tensors.append({"name": "scores", "datatype": "BYTES", "shape": shape, "data": [msgspec.json.encode(p["scores"]).decode() for p in told]})
    return tensors


def _asked(tensors: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for tensor in tensors:
        if tensor["name"] == name:
            return tensor
    raise Invalid("gateway.bad-tensor", reason=f"there is no output {name[:40]!r}")


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(value))
