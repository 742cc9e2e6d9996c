"""``service.toml``: a service as one writes it down, read with clear errors and written back."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wenfang.core.errors import Invalid
from wenfang.core.records import Service
from wenfang.core.registry import nearest
from wenfang.core.scaling import Budget, Cooldown, Resources, Scaling, Target, Window

from .limits import Limits
from .names import Name

__all__ = ["ServiceFile", "read_scaling", "read_service_file", "write_service_file"]

TEXT_MAX = 100_000
_TABLES: dict[str, type[BaseModel]] = {"target": Target, "resources": Resources, "cooldown": Cooldown, "budget": Budget, "windows": Window, "rate": Limits}


class ServiceFile(BaseModel):
    """What the file says beside its scaling."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    service: Name
    model: str | None = Field(None, max_length=200, description="mv_…, name:number or name (its newest); without it, what it answers with now")
    replicas: int | None = Field(None, ge=1, le=64, description="a number that stands, instead of min and max")
    rate: Limits = Limits()  # pyright: ignore[reportCallIssue]


def read_service_file(text: str) -> tuple[ServiceFile, Scaling | None]:
    """What a ``service.toml`` says.

    Raises:
        Invalid: `scaling.unreadable`, `scaling.unknown-key`, `scaling.bad-value`, `scaling.two-ways`.
    """
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise Invalid("scaling.unreadable", reason=str(e)[:200]) from e
    own = {key: tree.pop(key) for key in list(tree) if key in ServiceFile.model_fields}
    if "replicas" in own and (more := sorted(tree)):
        raise Invalid("scaling.two-ways", keys=more)
    return _checked(ServiceFile, own), read_scaling(tree) if tree else None


def read_scaling(tree: dict[str, Any]) -> Scaling:
    """A scaling of plain values; raises what ``read_service_file`` does."""
    return _checked(Scaling, tree)


def _checked(kind: Any, tree: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(tree)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            *tables, name = map(str, first["loc"])
            known = [*_TABLES[tables[0]].model_fields] if tables else [*ServiceFile.model_fields, *Scaling.model_fields]
            raise Invalid("scaling.unknown-key", key=key, near=nearest(name, known)) from e
        raise Invalid("scaling.bad-value", key=key, reason=first["msg"]) from e


def write_service_file(service: Service, model: str) -> str:
    """The file that makes a service what it is; reading it gives the same again.

    >>> print(write_service_file(Service(id="sv_1", project="default", name="faq", replicas=2), "faq:3"), end="")
    # faq, revision 0
    service = "faq"
    model = "faq:3"
    replicas = 2
    """
    lines = [f"# {service.name}, revision {service.revision}", f'service = "{service.name}"', *([f"model = {_value(model)}"] if model else [])]
    if service.scaling is None:
        lines.append(f"replicas = {service.replicas}")
    said: dict[str, Any] = service.scaling.model_dump(exclude_defaults=True) if service.scaling is not None else {}
    lines += [f"{key} = {_value(value)}" for key, value in said.items() if key not in _TABLES]
    said["rate"] = service.rate
    for name in _TABLES:
        several: bool = isinstance(said.get(name), tuple)
        parts: list[dict[str, Any]] = [*said[name]] if several else [said.get(name, {})]
        for part in filter(None, parts):
            lines += ["", f"[[{name}]]" if several else f"[{name}]", *(f"{key} = {_value(value)}" for key, value in part.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A string or number in TOML: JSON's spelling is TOML's too, but for what JSON writes as surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
