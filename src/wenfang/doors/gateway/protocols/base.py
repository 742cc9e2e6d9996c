"""What a protocol is: the paths it owns, whether they need a key, and how a request becomes an answer."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid, NotFound, Unsupported, WenfangError
from wenfang.core.examples import Output
from wenfang.core.settings import Serve
from wenfang.doors.gateway.access import authorise
from wenfang.doors.gateway.exchange import JSON, Request, Response
from wenfang.doors.gateway.metrics import Family
from wenfang.doors.gateway.problems import problem
from wenfang.doors.gateway.writing import Writing
from wenfang.serve.batching import Ticket
from wenfang.serve.composing import Composed, How
from wenfang.serve.flow import Flow, Owner
from wenfang.serve.graphs import Run
from wenfang.serve.interface import INPUTS_MAX, TEXT_MAX_CHARS, TOP_K_MAX, WRITING
from wenfang.serve.pool import Pool
from wenfang.serve.router import Router
from wenfang.serve.routing import RoutedModel
from wenfang.serve.tracing import Tracer
from wenfang.serve.turns import RANKS

__all__ = ["INPUTS_MAX", "TEXT_MAX_CHARS", "TOP_K_MAX", "WRITING", "Desk", "Protocol", "decode_json", "generation_of", "only", "top_k_of", "unknown_version", "wrong_task"]

_PATH = re.compile(r"`\$\.(\w+)")
T = TypeVar("T")


class Desk:
    """What a protocol may use.

    Args:
        router: services, pools.
        limits: settings of the gateway.
        tracer: keeps what became of requests.
    """

    def __init__(self, router: Router, limits: Serve, tracer: Tracer) -> None:
        self.router = router
        self.limits = limits
        self.tracer = tracer
        self.flow = Flow(limits.gateways)
        self.opening: list[str] = []
        """Ports that do not listen yet."""
        self._loop = asyncio.get_running_loop()

    @property
    def ready(self) -> bool:
        """Every port listens, a routing table is here and every service has a replica that answers."""
        return not self.opening and self.router.ready

    async def predict(
        self,
        request: Request,
        name: str,
        texts: Sequence[str],
        *,
        texts_b: Sequence[str] = (),
        top_k: int = 1,
        version: str | None = None,
        options: Generation | None = None,
        deadline_s: float | None = None,
        rank: int | None = None,
    ) -> tuple[list[Output], RoutedModel]:
        """Ask service ``name`` about B texts; one answer each, in order, and the model version that gave them.

        Args:
            request: its principal must be allowed to call the service.
            name: of the service.
            texts: B strings.
            texts_b: B strings, when it is about pairs.
            top_k: labels in ``Output.scores``.
            version: if given, the number of the version that must answer.
            options: what is asked of generation; other tasks have no use for it.
            deadline_s: how long the caller will wait, where that is less than the gateway's own deadline.
            rank: class of priority, where the protocol has its own word for it; else ``X-Priority`` says it.

        Raises:
            NotFound: `serve.unknown-service`, `serve.unknown-version`.
            Denied: `auth.denied`.
            Invalid: `gateway.no-inputs`, `gateway.too-many-inputs`, `gateway.text-too-long`, `gateway.pairs-wanted`, `gateway.no-pairs`.
            Busy: `serve.queue-full`, `serve.deadline-passed`.
            Broken: `serve.replica-died`, `serve.model-failed`.
        """
        pool, model = self.target(request, name, version)
        if (composed := self.router.composed(name)) is not None:
            run = await self.compose(request, name, composed, texts, texts_b, top_k=top_k, options=options, deadline_s=deadline_s, rank=rank)
            return composed.outputs(run)[0], model
        self._check(name, texts, texts_b, _takes(model))
        owners = self._owners(request, name)
        if owners:
            self.flow.admit(owners, len(texts))
        if model.task in WRITING:
            options, request.long = options or Generation(), True
        else:
            options = None
        answered: asyncio.Future[Ticket] = self._loop.create_future()

        def done(ticket: Ticket) -> None:
            if not answered.done():
                answered.set_result(ticket)

        ticket = pool.submit(
            texts,
            top_k,
            done,
            texts_b=texts_b,
            options=options,
            deadline_s=deadline_s,
            fresh=b"cache-control" in request.headers and fresh_wanted(request.headers[b"cache-control"]),
            owner=asker(request),
            rank=rank_of(request) if rank is None else rank,
        )
        ticket.traced = request.traced
        try:
            await answered
        except asyncio.CancelledError:  # the client has gone: its texts are not worth a batch
            if owners and options is not None:
                ticket.left_behind = lambda tokens: self.flow.charge(owners, tokens)  # what was written until then is paid
            ticket.cancel()
            raise
        now = self._loop.time()
        pool.figures.ended(ticket, now)
        if request.traced is not None:
            request.traced.answered = now
        if ticket.error is not None:
            raise ticket.error
        if owners:
            self.flow.charge(owners, sum([(o.tokens_in or 0) + (o.tokens_out or 0) for o in ticket.outputs]))
        return ticket.outputs, model

    async def compose(
        self, request: Request, name: str, composed: Composed, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1, options: Generation | None = None, deadline_s: float | None = None, rank: int | None = None,
    ) -> Run:  # fmt: skip
        """Take B texts through the graph of service ``name``, whose target was asked for before.

        Raises:
            Invalid: `graph.no-answer`; and what ``predict`` raises.
        """
        self._check(name, texts, texts_b, (composed.plan.pairs,))
        owners = self._owners(request, name)
        if owners:
            self.flow.admit(owners, len(texts))
        request.long = bool(composed.options)
        how = How(
            self.limits.deadline_s if deadline_s is None else min(deadline_s, self.limits.deadline_s),
            top_k,
            options,
            fresh=b"cache-control" in request.headers and fresh_wanted(request.headers[b"cache-control"]),
            owner=asker(request),
            rank=rank_of(request) if rank is None else rank,
            traced=request.traced,
        )
        try:
            run = await composed.answer(texts, texts_b, how)
        finally:
            if request.traced is not None:
                request.traced.answered = self._loop.time()
        if owners:
            self.flow.charge(owners, sum([(o.tokens_in or 0) + (o.tokens_out or 0) for answers in run.answers for o, _ in answers.values()]))
        return run

    async def write(
        self, request: Request, name: str, texts: Sequence[str], options: Generation, *, deadline_s: float | None = None, rank: int | None = None
    ) -> tuple[Writing, RoutedModel]:
        """Ask a service of the task generation or chat to write, and hear it piece by piece. Returns when the first piece is there.

        Raises:
            Invalid: `gateway.wrong-task`; and what ``predict`` raises.
        """
        pool, model = self.target(request, name)
        if model.task not in WRITING:
            raise wrong_task(name, model, "generation, chat")
        if self.router.composed(name) is not None:
            raise Unsupported("graph.no-stream", service=name[:80])
        self._check(name, texts, (), _takes(model))
        request.long = True
        owners = self._owners(request, name)
        if owners:
            self.flow.admit(owners, len(texts))
        rank = rank_of(request) if rank is None else rank
        writing = Writing(pool, texts, options, lambda tokens: self.flow.charge(owners, tokens), owner=asker(request), rank=rank, deadline_s=deadline_s, traced=request.traced)
        await writing.begun()
        return writing, model

    def target(self, request: Request, name: str, version: str | None = None) -> tuple[Pool, RoutedModel]:
        """Who answers for service ``name``, when the request may ask it."""
        router = self.router
        service = router.service(name, request.principal)
        authorise(request.principal, service)
        request.service = name
        found = router.target(service) if version is None else router.numbered(service, version)
        if found is None:
            raise unknown_version(name, str(version), router.target(service)[1])
        if request.traced is not None:
            request.traced.facts["model"] = found[1].version
        return found

    def traced(self, request: Request, protocol: str, status: int) -> None:
        """Keep the trace of a request to a service, if it has one."""
        if request.traced is not None and request.service != "-":
            request.traced.name = protocol
            self.tracer.end(request.traced, status, service=request.service, request_id=request.request_id)

    def _owners(self, request: Request, name: str) -> list[Owner]:
        """Whose limits hold for a request; hardly ever any."""
        table = self.router.table
        service, principal = table.services[name], request.principal
        owners: list[Owner] = []
        if principal is not None and principal.rate is not None:
            owners.append(("key", principal.id, principal.rate))
        if service.rate is not None:
            owners.append(("service", name, service.rate))
        if table.rates and (rate := table.rates.get(service.project)) is not None:
            owners.append(("project", service.project, rate))
        return owners

    def _check(self, name: str, texts: Sequence[str], texts_b: Sequence[str], takes: tuple[bool, ...]) -> None:
        limit = min(INPUTS_MAX, self.limits.queue_max)
        if not texts:
            raise Invalid("gateway.no-inputs")
        if len(texts) > limit:
            raise Invalid("gateway.too-many-inputs", n=len(texts), max=limit)
        for column in (texts, texts_b):
            for index, text in enumerate(column):
                if len(text) > TEXT_MAX_CHARS:
                    raise Invalid("gateway.text-too-long", index=index, n=len(text), max=TEXT_MAX_CHARS)
        if bool(texts_b) not in takes:
            raise Invalid("gateway.no-pairs" if texts_b else "gateway.pairs-wanted", service=name[:80])

    async def all_metrics(self) -> list[list[Family]]:
        """The counters of every gateway of the installation."""
        return []


class Protocol(ABC):
    """One way of asking. Made once for each gateway.

    Args:
        desk: what it may use.
    """

    name: ClassVar[str]
    segments: ClassVar[tuple[str, ...]]
    """First path segments it owns: ``("predict",)`` owns ``/predict`` and ``/predict/…``."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def is_open(self, path: str) -> bool:  # noqa: ARG002 for those that override it
        """Whether ``path`` needs no key."""
        return False

    @abstractmethod
    async def answer(self, request: Request) -> Response:
        """Answer a complete request whose key was checked."""

    def problem(self, error: WenfangError, request: Request) -> Response:
        """An error in the shape this protocol demands."""
        return problem(error, request)


