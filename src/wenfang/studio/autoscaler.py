"""Lets replicas follow the load: hears gateways over their sockets, has the engine decide, acts through ``Serving``. Runs in the control process.

What it decided is kept where it holds: in the routing table. A control process that starts again begins with the counts it finds there.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from wenfang.core.errors import WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.ids import new_id, now
from wenfang.core.ports import Changes
from wenfang.core.records import Event, Job, ModelVersion, Service
from wenfang.serve.affording import Machine, affordable
from wenfang.serve.observing import Observer
from wenfang.serve.scaling import Decision, Scaler
from wenfang.serve.windows import bounds_at

from .app import Studio
from .decisions import DecisionLog, Logged
from .machine import machine_of, memory_of
from .serving import Serving

__all__ = ["Autoscaler"]

LOOK_S = 0.5
LOOK_MIN_S = 0.1
SILENT_S = 3.0
"""A gateway that has said nothing for so long is not counted."""
RETRY_FIRST_S = 5.0
RETRY_MAX_S = 300.0
MEMORY_EVERY_S = 10.0
SETTLE_S = 10.0
log = logging.getLogger("wenfang.autoscaler")


@dataclass(slots=True)
class _Follows:
    """What is remembered of one service."""

    scaler: Scaler
    model: str = ""
    observer: Observer = field(default_factory=Observer)
    start_s: float = 0.0
    step: threading.Thread | None = None
    """Under way, or the last."""
    most: int = 0
    """How many it may have by the bounds and the budget of now."""
    retry_at: float = 0.0
    retry_s: float = RETRY_FIRST_S
    memory_bytes: int = 0
    memory_at: float = 0.0


class _Gateways:
    """Hears every gateway of a home, each in a thread of its own."""

    def __init__(self, studio: Studio) -> None:
        self._run = studio.home.run
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.heard = threading.Event()
        self.wanted = False

    def look(self) -> None:
        """Have a thread for each gateway there is."""
        for path in self._run.glob("gateway-*.sock"):
            thread = self._threads.get(path.name)
            if thread is None or not thread.is_alive():
                self._threads[path.name] = threading.Thread(target=self._hear, args=(path.name,), name=path.name, daemon=True)
                self._threads[path.name].start()

    def _hear(self, name: str) -> None:
        try:
            client = FrameClient(self._run / name, timeout_s=10.0)
        except WenfangError:
            return  # it is being started, or has ended
        try:
            while self.wanted:
                began = time.monotonic()
                said = client.call("load", wait_s=LOOK_S)
                self._said[name] = (time.monotonic(), said)
                self.heard.set()
                time.sleep(max(0.0, LOOK_MIN_S - (time.monotonic() - began)))
        except WenfangError as e:
            log.info("%s is silent: %s", name, e)
        finally:
            client.close()

    def of(self, model: str) -> dict[str, Any]:
        """The latest figures of a model version, by gateway."""
        since = time.monotonic() - SILENT_S
        return {name: said[model] for name, (at, said) in list(self._said.items()) if at > since and model in said}


class Autoscaler:
    """Of one home.

    Args:
        studio: whose services.
        serving: acts.
    """

    def __init__(self, studio: Studio, serving: Serving) -> None:
        self.studio = studio
        self.serving = serving
        self.log = DecisionLog(studio.home)
        self._gateways = _Gateways(studio)
        self._follows: dict[str, _Follows] = {}
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Look until stopped: twice a second, and at once when a request finds no replica."""
        while not stop.is_set():
            self._gateways.heard.wait(LOOK_S)
            self._gateways.heard.clear()
            try:
                self.look()
            except (WenfangError, OSError):
                log.exception("autoscaler")
            stop.wait(LOOK_MIN_S)
        self._gateways.wanted = False

    def settle(self) -> None:
        """After an operation: bounds that have changed hold, and processes and routes follow the records, when this returns."""
        self.look()
        for follows in list(self._follows.values()):
            if follows.step is not None:
                follows.step.join(SETTLE_S)
        self.serving.settle()

    def look(self) -> None:
        """One look at every service that follows its load."""
        with self._lock:
            services = [s for s in self.studio.tables.find(Service) if s.scaling is not None]
            self._gateways.wanted = bool(services)
            for gone in self._follows.keys() - {s.id for s in services}:
                del self._follows[gone]
                self.serving.counts.pop(gone, None)
            if not services:
                return
            self._gateways.look()
            machine = machine_of(self.studio.settings)
            targets = {p.key: p.target for p in self.studio.tables.pointers("service")}
            asked = {str(j.request.get("service")) for j in self.studio.tables.find(Job, where={"state": "running", "operation": "service.batch"})}
            for service in services:
                version = self.studio.tables.get(ModelVersion, targets.get(service.id, ""))
                if version is not None:
                    self._one(service, version, machine, held=service.name in asked)

    def _one(self, service: Service, version: ModelVersion, machine: Machine, *, held: bool) -> None:
        assert service.scaling is not None
        at = time.monotonic()
        follows = self._follows.setdefault(service.id, _Follows(Scaler(at)))
        if follows.model != version.id:
            follows.model, follows.observer, follows.start_s, follows.retry_at = version.id, Observer(), 0.0, 0.0
        if at - follows.memory_at > MEMORY_EVERY_S:
            follows.memory_at, follows.memory_bytes = at, memory_of(self.serving.runtime, version.id) or follows.memory_bytes
        load = follows.observer.see(self._gateways.of(version.id), at, follows.start_s)
        routed = self.serving.table.services.get(service.name)
        if routed is None or routed.model != version.id or (follows.step is not None and follows.step.is_alive()) or at < follows.retry_at:
            return  # it is being changed to another version, a step is under way, or the last one failed a moment ago
        bounds, pays = bounds_at(service.scaling, now()), affordable(service.scaling, machine, follows.memory_bytes)
        decided_for, present, _ = self.serving.counts.get(service.id, ("", 0, 0))
        if decided_for != version.id:
            present = len(self.serving.table.models[version.id].sockets)
        follows.most = max(bounds.min, min(bounds.max, pays[0]))
        self.serving.counts[service.id] = (version.id, present, follows.most)
        decision = follows.scaler.decide(service.scaling, load, at, present=present, bounds=bounds, pays=pays, held=held)
        if decision.changes:
            follows.step = threading.Thread(target=self._step, args=(service, version, follows, decision), name=f"scale-{service.name}", daemon=True)
            follows.step.start()
        elif decision.reason.startswith("why-cooling") or decision.reason in {"why-budget", "why-was-short", "why-slow-start"}:
            self._write(service, decision)

    def _write(self, service: Service, decision: Decision, **more: Any) -> None:
        self.log.add(service.id, Logged(time.time(), decision.present, decision.wanted, decision.reason, {**decision.fields, **more}))

    # ------------------------------------------------------------ acting
    def _step(self, service: Service, version: ModelVersion, follows: _Follows, decision: Decision) -> None:
        began = time.monotonic()
        self._write(service, decision)
        try:
            if decision.wanted > decision.present:
                self._up(service, version, follows, decision)
            else:
                self._hold(service, version, follows, decision.wanted)
            follows.retry_s = RETRY_FIRST_S
            self._tell(service, decision, time.monotonic() - began)
        except (WenfangError, OSError) as e:
            log.exception("%s: %d → %d", service.name, decision.present, decision.wanted)
            follows.retry_at = time.monotonic() + follows.retry_s
            for_version, count, _ = self.serving.counts.get(service.id, (version.id, decision.present, 0))
            self.serving.counts[service.id] = (for_version, count, count)  # nobody need wait for more
            self._write(service, Decision(decision.present, decision.present, "why-start-failed", {"code": getattr(e, "code", type(e).__name__), "retry_s": follows.retry_s}))
            follows.retry_s = min(RETRY_MAX_S, 2 * follows.retry_s)

    def _up(self, service: Service, version: ModelVersion, follows: _Follows, decision: Decision) -> None:
        """Start all at once; each serves as soon as it answers."""
        began = time.monotonic()
        self.serving.replicas.ensure(version, decision.wanted)
        for count in range(decision.present + 1, decision.wanted + 1):
            self.serving.replicas.start(version, count)
            if count == decision.present + 1:
                took = time.monotonic() - began
                follows.start_s = round(min(took, follows.start_s or took), 3)
            self._hold(service, version, follows, count)

    def _hold(self, service: Service, version: ModelVersion, follows: _Follows, count: int) -> None:
        """Have gateways go by a count; replicas beyond it end when what is with them is answered."""
        self.serving.counts[service.id] = (version.id, count, follows.most)
        self.serving.settle()

    def _tell(self, service: Service, decision: Decision, took_s: float) -> None:
        log.info("%s: %d → %d, %s", service.name, decision.present, decision.wanted, decision.reason)
        data = {"from": decision.present, "to": decision.wanted, "reason": decision.reason, "took_s": round(took_s, 3), **decision.fields}
        event = Event(id=new_id("ev"), kind="service.scaled", actor="system:autoscaler", subject=service.id, data=data)
        self.studio.tables.commit(Changes(events=[event]))
