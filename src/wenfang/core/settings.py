"""All settings of an installation, one frozen typed tree: ``wenfang.toml`` in the home, overridden by ``WENFANG_SECTION__KEY``.

Built once at the door and passed down, never imported. Settings say how this installation runs; what to train is a request.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import Invalid
from .registry import nearest
from .version import __version__

__all__ = ["Deploy", "Jobs", "Price", "Queue", "Runtime", "Serve", "Settings", "Store", "explain_settings", "load_settings"]

PREFIX = "WENFANG_"
PLAIN = {"WENFANG_HOME", "WENFANG_LANG", "WENFANG_BOOTSTRAP_KEY", "WENFANG_SERVER", "WENFANG_API_KEY", "WENFANG_DEBUG"}
"""Variables with a meaning of their own, not settings; so is everything under WENFANG_TEST_ and WENFANG_CRASH_."""


class Section(BaseModel):
    """A table of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Store(Section):
    """[store] where things are kept."""

    tables: str = Field("sqlite:", description="sqlite: (studio.db in the home), sqlite:///path, or postgresql://user@host/database")
    blobs: str = Field("file:", description="file: (blobs/ in the home) or file:///path")


class Serve(Section):
    """[serve] how requests are answered."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8700, ge=0, le=65535, description="0 takes a free one")
    grpc_port: int = Field(-1, ge=-1, le=65535, description="of the Open Inference Protocol over gRPC; -1: the port after `port`; 0: none")
    gateways: int = Field(1, ge=1, le=64, description="gateway processes sharing the port")
    replicas: int = Field(0, ge=0, le=256, description="replicas of a service that does not say; 0 = one per core")
    probe_every_s: float = Field(5.0, ge=0, description="each replica is asked a real question so often, and replaced when it gives no sign of life; 0: never")
    keep_warm_s: float = Field(300.0, ge=0, description="how long a blue-green change keeps the replicas of the version before, unless the deploy says")
    batch_max: int = Field(8, ge=1, le=1024, description="texts in one batch at most; measured down at load")
    queue_max: int = Field(1024, ge=1, description="texts waiting per model version before 429")
    cache_bytes: int = Field(32 << 20, ge=0, description="texts and answers each gateway keeps for questions that come again; 0: every text is asked")
    cache_ttl_s: float = Field(0.0, ge=0, description="an answer older than this is not given again; 0: as long as its model version serves")
    wait_s: float = Field(0.1, ge=0, description="under standing overload new texts that would wait longer get 429 at once; 0: only queue_max refuses")
    quarantine_s: float = Field(600.0, ge=0, le=86_400 * 30, description="a text that killed or hung two replicas one after the other is refused for so long; 0: never")
    replica_memory_bytes: int = Field(0, ge=0, description="writable memory of a replica whose service does not say; 0: what the machine has when it starts, less a reserve")
    recycle_texts: int = Field(0, ge=0, description="a replica that has answered so many texts is replaced by a new one; 0: never")
    recycle_growth: float = Field(3.0, ge=0, description="a replica that holds so many times what it held when it had settled is replaced by a new one; 0: never")
    deadline_s: float = Field(10.0, gt=0, description="a request that waits longer gets 504 as its protocol says it")
    body_max_bytes: int = Field(4 << 20, ge=1024, description="body of a prediction; more is 413")
    upload_max_bytes: int = Field(4 << 30, ge=1024, description="body of an upload; more is 413")
    header_max_bytes: int = Field(32 << 10, ge=1024, description="request line and headers; more is 431")
    header_timeout_s: float = Field(10.0, gt=0, description="until the headers are complete")
    body_timeout_s: float = Field(10.0, gt=0, description="grace before the minimum body rate counts")
    body_rate_min_bytes_s: int = Field(1024, ge=1, description="slower bodies are cut off with 408")
    idle_timeout_s: float = Field(75.0, gt=0, description="an idle keep-alive connection is closed")
    trace_share: float = Field(0.01, ge=0, le=1, description="share of the requests without a W3C trace of their caller that are traced from here")
    otlp_url: str = Field(
        "", pattern=r"^(https?://[^\s/@?#]+(/[^\s@?#]*)?)?$", description="collector that traces are sent to (OTLP over HTTP in JSON), what /v1/traces lies under; empty: none"
    )
    traces_kept: int = Field(1000, ge=0, le=100_000, description="traced requests each gateway remembers; 0: none, traces are only passed on")
    connections_per_address: int = Field(1024, ge=1, description="open connections of one client address")


class Queue(Section):
    """[queue] message queues in front of services."""

    bus: str = Field("local:", description="broker of queues that name none: local:, nats://…, rabbitmq://…, redis://…, kafka://…; may hold a password")
    lease_s: float = Field(30.0, ge=1, le=600, description="a message whose worker is silent for so long is taken by another")
    remembered: int = Field(100_000, ge=1, description="replies kept for each request queue, so that a message that comes again gets the same one")
    remembered_bytes: int = Field(256 << 20, ge=1024, description="bytes of those replies together")


class Jobs(Section):
    """[jobs] background work."""

    parallel: int = Field(1, ge=1, le=64, description="jobs that run at once")
    heartbeat_s: float = Field(60.0, ge=1, description="a job whose process has not stirred for so long is killed and started again")
    attempts: int = Field(2, ge=1, le=10, description="starts of a job whose process died")


class Price(Section):
    """[price] what the machines that serve cost, for limits on money and for the reports."""

    core_hour: float = Field(0.25, ge=0, description="one core for one hour")
    gigabyte_hour: float = Field(0.0, ge=0, description="one gigabyte of memory for one hour")
    currency: str = Field("CNY", max_length=12, description="in which prices are given")


class Runtime(Section):
    """[runtime] where replicas and fits run."""

    address: str = Field("local:", pattern=r"^(local:|ray://.+)$", description="local: (this machine), or ray://host:port of a Ray cluster's client port")
    cpus: float = Field(1.0, ge=0, le=256, description="cores of the cluster that each replica there is given; shares of one too")
    gpus: float = Field(0.0, ge=0, le=16, description="accelerators that each replica or fit there is given; shares of one too")
    room_s: float = Field(45.0, gt=0, le=3600, description="how long a cluster without room may take to find or make some; one that adds machines needs minutes")
    fits: bool = Field(True, description="with a cluster: fits of heavy families run there too")
    fit_cpus: float = Field(1.0, ge=0, le=256, description="cores of the cluster that each fit there is given")


QUANTITY = r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti)$"
NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"


class Deploy(Section):
    """[deploy] what a Kubernetes cluster gives this installation; read by `wenfang deploy render` only."""

    name: str = Field("wenfang", pattern=NAME, description="of the installation; its objects are named after it")
    namespace: str = Field("wenfang", pattern=NAME, description="in which everything lies")
    image: str = Field(f"wenfang:{__version__}", pattern=r"^[^\s]+:[^\s:/]+$", description="with its tag or digest")
    cpu: float = Field(2.0, ge=0.5, le=512, description="cores of the pod")
    memory: str = Field("4Gi", pattern=QUANTITY, description="of the pod")
    storage: str = Field("20Gi", pattern=QUANTITY, description="of the volume that holds the home")
    storage_class: str = Field("", pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", description="of that volume; empty: the cluster's own")
    ray_workers_max: int = Field(0, ge=0, le=10_000, description="machines of a Ray cluster of its own, on which replicas run, at most; 0: replicas run in the pod")
    ray_workers_min: int = Field(1, ge=0, le=10_000, description="and at least")
    ray_cpu: float = Field(2.0, ge=0.5, le=512, description="cores of each of them")
    ray_gpus: int = Field(0, ge=0, le=16, description="accelerators of each of them")
    ray_memory: str = Field("4Gi", pattern=QUANTITY, description="of each of them")
    egress_ports: list[int] = Field(default_factory=list[int], description="TCP ports the pod may call beside the database's, such as 443 for upstream models")


class Settings(Section):
    """The whole configuration."""

    store: Store = Store()  # pyright: ignore[reportCallIssue]
    serve: Serve = Serve()  # pyright: ignore[reportCallIssue]
    queue: Queue = Queue()  # pyright: ignore[reportCallIssue]
    jobs: Jobs = Jobs()  # pyright: ignore[reportCallIssue]
    price: Price = Price()  # pyright: ignore[reportCallIssue]
    runtime: Runtime = Runtime()  # pyright: ignore[reportCallIssue]
    deploy: Deploy = Deploy()  # pyright: ignore[reportCallIssue]


def load_settings(home: Path, environment: dict[str, str] | None = None) -> Settings:
    """The settings of ``home``: file, then environment over it.

    Raises:
        Invalid: `settings.unreadable`, `settings.unknown-key` (with the nearest name), `settings.bad-value`.
    """
    tree: dict[str, Any] = {}
    path = home / "wenfang.toml"
    if path.is_file():
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
            raise Invalid("settings.unreadable", file=str(path), reason=str(e)) from e
    for name, value in (os.environ if environment is None else environment).items():
        if name.startswith(PREFIX) and name not in PLAIN and not name.startswith(("WENFANG_TEST_", "WENFANG_CRASH_")):
            section, _, key = name.removeprefix(PREFIX).lower().partition("__")
            if not key or not isinstance(tree.setdefault(section, {}), dict):
                raise Invalid("settings.unknown-key", key=name, near=nearest(name, [f"{PREFIX}{k}" for k in _known_keys()]))
            tree[section][key] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise Invalid("settings.unknown-key", key=key, near=nearest(key, _known_keys("."))) from e
        raise Invalid("settings.bad-value", key=key, reason=first["msg"]) from e


def _known_keys(joint: str = "__") -> list[str]:
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    keys = [f"{name}{joint}{key}" for name, section in sections.items() for key in getattr(section, "model_fields", {})]
    return keys if joint == "." else [k.upper() for k in keys]


def explain_settings(home: Path, environment: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Every setting with its value, where that comes from (``default``, the file, a variable) and what it means."""
    env = dict(os.environ) if environment is None else environment
    settings = load_settings(home, env)
    path = home / "wenfang.toml"
    written: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    lines: list[dict[str, Any]] = []
    for name in Settings.model_fields:
        section: Section = getattr(settings, name)
        for key, field in type(section).model_fields.items():
            variable = f"{PREFIX}{name}__{key}".upper()
            origin = variable if variable in env else path.name if key in written.get(name, {}) else "default"
            value = getattr(section, key)
            lines.append(
                {
                    "key": f"{name}.{key}",
                    "value": re.sub(r"(://[^:/@]+:)[^@/]+@", r"\1…@", value) if isinstance(value, str) else value,
                    "origin": origin,
                    "description": field.description or "",
                }
            )
    return lines