def _takes(model: RoutedModel) -> tuple[bool, ...]:
    """Whether a model takes pairs, texts or both."""
    return (False, True) if model.task == "embedding" else (model.task == "matching",)


def unknown_version(name: str, version: str, model: RoutedModel) -> WenfangError:
    """The error for a version that does not answer."""
    return NotFound("serve.unknown-version", service=name[:80], version=version[:80], present=model.version.rpartition(":")[2])


def wrong_task(name: str, model: RoutedModel, wanted: str) -> WenfangError:
    """The error for a service of another task than this path is for."""
    return Invalid("gateway.wrong-task", service=name[:80], task=model.task, wanted=wanted)


def decode_json(request: Request, decoder: msgspec.json.Decoder[T], body: bytes | memoryview | None = None, kinds: tuple[bytes, ...] = (JSON,)) -> T:
    """The body, or the given part of it, as the decoder's type.

    Raises:
        Invalid: `gateway.wrong-content-type`, `gateway.bad-json`.
    """
    kind = request.headers.get(b"content-type")
    if kind is not None and kind != JSON and kind.partition(b";")[0].strip().lower() not in kinds:
        raise Invalid("gateway.wrong-content-type", got=kind[:80].decode("latin-1"))
    try:
        return decoder.decode(request.body if body is None else body)
    except msgspec.MsgspecError as e:
        raise Invalid("gateway.bad-json", reason=str(e)[:200]) from e
    except UnicodeDecodeError as e:
        raise Invalid("gateway.bad-json", reason="a string is not UTF-8") from e
    except RecursionError as e:
        raise Invalid("gateway.bad-json", reason="nested too deep") from e


