"""One gateway process put together: listening socket, connections, protocols, routing table, forwarding, drain.

The hot path needs nothing but the routing table and the replicas' sockets: control may be away.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import signal
import socket
import time
from pathlib import Path
from typing import Any

from wenfang.core.errors import Broken, Busy, Conflict, Invalid, Unauthenticated, WenfangError
from wenfang.core.home import Home
from wenfang.core.settings import Serve
from wenfang.doors.channel import Call, ask, listen
from wenfang.serve.cache import AnswerCache
from wenfang.serve.loads import told
from wenfang.serve.pool import Limits
from wenfang.serve.router import Router
from wenfang.serve.routing import ROUTES_FILE
from wenfang.serve.tracing import Tracer

from .access import authenticate
from .asked import answer_call
from .connection import Connection
from .exchange import Exchange, Request, Response
from .exporting import Exporter
from .forward import Forwarder
from .inflating import inflated
from .metrics import Family, Metrics
from .notices import Notices
from .protocols import Desk, Protocol, protocols
from .rpc import RPC, open_rpc
from .succession import give, inherit, retired

__all__ = ["Gateway"]

TICK_S = 0.25
GENTLE_S = 5.0
"""A client that keeps its connection open and silent longer may find it closed when the gateway is replaced, as at the end of the idle time."""
READY_WAIT_S = 10.0
CONTROL_PATIENCE_S = 3.0
log = logging.getLogger("wenfang.gateway")


class _Desk(Desk):
    """The desk of a gateway that may have siblings: their counters, and those of queue workers, are asked for over their sockets."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.router, gateway.limits, gateway.tracer)
        self._gateway = gateway

    async def all_metrics(self) -> list[list[Family]]:
        """Own counters and those of every sibling that answers."""
        gateway = self._gateway
        own = gateway.home.run / f"gateway-{gateway.index}.sock"  # one that has a successor is counted no more
        siblings = [p for p in sorted(gateway.home.run.glob("gateway-*.sock")) if p != own and p != retired(p.with_name(p.name.replace("-old.", ".")))]
        siblings += sorted(gateway.home.run.glob("queue-*.sock"))
        return [gateway.families()] + [found for found in await asyncio.gather(*(ask(p, "metrics") for p in siblings)) if found is not None]


