"""The settings as the pod reads them: a ``wenfang.toml`` of what differs from the defaults, and which of them are secrets."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from wenfang.core.settings import Section, Settings

__all__ = ["GRPC_PORT", "HOME", "HTTP_PORT", "USER_ID", "given_as_secret", "inside", "inside_toml"]

HOME = "/var/lib/wenfang"
"""Where the home lies in the image."""
HTTP_PORT, GRPC_PORT = 8700, 8701
USER_ID = 10001
"""Who the image runs as; owns the home."""
KEY = "WENFANG_BOOTSTRAP_KEY"
TABLES = "WENFANG_STORE__TABLES"


def given_as_secret(settings: Settings) -> list[str]:
    """Variables that the pod takes from the secret: the first admin key, and the database's address where a password stands in it.

    >>> given_as_secret(Settings())
    ['WENFANG_BOOTSTRAP_KEY']
    """
    return [KEY, *([TABLES] if urlsplit(settings.store.tables).password else [])]


def inside(settings: Settings) -> Settings:
    """What holds inside the pod: every address, the ports of the image, as many replicas as cores are given (a pod sees its node's cores), and no secret."""
    serve = settings.serve.model_copy(update={"host": "0.0.0.0", "port": HTTP_PORT, "grpc_port": GRPC_PORT if settings.serve.grpc_port else 0})  # noqa: S104 of the pod
    if not serve.replicas:
        serve = serve.model_copy(update={"replicas": max(1, int(settings.deploy.cpu))})
    store = settings.store
    if TABLES in given_as_secret(settings):
        store = store.model_copy(update={"tables": Settings().store.tables})
    runtime = settings.runtime
    if settings.deploy.ray_workers_max:
        runtime = runtime.model_copy(
            update={"address": f"ray://{settings.deploy.name}-ray-head-svc:10001", "room_s": max(runtime.room_s, 600.0)}
        )  # as KubeRay names the head's service
    return settings.model_copy(update={"serve": serve, "store": store, "runtime": runtime})


def inside_toml(settings: Settings) -> str:
    """The ``wenfang.toml`` of the pod: what differs from the defaults; [deploy] stays outside."""
    lines: list[str] = []
    for name, section in inside(settings):
        differing = _differing(section)
        if name != "deploy" and differing:
            lines += [f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in differing.items()), ""]
    return "\n".join(lines)


def _differing(section: Section) -> dict[str, Any]:
    defaults = type(section)()
    return {key: value for key, value in section if value != getattr(defaults, key)}


def _literal(value: Any) -> str:
    """A TOML value: its strings, numbers and truth values are those of JSON, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
