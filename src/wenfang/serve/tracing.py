"""What became of requests that are traced: when they came, how long they waited, how long the model took, kept in a bounded ring.

A request that is not traced costs one look at its headers. Lives on one loop; knows nothing of HTTP or where traces are shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from wenfang.core.trace import Trace, begun, continued

__all__ = ["Traced", "Tracer"]

MARKS_MAX = 32
"""Batches of one request that are told one by one; a request of a thousand texts is in more."""

CHILDREN_MAX = 128


class Traced:
    """One span while it is at work. Times are of the loop's clock.

    Args:
        trace: who it is.
        started: when it began.
        name: what it is about: a service, a step.
    """

    __slots__ = ("answered", "batches", "children", "ended", "facts", "marks", "name", "started", "status", "trace")

    def __init__(self, trace: Trace, started: float, name: str = "") -> None:
        self.trace = trace
        self.name = name
        self.started = started
        self.answered = 0.0
        """When everything that is in the answer was known; 0: never."""
        self.ended = 0.0
        self.status = 0
        self.marks: list[tuple[float, float, float, float, int]] = []
        """(queued, sent to a replica, answered, milliseconds in the model, texts in the batch)."""
        self.batches = 0
        self.children: list[Traced] = []
        self.facts: dict[str, Any] = {}

    def mark(self, queued: float, sent: float, answered: float, model_ms: float, texts: int) -> None:
        """A batch with a text of it came back."""
        self.batches += 1
        if len(self.marks) < MARKS_MAX:
            self.marks.append((queued, sent, answered, model_ms, texts))

    def child(self, name: str, started: float) -> Traced:
        """A span below this one."""
        made = Traced(self.trace.child(), started, name)
        if len(self.children) < CHILDREN_MAX:
            self.children.append(made)
        return made


class Tracer:
    """The traces of one gateway.

    Args:
        kept: finished requests that are remembered; 0: none, yet traces are carried on.
        share: part of the requests without a trace of their caller that are traced from here.
        clock: of the loop.
        exported: somebody fetches what is ``fresh``.
    """

    def __init__(self, kept: int, share: float, clock: Callable[[], float] = time.monotonic, *, exported: bool = False) -> None:
        self._kept: deque[Traced] = deque(maxlen=kept)
        self._fresh: deque[Traced] | None = deque(maxlen=kept) if exported else None
        """Finished and not yet fetched; None: nobody fetches."""
        self._clock = clock
        self._to_unix = time.time() - clock()
        self._step = share if kept else 0.0
        self._due = 1.0 - self._step
        """Grows with every request; one is traced whenever it reaches 1, the first one too."""

    def begin(self, headers: Mapping[bytes, bytes], request_id: str, started: float) -> Traced | None:
        """The span of a request; None: it is not traced.

        Args:
            headers: by lower-case name; a ``traceparent`` that is not valid is replaced.
            request_id: of the request; a trace that begins here has its bits.
            started: when it began.
        """
        parent = headers.get(b"traceparent")
        if parent is not None:
            return Traced(continued(parent, headers.get(b"tracestate")) or begun(request_id), started)
        due = self._due + self._step
        if due < 1.0 - 1e-9 or not self._step:
            self._due = due
            return None
        self._due = due - 1.0
        return Traced(begun(request_id), started)

    def end(self, traced: Traced, status: int, **facts: Any) -> None:
        """Keep a span whose answer is out."""
        if traced.trace.sampled:
            traced.ended, traced.status = self._clock(), status
            traced.facts.update(facts)
            self._kept.append(traced)
            if self._fresh is not None:
                self._fresh.append(traced)

    def fresh(self, limit: int) -> list[dict[str, Any]]:
        """At most so many traces that finished since the last call, oldest first, as ``told`` tells them."""
        queue = self._fresh
        return [] if queue is None else [self._tell(queue.popleft()) for _ in range(min(limit, len(queue)))]

    def told(self, limit: int, **wanted: str) -> list[dict[str, Any]]:
        """The latest traces with their spans as plain values, newest first.

        Args:
            limit: at most.
            wanted: what their facts, or ``trace_id``, must equal; empty strings count as not given.
        """
        asked = {name: value for name, value in wanted.items() if value}
        found: list[dict[str, Any]] = []
        for traced in reversed(self._kept):
            if len(found) >= limit:
                break
            if all((traced.trace.trace_id if name == "trace_id" else traced.facts.get(name)) == value for name, value in asked.items()):
                found.append(self._tell(traced))
        return found

    def _tell(self, traced: Traced) -> dict[str, Any]:
        spans: list[dict[str, Any]] = []
        _spans(traced, traced.trace.parent_id, traced.started, spans)
        return {
            "trace_id": traced.trace.trace_id,
            "started_at": round(traced.started + self._to_unix, 6),
            "ms": round(1000 * (traced.ended - traced.started), 3),
            "status": traced.status,
            **({"state": traced.trace.state} if traced.trace.state else {}),
            **traced.facts,
            "spans": spans,
        }


def _spans(traced: Traced, parent_id: str, zero: float, into: list[dict[str, Any]]) -> None:
    """Flat, parents first; starts count from the beginning of the request."""
    own = traced.trace.span_id

    def add(kind: str, begin: float, ms: float, **more: Any) -> None:
        number = (int(own, 16) + len(into)) & ((1 << 64) - 1)
        into.append({"span_id": f"{number:016x}", "parent_id": own, "name": kind, "start_ms": round(1000 * (begin - zero), 3), "ms": round(ms, 3), **more})

    root = {
        "span_id": own,
        "parent_id": parent_id,
        "name": traced.name,
        "start_ms": round(1000 * (traced.started - zero), 3),
        "ms": round(1000 * (traced.ended - traced.started), 3),
    }
    into.append(root if not traced.facts.get("error") else {**root, "error": traced.facts["error"]})
    for queued, sent, answered, model_ms, texts in traced.marks:
        add("queue", queued, 1000 * (sent - queued))
        add("model", answered - model_ms / 1000, model_ms, texts=texts)
    if traced.batches > len(traced.marks):
        into[-1]["more_batches"] = traced.batches - len(traced.marks)
    for child in traced.children:
        _spans(child, own, zero, into)
    if traced.answered:
        add("write", traced.answered, 1000 * (traced.ended - traced.answered))