class Gateway:
    """Must be made on a running loop.

    Args:
        home: of the installation.
        index: which gateway this is.
        limits: the [serve] settings.
    """

    def __init__(self, home: Home, index: int, limits: Serve) -> None:
        self.home = home
        self.index = index
        self.limits = limits
        self.draining = False
        self.port = 0
        self.rpc: RPC | None = None
        self.metrics = Metrics()
        cache = AnswerCache(limits.cache_bytes, limits.cache_ttl_s) if limits.cache_bytes else None
        self.router = Router(home.run / ROUTES_FILE, Limits(limits.batch_max, limits.queue_max, limits.deadline_s, limits.wait_s, limits.quarantine_s), cache)
        self.notices = Notices(home.run, index, self.router)
        self.forwarder = Forwarder(home.control_socket, patience_s=CONTROL_PATIENCE_S)
        self.tracer = Tracer(limits.traces_kept, limits.trace_share, asyncio.get_running_loop().time, exported=bool(limits.otlp_url))
        self._exporter = Exporter(self.tracer, limits.otlp_url, str(index)) if limits.otlp_url else None
        self._desk = _Desk(self)
        self.metrics.rate_limited = self._desk.flow.refused
        self._by_segment: dict[str, Protocol] = {}
        for name in protocols.names():
            plugin = protocols.get(name)(self._desk)
            self._by_segment.update(dict.fromkeys(plugin.segments, plugin))
        self._connections: set[Connection] = set()
        self._by_address: dict[str, int] = {}
        self._stop = asyncio.Event()
        self._listening: socket.socket | None = None
        self.patient_until = 0.0
        self._routes_mark: tuple[int, int] = (0, 0)

    # ------------------------------------------------------------ what connections ask
    def admit(self, exchange: Exchange) -> None:
        """Choose who answers and check the key, before a byte of the body is read."""
        request = exchange.request
        request.traced = self.tracer.begin(request.headers, request.request_id, request.started)
        protocol = self._by_segment.get(request.path[1:].partition("/")[0])
        if protocol is None:
            exchange.streams = True
            exchange.body_max_bytes = self.limits.upload_max_bytes
            return
        exchange.protocol = protocol
        exchange.body_max_bytes = self.limits.body_max_bytes
        if not protocol.is_open(request.path):
            try:
                request.principal = authenticate(self.router.table, request)
            except Unauthenticated as e:
                failures = self.metrics.auth_failures
                failures[e.code] = failures.get(e.code, 0) + 1
                raise

    async def answer(self, request: Request) -> Response:
        """Have the protocol answer."""
        if b"content-encoding" in request.headers:
            request.body = inflated(request.body, request.headers[b"content-encoding"], self.limits.body_max_bytes)
        return await self._by_segment[request.path[1:].partition("/")[0]].answer(request)

    async def relay(self, exchange: Exchange, connection: Connection) -> None:
        """Everything else is the control process's."""
        await self.forwarder.relay(exchange, connection)

    def opened(self, connection: Connection) -> bool:
        """Count a connection and its address."""
        metrics = self.metrics
        metrics.connections += 1
        metrics.connections_total += 1
        self._connections.add(connection)
        n = self._by_address[connection.address] = self._by_address.get(connection.address, 0) + 1
        return n <= self.limits.connections_per_address

    def closed(self, connection: Connection) -> None:
        """Forget it."""
        self.metrics.connections -= 1
        self._connections.discard(connection)
        n = self._by_address.get(connection.address, 1) - 1
        if n:
            self._by_address[connection.address] = n
        else:
            self._by_address.pop(connection.address, None)

    def finished(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Count an answer."""
        protocol, request = exchange.protocol, exchange.request
        if request.traced is not None and protocol is not None:
            self._desk.traced(request, protocol.name, status)
        self.metrics.observe(request.service, protocol.name if protocol is not None else "control", status, seconds)

    def cut_off(self, code: str) -> None:
        """Count a connection a guard has ended."""
        self.metrics.cut_off[code] = self.metrics.cut_off.get(code, 0) + 1

    def families(self) -> list[Family]:
        """The counters of this gateway."""
        return self.metrics.families(self.router, str(self.index), sum([c.pending for c in self._connections]))

    # ------------------------------------------------------------ life
    async def _socket(self, host: str, port: int) -> socket.socket:
        return await self._shared_socket(host, port) if self.limits.gateways > 1 else _listening_socket(host, port, shared=False)

    async def _shared_socket(self, host: str, port: int) -> socket.socket:
        """One of several sockets on one port. SO_REUSEPORT would silently share it with a second installation too: only our own
        gateways may be there already, and one looks while the others wait.
        """
        with open(self.home.run / "port.lock", "wb") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            siblings = [p for p in sorted(self.home.run.glob("gateway-*.sock")) if p.name != f"gateway-{self.index}.sock"]
            states = await asyncio.gather(*(ask(p, "stats", timeout_s=0.5) for p in siblings))
            if port and not any(state is not None and state["port"] == port for state in states):
                _listening_socket(host, port, shared=False).close()
                if self.limits.grpc_port:
                    _listening_socket(host, port + 1 if self.limits.grpc_port < 0 else self.limits.grpc_port, shared=False).close()
            sock = _listening_socket(host, port, shared=True)
            self.port = sock.getsockname()[1]
            return sock

    async def run(self, host: str, port: int, *, succeeds: bool = False) -> None:
        """Serve until SIGTERM, SIGINT or a ``drain`` call; then finish what was asked and return.

        Args:
            host: address.
            port: 0 takes a free one.
            succeeds: take over from the gateway of the same index, if one is there.

        Raises:
            Conflict: `gateway.port-in-use`; Broken: `gateway.cannot-listen`, `gateway.nothing-handed-over`.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._desk.opening.append("ports")
        path = self.home.run / f"gateway-{self.index}.sock"
        before = await asyncio.to_thread(inherit, path) if succeeds else None
        calls: dict[str, Call] = {
            "routes": self._routes,
            "stats": self._stats,
            "metrics": self._metrics,
            "traces": self._traces,
            "load": self._load,
            "drain": self._drain,
            "ask": self._ask,
            "hand_over": self._hand_over,
        }
        channel = await listen(path, {**calls, **self.notices.calls})
        channel_mark = _mark(path)[0]
        await self.router.load_if_there(wait_s=READY_WAIT_S if before else 0.0)  # after the channel is there: a table written meanwhile is either here or announced
        watches = [loop.create_task(self._tick()), loop.create_task(self._watch_routes())]
        if self._exporter is not None:
            watches.append(loop.create_task(self._exporter.run()))
        try:
            sock = before.sock if before is not None else await self._socket(host, port)
            self._listening, self.port = sock, sock.getsockname()[1]
            server = await loop.create_server(lambda: Connection(self, loop), sock=sock)
            log.info("gateway %d listens on %s port %d", self.index, host, self.port)
            if self.limits.grpc_port:
                self.rpc = await self._open_rpc(host, port, before.grpc_port if before else 0)
            self._desk.opening.clear()
            if before is not None:
                await asyncio.to_thread(before.retire)
            await self._stop.wait()
            self.draining = True
            server.close()
            await asyncio.gather(self._finish(), *([self.rpc.close(self.limits.deadline_s + 5.0)] if self.rpc else []))
        finally:
            for watch in watches:
                watch.cancel()
            if self._exporter is not None:
                await self._exporter.last()
            channel.close()
            for place in (path, retired(path)):
                if _mark(place)[0] == channel_mark:
                    place.unlink(missing_ok=True)
            self.router.close()

    async def _open_rpc(self, host: str, port: int, beside: int) -> RPC | None:
        """The gRPC port: the one after HTTP's unless the settings name one; a free one where HTTP took a free one; ``beside`` a predecessor the same as its.

        The port is always open to a successor; that no stranger has it is looked at first.
        """
        wanted = beside or (0 if not port else self.port + 1 if self.limits.grpc_port < 0 else self.limits.grpc_port)
        if wanted and not beside and self.limits.gateways == 1:
            _listening_socket(host, wanted, shared=False).close()
        return await open_rpc(self._desk, self.metrics, self.limits, host, wanted, shared=True)

    async def _finish(self) -> None:
        """Wait until every request begun is answered; connections that idle are closed by the tick."""
        until = time.monotonic() + self.limits.deadline_s + 5.0
        while self._connections and time.monotonic() < until:
            for connection in list(self._connections):
                connection.check(asyncio.get_running_loop().time())
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            for connection in list(self._connections):
                connection.check(now)

    async def _watch_routes(self) -> None:
        """Take a table that nobody announced: its writer died between writing and calling."""
        while True:
            await asyncio.sleep(4 * TICK_S)
            mark = _mark(self.router.routes)
            if mark != self._routes_mark:
                self._routes_mark = mark
                try:
                    await self.router.load(wait_s=0.0)
                except WenfangError as e:
                    log.warning("the routing table was not taken: %s", e)

    # ------------------------------------------------------------ calls
    async def _routes(self, message: dict[str, Any]) -> Any:
        """Take the table in the file. ``epoch``: at least this one must be there; ``drained``: wait until the old one's requests are answered."""
        epoch = await self.router.load(drain=bool(message.get("drained")))
        if epoch < int(message.get("epoch", 0)):
            raise Invalid("serve.no-routes", reason=f"the file holds epoch {epoch}")
        return {"epoch": epoch}

    async def _stats(self, _: dict[str, Any]) -> Any:
        return {"port": self.port, "grpc_port": self.rpc.port if self.rpc else 0, "connections": len(self._connections), "draining": self.draining, **self.router.state()}

    async def _metrics(self, _: dict[str, Any]) -> Any:
        return self.families()

    async def _traces(self, message: dict[str, Any]) -> Any:
        """The latest traces of one service."""
        return self.tracer.told(int(message["limit"]), service=str(message["service"]), trace_id=str(message.get("trace_id", "")), request_id=str(message.get("request_id", "")))

    async def _load(self, message: dict[str, Any]) -> Any:
        """What pools have counted, after ``wait_s`` or when a text finds no replica."""
        return await told(self.router, float(message.get("wait_s", 0.0)))

    async def _ask(self, message: dict[str, Any]) -> Any:
        """A question that came by a message queue, answered as ``/predict`` would."""
        if self.draining:
            raise Busy("gateway.draining", retry_after_s=0.1)
        return await answer_call(self._desk, self._by_segment["predict"], self.metrics, message)

    async def _drain(self, message: dict[str, Any]) -> Any:
        """Take nothing new and end; ``gently``: an idle connection has time to ask once more, and is told to close with that answer."""
        if message.get("gently"):
            self.patient_until = asyncio.get_running_loop().time() + GENTLE_S
        self._stop.set()

    async def _hand_over(self, message: dict[str, Any]) -> Any:
        """Send the listening socket to the heir at ``path``."""
        if self._listening is None:
            raise Broken("gateway.nothing-handed-over")
        await asyncio.to_thread(give, Path(message["path"]), self._listening)


def _mark(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def _listening_socket(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as e:
        sock.close()
        if e.errno == errno.EADDRINUSE:
            raise Conflict("gateway.port-in-use", host=host, port=port) from e
        raise Broken("gateway.cannot-listen", host=host, port=port, reason=e.strerror or str(e)) from e
    sock.setblocking(False)
    return sock
