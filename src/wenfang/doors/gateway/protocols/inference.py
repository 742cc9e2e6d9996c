"""Open Inference Protocol over REST (KServe's "V2"): ``/v2``, ``/v2/health/…``, ``/v2/models/{name}[/versions/{v}][/ready|/config|/stats|/infer]``,
``/v2/repository/index``.

Texts are one ``BYTES`` tensor ``text``, pairs two (``text``, ``text_b``). Answers are tensors by task: ``label`` and ``score``, ``labels`` or
``spans`` (each a JSON list) and ``score``, ``vector`` (FP32, one row each), ``text`` and ``finish``. What is asked of generation stands in
``parameters``. Source: Open Inference Protocol, REST, version 2; Triton's extensions binary_tensor_data, classification,
model_configuration, model_repository, statistics.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from wenfang.core.errors import Invalid, NotFound, Unsupported, WenfangError
from wenfang.doors.gateway.exchange import JSON, Request, Response
from wenfang.doors.gateway.problems import headers_of, status_of

from ._models import Models
from ._tensors import Tensor, strings
from .base import Desk, Protocol, decode_json, only

__all__ = ["Inference"]

HEADER_LENGTH = b"inference-header-content-length"
BINARY = b"application/octet-stream"


class _Input(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Wanted(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct, frozen=True):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Wanted] = []


_decoder = msgspec.json.Decoder(_Infer)
_encoder = msgspec.json.Encoder()


class Inference(Protocol):
    """``/v2`` and everything below."""

    segments: ClassVar[tuple[str, ...]] = ("v2",)

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._models = Models(desk)

    def is_open(self, path: str) -> bool:
        """Health needs no key."""
        return path in {"/v2/health/live", "/v2/health/ready"}

    def problem(self, error: WenfangError, request: Request) -> Response:
        """``{"error": "…"}``; what the caller got wrong is 400."""
        status = status_of(error)
        body = _encoder.encode({"error": f"{error.detail(request.lang)} {error.hint(request.lang)}".strip()})
        return Response(400 if status == 422 else status, body, JSON, headers_of(error, status))

    async def answer(self, request: Request) -> Response:
        """One of the protocol's resources."""
        parts = request.path.strip("/").split("/")[1:]
        models = self._models
        match parts:
            case ["models"]:
                only(request, "GET", "HEAD")
                return _json({"models": [m["name"] for m in models.index(request)]})
            case ["models", "stats"]:
                only(request, "GET", "HEAD")
                return _json(models.statistics(request))
            case []:
                only(request, "GET", "HEAD")
                return _json(models.server())
            case ["health", "live"]:
                only(request, "GET", "HEAD")
                return _json({"live": True})
            case ["health", "ready"]:
                only(request, "GET", "HEAD")
                return _json({"ready": self.desk.ready}, 200 if self.desk.ready else 503)
            case ["repository", "index"]:
                only(request, "POST", "GET")
                return _json(models.index(request))
            case ["repository", "models", name, ("load" | "unload") as verb]:
                only(request, "POST")
                self.desk.target(request, name)
                raise Unsupported("gateway.no-repository", verb=verb)
            case ["models", name, *rest]:
                version, verb = _version_and_verb(request, rest)
                if verb == "infer":
                    only(request, "POST")
                    return await self._infer(request, name, version)
                only(request, "GET", "HEAD")
                return self._about(request, name, version, verb)
            case _:
                raise NotFound("gateway.no-such-path", path=request.path[:200])

    def _about(self, request: Request, name: str, version: str | None, verb: str) -> Response:
        models = self._models
        match verb:
            case "ready":
                found = models.ready(request, name, version)
                return _json(found, 200 if found["ready"] else 503)
            case "config":
                return _json(models.config(request, name, version))
            case "stats":
                return _json(models.statistics(request, name, version))
            case _:
                return _json(models.metadata(request, name, version))

    async def _infer(self, request: Request, name: str, version: str | None) -> Response:
        self.desk.target(request, name, version)  # who may not ask need not be read
        body, tensors = _read(request)
        told, model = await self._models.infer(request, name, version, tensors, body.parameters, [(w.name, w.parameters) for w in body.outputs])
        by_default = body.parameters.get("binary_data_output") is True
        binary = [bool(w.parameters.get("binary_data", by_default)) for w in body.outputs] or [by_default] * len(told)
        return _written({"model_name": name, "model_version": model.version.rpartition(":")[2], "id": body.id or request.request_id}, told, binary)


def _read(request: Request) -> tuple[_Infer, list[Tensor]]:
    """The JSON of a request and its tensors, of which some may follow it as raw bytes."""
    said = request.headers.get(HEADER_LENGTH)
    if said is None:
        body = decode_json(request, _decoder)
        return body, [Tensor(t.name, t.datatype, t.shape, _values(t)) for t in body.inputs]
    length = int(said) if said.isdigit() and len(said) < 12 else -1
    if not 0 <= length <= len(request.body):
        raise Invalid("gateway.bad-tensor", reason=f"Inference-Header-Content-Length is {said[:20].decode('latin-1')!r} and the body has {len(request.body)} bytes")
    if not length:  # a raw request: the whole body is one text
        try:
            text = request.body.decode()
        except UnicodeDecodeError as e:
            raise Invalid("gateway.bad-tensor", reason="the body is not UTF-8") from e
        return _Infer([]), [Tensor("text", "BYTES", [1], [text])]
    view = memoryview(request.body)
    body = decode_json(request, _decoder, view[:length], kinds=(JSON, BINARY))
    tensors: list[Tensor] = []
    at = length
    for t in body.inputs:
        size = t.parameters.get("binary_data_size")
        if size is None:
            tensors.append(Tensor(t.name, t.datatype, t.shape, _values(t)))
            continue
        if type(size) is not int or size < 0 or at + size > len(view):
            raise Invalid("gateway.bad-tensor", reason=f"its binary_data_size is {str(size)[:20]} and {len(view) - at} bytes are left")
        tensors.append(Tensor(t.name, t.datatype, t.shape, strings(view[at : at + size]) if t.datatype == "BYTES" else []))
        at += size
    if at != len(view):
        raise Invalid("gateway.bad-tensor", reason=f"{len(view) - at} bytes follow the last tensor")
    return body, tensors


def _values(tensor: _Input) -> list[Any]:
    if tensor.data is None:
        raise Invalid("gateway.bad-tensor", reason="it has neither data nor binary_data_size")
    return tensor.data


def _version_and_verb(request: Request, rest: list[str]) -> tuple[str | None, str]:
    match rest:
        case []:
            return None, ""
        case [("ready" | "infer" | "config" | "stats") as verb]:
            return None, verb
        case ["versions", version]:
            return version, ""
        case ["versions", version, ("ready" | "infer" | "config" | "stats") as verb]:
            return version, verb
        case _:
            raise NotFound("gateway.no-such-path", path=request.path[:200])


def _written(head: dict[str, Any], tensors: list[Tensor], binary: list[bool]) -> Response:
    """The answer: JSON, and behind it the tensors that are wanted as raw bytes."""
    raws: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for tensor, as_bytes in zip(tensors, binary, strict=True):
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if as_bytes:
            raws.append(tensor.raw())
            output["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            output["data"] = list(tensor.data)
        outputs.append(output)
    told = _encoder.encode({**head, "outputs": outputs})
    if not raws:
        return Response(200, told)
    return Response(200, b"".join([told, *raws]), BINARY, ((HEADER_LENGTH, str(len(told)).encode()),))


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, _encoder.encode(value))