def fresh_wanted(header: bytes) -> bool:
    """Whether ``Cache-Control`` asks for an answer that was not kept."""
    return any(word.strip().lower() in {b"no-cache", b"no-store", b"max-age=0"} for word in header.split(b","))


def asker(request: Request) -> str:
    """Who takes turns: the project of a key, else the key."""
    principal = request.principal
    return "" if principal is None else principal.project or principal.id


def rank_of(request: Request) -> int:
    """The class of ``X-Priority``.

    Raises:
        Invalid: `gateway.bad-parameter`.
    """
    said = request.headers.get(b"x-priority")
    if said is None:
        return RANKS["online"]
    rank = RANKS.get(said.decode("latin-1").strip().lower())
    if rank is None:
        raise Invalid("gateway.bad-parameter", parameter="X-Priority", got=said[:40].decode("latin-1"), expected=", ".join(RANKS))
    return rank


def only(request: Request, *methods: str) -> None:
    """Raises Invalid: `gateway.method-not-allowed`."""
    if request.method not in methods:
        raise Invalid("gateway.method-not-allowed", method=request.method, allowed=", ".join(methods))


def top_k_of(value: Any) -> int:
    """``top_k`` as given in parameters.

    Raises:
        Invalid: `gateway.bad-parameter`.
    """
    if type(value) is not int or not 1 <= value <= TOP_K_MAX:
        raise Invalid(
            "gateway.bad-parameter",
            parameter="top_k",
            got=str(value)[:40] if isinstance(value, (int, float)) else type(value).__name__,
            expected=f"a whole number from 1 to {TOP_K_MAX}",
        )
    return value


def generation_of(given: dict[str, Any]) -> Generation:
    """What is asked of generation, from parameters by name; None counts as not given.

    Raises:
        Invalid: `gateway.bad-parameter`.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(asked) - set(Generation.__struct_fields__)):
        raise Invalid("gateway.bad-parameter", parameter=unknown[0][:40], got="unknown", expected=", ".join(Generation.__struct_fields__))
    try:
        options = msgspec.convert(asked, Generation)
        msgspec.msgpack.encode(options)  # what no frame can carry must not reach a replica's batch
    except OverflowError as e:
        raise Invalid("gateway.bad-parameter", parameter="json_schema", got="a number of more than 64 bits", expected="smaller numbers") from e
    except msgspec.ValidationError as e:
        found = _PATH.search(str(e))
        name = found.group(1) if found else "parameters"
        value = asked.get(name)
        got = str(value)[:40] if isinstance(value, (int, float)) else type(value).__name__
        raise Invalid("gateway.bad-parameter", parameter=name, got=got, expected=str(e).partition(" - at")[0][:120]) from e
    return options
