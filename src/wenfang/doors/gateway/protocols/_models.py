"""What the Open Inference Protocol asks of the models behind services: inference, metadata, readiness, configuration, statistics. Plain values for REST and gRPC alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wenfang.core.errors import Invalid
from wenfang.core.version import __version__
from wenfang.doors.gateway.exchange import Request
from wenfang.serve.pool import Pool
from wenfang.serve.routing import RoutedModel

from ._tensors import INPUTS, OUTPUTS, Tensor, answered, asked_of, classes, columns
from .base import TOP_K_MAX, Desk

__all__ = ["EXTENSIONS", "Models"]

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
_KIND = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}


class Models:
    """Answers about services the caller may call.

    Args:
        desk: of the gateway.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def infer(
        self, request: Request, name: str, version: str | None, tensors: Sequence[Tensor], parameters: Mapping[str, Any], wanted: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> tuple[list[Tensor], RoutedModel]:
        """Answer tensors of texts with tensors.

        Args:
            request: who asks.
            name: of the service.
            version: of the model that must answer; None: the present one.
            tensors: the inputs.
            parameters: of the request.
            wanted: (name, parameters) of the outputs asked for; none: all.

        Raises:
            Invalid: `gateway.bad-tensor`, `gateway.bad-parameter`; and what ``Desk.predict`` raises.
        """
        _, model = self._desk.target(request, name, version)
        texts, texts_b = columns(tensors)
        asked = asked_of(parameters, model)
        if len({output for output, _ in wanted}) < len(wanted):  # each time would be a copy of all answers
            raise Invalid("gateway.bad-tensor", reason="an output is asked for twice")
        counts = [_class_count(given) for _, given in wanted]
        outputs, model = await self._desk.predict(
            request, name, texts, texts_b=texts_b, top_k=max([asked.top_k, *counts]), version=version, options=asked.options, deadline_s=asked.deadline_s, rank=asked.rank
        )
        told = answered(outputs, texts, model, asked.top_k)
        if wanted:
            told = [classes(output, outputs, model, k) if k else _named(told, output) for (output, _), k in zip(wanted, counts, strict=True)]
        return told, model

    @staticmethod
    def server() -> dict[str, Any]:
        """Name, version, extensions."""
        return {"name": "wenfang", "version": __version__, "extensions": EXTENSIONS}

    def ready(self, request: Request, name: str, version: str | None) -> dict[str, Any]:
        """Whether a replica answers."""
        _, model = self._desk.target(request, name, version)
        return {"name": name, "version": _number(model), "ready": self._desk.router.service_ready(name)}

    def metadata(self, request: Request, name: str, version: str | None) -> dict[str, Any]:
        """Inputs and outputs."""
        _, model = self._desk.target(request, name, version)
        return {
            "name": name,
            "versions": [_number(model)],
            "platform": "wenfang",
            "inputs": [{"name": n, "datatype": kind, "shape": [-1]} for n, kind in INPUTS[model.task]],
            "outputs": [{"name": n, "datatype": kind, "shape": [-1, -1] if n == "vector" else [-1]} for n, kind in OUTPUTS[model.task]],
        }

    def config(self, request: Request, name: str, version: str | None) -> dict[str, Any]:
        """As Triton's model configuration: shapes with their batch dimension (``max_batch_size`` 0), replicas as CPU instances."""
        pool, model = self._desk.target(request, name, version)
        told = self.metadata(request, name, version)
        tensors = {side: [{"name": t["name"], "data_type": _KIND[t["datatype"]], "dims": t["shape"]} for t in told[f"{side}s"]] for side in ("input", "output")}
        return {
            "name": name,
            "platform": "wenfang",
            "backend": "wenfang",
            "max_batch_size": 0,
            **tensors,
            "instance_group": [{"name": name, "kind": "KIND_CPU", "count": pool.state()["replicas"]}],
            "parameters": {"task": {"string_value": model.task}, "model": {"string_value": model.version}, "labels": {"string_value": "\n".join(model.labels)}},
        }

    def index(self, request: Request) -> list[dict[str, Any]]:
        """Every service the caller may call."""
        router = self._desk.router
        found: list[dict[str, Any]] = []
        for name, service in sorted(router.table.services.items()):
            if request.principal is not None and request.principal.may("service:call", service.project):
                _, model = router.target(service)
                ready = router.service_ready(name)
                found.append({"name": name, "version": _number(model), "state": "READY" if ready else "UNAVAILABLE", "reason": "" if ready else "no replica answers"})
        return found

    def statistics(self, request: Request, name: str | None = None, version: str | None = None) -> dict[str, Any]:
        """Counts and nanoseconds since this gateway started, of one service or of all."""
        names = [m["name"] for m in self.index(request)] if name is None else [name]
        return {"model_stats": [_statistics(n, *self._desk.target(request, n, version)) for n in names]}


def _class_count(parameters: Mapping[str, Any]) -> int:
    k = parameters.get("classification", 0)
    if type(k) is not int or not 0 <= k <= TOP_K_MAX:
        raise Invalid("gateway.bad-parameter", parameter="classification", got=str(k)[:40], expected=f"a whole number up to {TOP_K_MAX}")
    return k


def _named(tensors: Sequence[Tensor], name: str) -> Tensor:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise Invalid("gateway.bad-tensor", reason=f"there is no output {name[:40]!r}")


def _number(model: RoutedModel) -> str:
    return model.version.rpartition(":")[2]


def _duration(count: int, ms: float) -> dict[str, int]:
    return {"count": count, "ns": round(ms * 1e6)}


def _statistics(name: str, pool: Pool, model: RoutedModel) -> dict[str, Any]:
    f = pool.figures
    nothing = _duration(0, 0.0)
    return {
        "name": name,
        "version": _number(model),
        "last_inference": round(f.last_at * 1000),
        "inference_count": f.texts,
        "execution_count": f.batches,
        "inference_stats": {
            "success": _duration(f.requests, f.request_ms),
            "fail": _duration(f.failed, f.failed_ms),
            "queue": _duration(f.texts, f.queue_ms),
            "compute_input": nothing,
            "compute_infer": _duration(f.batches, f.model_ms),
            "compute_output": nothing,
            "cache_hit": _duration(pool.sharing.hits if pool.sharing else 0, 0.0),
            "cache_miss": _duration(f.texts if pool.sharing else 0, 0.0),
        },
        "batch_stats": [
            {"batch_size": size, "compute_input": nothing, "compute_infer": _duration(n, f.batch_ms[size]), "compute_output": nothing} for size, n in sorted(f.batch_sizes.items())
        ],
    }
