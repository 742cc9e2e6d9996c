"""A gateway of its own for measuring, with the installation's settings, in front of replicas that are there already. Knows nothing of what it answers."""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from wenfang.core.errors import Broken
from wenfang.core.frames import FrameClient
from wenfang.core.home import Home
from wenfang.core.ids import sha256_hex
from wenfang.core.ports import MeasuringHost
from wenfang.core.settings import Serve
from wenfang.serve.routing import ROUTES_FILE, Principal, RoutedModel, RoutedService, RoutingTable, write_table

__all__ = ["MeasuredGateway"]

READY_S = 20.0
MODEL, SERVICE = "mv_plan", "plan"
OWN: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "gateways": 1, "cache_bytes": 0}
"""What a gateway that is measured has, whatever the settings say: nothing is answered from what it kept."""


class MeasuredGateway:
    """Closed like a file.

    Args:
        host: starts it.
        entry: ``module:function`` of a gateway process.
        sockets: of the replicas.
        serve: the installation's [serve].
        task: of the model.
    """

    def __init__(self, host: MeasuringHost, entry: str, *, sockets: Sequence[Path], serve: Serve, task: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="wf-")
        self.key = "wf_" + secrets.token_urlsafe(24)
        home = Home(Path(self._folder.name)).prepare()
        settings = {k: v for k, v in serve.model_dump(mode="json", exclude_defaults=True).items() if isinstance(v, bool | int | float | str)} | OWN
        (home.root / "wenfang.toml").write_text("[serve]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items()), encoding="utf-8")
        keys = {sha256_hex(self.key.encode()): Principal("ky_plan", ["service:call"])}
        model = RoutedModel("plan:1", task, [str(s) for s in sockets])
        write_table(home.run / ROUTES_FILE, RoutingTable(1, {SERVICE: RoutedService("default", MODEL)}, {MODEL: model}, keys))
        self._channel = home.run / "gateway-0.sock"
        self._process = host.spawn(entry, {"home": str(home.root), "index": 0, "host": "127.0.0.1", "port": 0}, home.logs / "gateway.log")
        try:
            self.port = self._ready(len(sockets))
        except BaseException:
            self.close()
            raise

    def _ready(self, replicas: int) -> int:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            if self._channel.exists():
                stats = self.call("stats")
                if stats["port"] and all(p["ready"] == replicas for p in stats["pools"].values()):
                    return int(stats["port"])
            time.sleep(0.02)
        raise Broken("runtime.not-ready", name="gateway", timeout_s=READY_S, log="gateway.log")

    def call(self, name: str) -> Any:
        """Ask it about itself."""
        client = FrameClient(self._channel)
        try:
            return client.call(name)
        finally:
            client.close()

    def batches(self) -> tuple[float, float]:
        """(batches, texts) so far."""
        sizes: dict[str, float] = {}
        for family in self.call("metrics"):
            if family["name"] == "wenfang_batch_size":
                for suffix, _, value in family["samples"]:
                    sizes[suffix] = sizes.get(suffix, 0.0) + value
        return sizes.get("_count", 0.0), sizes.get("_sum", 0.0)

    def cpu_s(self) -> float:
        """Processor time so far."""
        return self._process.cpu_s()

    def memory_bytes(self) -> int:
        """Proportional memory now."""
        return self._process.memory_bytes()

    def close(self) -> None:
        """Stop it."""
        self._process.close(3.0)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
