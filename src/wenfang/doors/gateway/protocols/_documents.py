"""``/predict/{service}/openapi.json``, ``service.proto``, ``schema.json``, ``client.py`` and whatever other formats are installed: what a service takes and gives."""

from __future__ import annotations

from functools import cache, lru_cache

from wenfang.core.errors import NotFound
from wenfang.core.registry import nearest
from wenfang.doors.gateway.exchange import Response
from wenfang.serve.interface import interface_of
from wenfang.serve.routing import RoutedModel
from wenfang.serve.specs import specs

__all__ = ["document"]


def document(model: RoutedModel, service: str, file_name: str) -> Response:
    """The file of that name.

    Args:
        model: that answers for the service.
        service: its name.
        file_name: of a format.

    Raises:
        NotFound: `gateway.no-such-document`.
    """
    formats = _formats()
    if file_name not in formats:
        raise NotFound("gateway.no-such-document", service=service[:80], name=file_name[:80], near=nearest(file_name[:80], list(formats)))
    body = _written(formats[file_name], service, model.version, model.task, tuple(model.labels))
    return Response(200, body, specs.get(formats[file_name]).media_type.encode())


@cache
def _formats() -> dict[str, str]:
    """Formats by the name of their file."""
    return {specs.get(name).file_name: name for name in specs.names()}


@lru_cache(maxsize=32)
def _written(name: str, service: str, version: str, task: str, labels: tuple[str, ...]) -> bytes:
    return specs.get(name)().write(interface_of(service, model=version, task=task, labels=labels)).encode()
