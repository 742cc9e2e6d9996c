"""Any server that speaks the OpenAI protocol as a model: it writes, goes on with conversations, names labels, quotes spans, compares pairs, makes vectors.

Nothing is learned but a few examples to show. The bundle holds addresses and examples, never a key: the key's environment variable is
named, and read when the server is asked. An answer that cannot be read is counted and stands for the usual one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from pydantic import BaseModel, Field, ValidationError, field_validator

from wenfang.core.conversation import Generation, Message, conversation
from wenfang.core.durable import write_file
from wenfang.core.errors import Broken, Invalid, Unsupported
from wenfang.core.examples import Examples, Output
from wenfang.core.ports import Cancelled
from wenfang.core.records import Task
from wenfang.core.trace import CARRIED, Trace
from wenfang.models.answers import trainable_labels
from wenfang.models.base import Curve, DataShape, Emit, Hyper, Model
from wenfang.models.forms import Form, form_of, spread
from wenfang.net.client import Client

__all__ = ["Upstream", "UpstreamHyper"]

SHOWN_MAX_CHARS = 2000
NO_SCHEMA = frozenset({400, 415, 422, 501})
"""How servers refuse a schema they do not know."""
CHECKED = 16
"""Examples that fit asks about, to know how often the server is right."""
_KNOWN = ("max_tokens", "temperature", "top_p", "seed", "top_k", "min_tokens", "repetition_penalty")
_UNKNOWN = ("beams", "no_repeat", "forbidden")
log = logging.getLogger("wenfang.upstream")


class UpstreamHyper(Hyper):
    """Which server, how it is asked, and what it may cost."""

    base_url: str = Field(default="", pattern=r"^(https?://[^\s/@?#]+(/[^\s@?#]*)?)?$", description="what /chat/completions and /embeddings lie under, as https://host/v1")
    model: str = Field(default="", max_length=200, description="its name there; empty: the only one")
    api_key_variable: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$", description="name of the environment variable that holds the key")
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="for each silence")
    retries: int = Field(default=2, ge=0, le=10, description="of what may succeed later")
    concurrency: int = Field(default=4, ge=1, le=64, description="requests at once")
    price_in: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="price of a million tokens asked")
    price_out: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="price of a million tokens answered")
    instruction: str | None = Field(default=None, max_length=20_000, description="system message; {labels} stands for the labels")
    shots: int = Field(default=4, ge=0, le=64, description="training examples shown with every question")
    proxy: str | None = Field(default=None, pattern=r"^https?://[^\s/@?#]+/?$", description="address of a proxy")

    @field_validator("api_key_variable")
    @classmethod
    def _not_ours(cls, name: str | None) -> str | None:
        if name is not None and name.startswith("WENFANG_"):
            raise ValueError("a key of Wenfang itself is nobody else's")
        return name


@dataclass(frozen=True, slots=True)
class Spent:
    """What was asked of the server so far."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class Upstream(Model):
    """A model that lives elsewhere."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "multilabel", "tagging", "matching", "generation", "chat", "embedding"})
    cost_rank: ClassVar[int] = 90
    remote: ClassVar[bool] = True
    Hyper: ClassVar[type[BaseModel]] = UpstreamHyper
    hyper: UpstreamHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.shown_: list[tuple[str, str]] = []
        self.usual_ = Output()
        """Answered when an answer says nothing."""
        self.right_ = 0.5
        """Share of checked examples that it answered right."""
        self.schema_ = True
        """Whether the server takes a schema."""
        self.at_once = self.hyper.concurrency
        self.silent_s = (self.hyper.timeout_s + 10.0) * (self.hyper.retries + 1)
        self.spent_ = Spent()
        self._known: dict[bytes, Output] | None = None
        self._took_ms: list[float] = []
        self.unparsable = 0
        """Answers so far that said nothing."""
        self.lost = 0
        """Labels and spans so far that were named and are not there."""
        self._client: Client | None = None
        self._lock = threading.Lock()

    @classmethod
    def candidates(cls, shape: DataShape) -> Iterable[BaseModel]:
        """One for each server the caller offers, as ``URL#model@VARIABLE=IN/OUT`` (all but the URL may be missing); none otherwise: nothing leaves this machine unasked.

        Raises:
            Invalid: `upstream.bad-offer`.
        """
        return [_offered(offer) for offer in shape.upstreams]

    # ------------------------------------------------------------ fit
    def fit(self, train: Examples, valid: Examples | None = None, curve: Curve | None = None) -> Self:  # noqa: ARG002 nothing to stop early
        """Choose examples to show and check that the server answers.

        Raises:
            Invalid: `upstream.no-url`, `model.no-examples`, `model.too-few-labels`.
            Broken: `upstream.no-key`, `net.refused`, `net.bad-answer`; Busy: `net.unreachable` and the like.

        Cost: up to 16 questions.
        """
        if not self.hyper.base_url:
            raise Invalid("upstream.no-url")
        self.labels_ = trainable_labels(train)
        rows = list(range(len(train)))
        random.Random(self.seed).shuffle(rows)
        self.until = None if curve is None else curve.deadline
        form = self._form()
        if form is None:
            self.shown_ = [(train.texts[i][:SHOWN_MAX_CHARS], train.targets[i]) for i in rows[: self.hyper.shots]] if train.targets else []
            self._check(train.texts[:1])
            return self
        short = [i for i in rows if len(train.texts[i]) <= SHOWN_MAX_CHARS] or rows
        shown = spread(short, train, self.hyper.shots)
        pairs = train.texts_b or [""] * len(train)
        self.shown_ = [(form.question(train.texts[i], pairs[i])[: 2 * SHOWN_MAX_CHARS], form.answer(train, i)) for i in shown]
        self.usual_ = form.usual(train)
        held = [i for i in rows if i not in shown][:CHECKED] or rows[:1]
        named = self._answers([train.texts[i] for i in held], [pairs[i] for i in held])
        self.right_ = (sum(form.right(o, train, i) for o, i in zip(named, held, strict=True)) + 1) / (len(held) + 2)
        if curve is not None:
            curve.point(1, valid_score=self.right_)
        return self

    def _check(self, texts: list[str]) -> None:
        if self.task == "embedding":
            self.predict(texts)
        else:
            self.generate(texts, [Generation(max_tokens=8)])
            self.spent_ = Spent()  # shorter than real answers

    # ------------------------------------------------------------ asking
    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """Labels, spans, texts or vectors, by the task; ``top_k`` is not known here.

        Raises:
            Invalid: `model.pairs-wanted`; and what ``fit`` raises of the server.
        """
        del top_k
        if not texts:
            return []
        if self.task == "embedding":
            return self._vectors(texts)
        if self.task == "matching":
            raise Invalid("model.pairs-wanted", family=self.name, task=self.task)
        return self.generate(texts, [Generation()] * len(texts)) if self._form() is None else self._answers(texts, [""] * len(texts))

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """The label or grade of each pair; its cosine for the task embedding.

        Raises:
            Unsupported: `model.no-pairs`.
        """
        if self.task == "matching":
            return self._answers(texts, texts_b) if texts else []
        if self.task != "embedding":
            return super().match(texts, texts_b, top_k=top_k)
        both = [np.frombuffer(o.vector or b"", "<f4") for o in self._vectors([*texts, *texts_b])]
        return [Output(score=float(np.clip(a @ b, -1.0, 1.0))) for a, b in zip(both[: len(texts)], both[len(texts) :], strict=True)]

    def generate(self, texts: Sequence[str], options: Sequence[Generation], *, emit: Emit | None = None) -> list[Output]:
        """What the server writes, passed on as it comes.

        Raises:
            Unsupported: `model.no-generation`; Invalid: `upstream.no-option`; and what ``fit`` raises of the server.
        """
        if self.task not in {"generation", "chat"}:
            raise Unsupported("model.no-generation", family=self.name, task=self.task)
        return self._each(texts, options, emit)

    def _form(self) -> Form | None:
        return form_of(self.task, self.labels_)

    def _answers(self, texts: Sequence[str], texts_b: Sequence[str]) -> list[Output]:
        """Ask by the task's form and read the answers; a server that refuses the schema is asked without."""
        form = self._form()
        assert form is not None
        questions = [form.question(a, b) for a, b in zip(texts, texts_b, strict=True)]

        def asked() -> list[Output]:
            schema = form.schema if self.schema_ else None
            return self._each(questions, [Generation(max_tokens=form.room(q), temperature=0.0, json_schema=schema) for q in questions], None)

        try:
            outputs = asked()
        except Broken as e:
            if form.schema is None or not self.schema_ or e.code != "net.refused" or e.fields["got"] not in NO_SCHEMA:
                raise
            self.schema_ = False
            outputs = asked()
        return [self._read(form, o, text) for o, text in zip(outputs, texts, strict=True)]

    def _read(self, form: Form, said: Output, text: str) -> Output:
        read = form.read(said.text or "", text)
        spent: dict[str, Any] = {"tokens_in": said.tokens_in, "tokens_out": said.tokens_out}
        if read is None:
            self.unparsable += 1
            log.warning("an answer could not be read: %d so far", self.unparsable)
            unsure = self.usual_.score if form.graded else 1 / max(2, len(self.labels_))
            return msgspec.structs.replace(self.usual_, score=unsure, **spent)
        self.lost += read.lost
        return msgspec.structs.replace(read.output, score=read.output.score if form.graded else self.right_, **spent)

    def told(self) -> Mapping[str, int]:
        """What went wrong in answers so far, and how often the server was asked."""
        return {"requests": self.spent_.requests, "unparsable": self.unparsable, "lost": self.lost}

    def _each(self, texts: Sequence[str], options: Sequence[Generation], emit: Emit | None) -> list[Output]:
        """Ask about each text, ``concurrency`` at a time; pieces are told from the calling thread."""
        heard: queue.Queue[tuple[int, str]] = queue.Queue()
        left = threading.Event()
        bodies = [self._body(t, o) for t, o in zip(texts, options, strict=True)]
        keys = [hashlib.sha256(msgspec.json.encode(b)).digest() for b in bodies] if self._known is not None else []
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in (self._known or {})}

        carried = CARRIED.get()
        traces = carried if len(carried) == len(texts) else [None] * len(texts)

        def one(index: int) -> Output | None:
            if keys and first.get(keys[index]) != index:
                return None  # known, or being asked
            trace = traces[index]
            return self._ask(bodies[index], trace) if emit is None else self._write(bodies[index], lambda piece: heard.put((index, piece)), left, trace)

        with ThreadPoolExecutor(self.hyper.concurrency) as threads:
            futures = [threads.submit(one, i) for i in range(len(texts))]
            try:
                while emit is not None and not (all(f.done() for f in futures) and heard.empty()):
                    try:
                        emit(*heard.get(timeout=0.05))
                    except queue.Empty:
                        emit(0, "")  # still waiting for the server
                got = [f.result() for f in futures]
            finally:
                left.set()
                for future in futures:
                    future.cancel()
                self._keep(bodies, keys, futures)
        known = self._known or {}
        return [known[keys[i]] if output is None else output for i, output in enumerate(got)]

    def _keep(self, bodies: Sequence[dict[str, Any]], keys: Sequence[bytes], futures: Sequence[Future[Output | None]]) -> None:
        """Count what was answered, and remember it where that is wanted: also when another question failed, for this one was paid."""
        for i, (body, future) in enumerate(zip(bodies, futures, strict=True)):
            output = None if future.cancelled() or future.exception() is not None else future.result()
            if output is None:
                continue
            asked = sum(len(m.content) for m in body["messages"])
            self._count(1, asked if output.tokens_in is None else output.tokens_in, len(output.text or "") if output.tokens_out is None else output.tokens_out)
            if self._known is not None:
                self._known[keys[i]] = output

    def remember(self) -> None:
        """From now on ask each question once only; what makes a question is all that the server is sent."""
        self._known = {} if self._known is None else self._known

    def answer_ms(self) -> Sequence[float]:
        """How long the server took for single answers so far, in milliseconds, retries included."""
        return self._took_ms

    def _count(self, requests: int, tokens_in: int, tokens_out: int) -> None:
        with self._lock:
            self.spent_ = Spent(self.spent_.requests + requests, self.spent_.tokens_in + tokens_in, self.spent_.tokens_out + tokens_out)

    def expected_charge(self, train: Examples, questions: int) -> float:
        """At the two prices, a character taken for a token: rather too much than too little."""
        h, n = self.hyper, max(1, len(train))
        said = train.targets or train.labels or [", ".join(names) for names in train.label_sets] or [str([s.label for s in spans]) for spans in train.spans]
        asked_mean = sum(min(len(t), SHOWN_MAX_CHARS) for t in [*train.texts, *train.texts_b]) / n
        said_mean = sum(map(len, said)) / n
        told = len(h.instruction or "") + sum(map(len, train.label_names())) + h.shots * (asked_mean + said_mean)
        return questions * ((told + asked_mean) * h.price_in + said_mean * h.price_out) / 1e6

    def charge_per_million(self) -> float | None:
        """What one million requests like those so far cost at the two prices; a server that tells no tokens is taken to count characters."""
        h, s = self.hyper, self.spent_
        return (s.tokens_in * h.price_in + s.tokens_out * h.price_out) / s.requests if s.requests and (h.price_in or h.price_out) else None

    def _body(self, text: str, options: Generation) -> dict[str, Any]:
        for name in _UNKNOWN:
            if getattr(options, name):
                raise Invalid("upstream.no-option", option=name)
        text = text.encode("utf-8", "replace").decode()
        said = conversation(text) if self.task == "chat" else [Message("user", text)]
        form = self._form()
        instruction = self.hyper.instruction or (None if form is None else form.instruction)
        start = [Message("system", instruction.replace("{labels}", json.dumps(self.labels_, ensure_ascii=False)))] if instruction else []
        for shown, answer in self.shown_:
            start += [*(conversation(shown) if self.task == "chat" else [Message("user", shown)]), Message("assistant", answer)]
        body: dict[str, Any] = {"model": self._model_name(), "messages": [*start, *said]}
        given = msgspec.to_builtins(options)
        body.update({name: given[name] for name in _KNOWN if name in given and given[name] is not None})
        if options.stop:
            body["stop"] = list(options.stop)
        if options.json_schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": options.json_schema, "strict": True}}
        return body

    def _ask(self, body: dict[str, Any], trace: Trace | None) -> Output:
        begun = time.monotonic()
        answer = self._server().ask("POST", "/chat/completions", body, until=self.until, trace=trace)
        self._took_ms.append(1000 * (time.monotonic() - begun))
        with _understood(self._server()):
            choice = answer["choices"][0]
            return _output(choice["message"]["content"] or "", choice.get("finish_reason"), answer.get("usage"))

    def _write(self, body: dict[str, Any], tell: Callable[[str], None], left: threading.Event, trace: Trace | None) -> Output:
        pieces: list[str] = []
        finish: str | None = None
        usage: Mapping[str, Any] | None = None
        for data in self._server().events("/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}, trace=trace):
            if left.is_set():
                raise Cancelled
            if data == b"[DONE]":
                break
            with _understood(self._server()):
                chunk = msgspec.json.decode(data)
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"][:1]:
                    finish = choice.get("finish_reason") or finish
                    if piece := choice["delta"].get("content"):
                        pieces.append(piece)
                        tell(piece)
        return _output("".join(pieces), finish, usage)

    def _vectors(self, texts: Sequence[str]) -> list[Output]:
        clean = [t.encode("utf-8", "replace").decode() for t in texts]
        begun = time.monotonic()
        trace = next((t for t in CARRIED.get() if t is not None), None)  # one request for all texts
        answer = self._server().ask("POST", "/embeddings", {"model": self._model_name(), "input": clean, "encoding_format": "float"}, until=self.until, trace=trace)
        if len(texts) == 1:
            self._took_ms.append(1000 * (time.monotonic() - begun))
        with _understood(self._server()):
            rows = np.array([d["embedding"] for d in sorted(answer["data"], key=lambda d: d["index"])], np.float32)
            if rows.ndim != 2 or len(rows) != len(texts):
                raise ValueError("another number of vectors")
            usage: dict[str, Any] = answer.get("usage") or {}
            self._count(len(texts), int(usage.get("prompt_tokens", sum(map(len, clean)))), 0)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return [Output(vector=row.astype("<f4").tobytes()) for row in rows]

    def _server(self) -> Client:
        with self._lock:
            if self._client is None:
                h, headers = self.hyper, dict[str, str]()
                if h.api_key_variable is not None:
                    if not (key := os.environ.get(h.api_key_variable)):
                        raise Broken("upstream.no-key", variable=h.api_key_variable, host=h.base_url.split("/")[2])
                    headers["authorization"] = f"Bearer {key}"
                self._client = Client(h.base_url, headers=headers, timeout_s=h.timeout_s, retries=h.retries, private=True, proxy=h.proxy)
            return self._client

    def _model_name(self) -> str:
        if self.hyper.model:
            return self.hyper.model
        server = self._server()
        with self._lock:
            if not hasattr(self, "_only"):
                with _understood(server):
                    self._only = str(server.ask("GET", "/models", until=self.until)["data"][0]["id"])
            return self._only

    # ------------------------------------------------------------ bundle
    def save(self, folder: Path) -> None:
        """Write ``upstream.json``."""
        kept = {"shown": self.shown_, "usual": msgspec.to_builtins(self.usual_), "schema": self.schema_, "right": self.right_, "spent": asdict(self.spent_)}
        write_file(folder / "upstream.json", json.dumps(kept, ensure_ascii=True).encode())

    @classmethod
    def load(cls, folder: Path, *, task: Task, hyper: BaseModel, labels: list[str]) -> Self:
        """The model that ``save`` wrote; the server is not asked.

        Raises:
            Broken: `model.damaged`.
        """
        model = cls(hyper, task=task)
        try:
            kept = json.loads((folder / "upstream.json").read_bytes())
            model.shown_ = [(str(text), str(answer)) for text, answer in kept["shown"]]
            model.usual_, model.right_, model.labels_ = msgspec.convert(kept["usual"], Output), float(kept["right"]), labels
            model.schema_ = bool(kept["schema"])
            model.spent_ = Spent(**kept["spent"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Broken("model.damaged", file="upstream.json", reason=type(e).__name__) from e
        return model

    def environment(self) -> Mapping[str, str]:
        """The client library's version."""
        return {"httpx": version("httpx")}


def _offered(offer: str) -> UpstreamHyper:
    url, _, told = offer.partition("#")
    told, _, prices = told.partition("=")
    model, _, variable = told.rpartition("@") if "@" in told else (told, "", "")
    price_in, _, price_out = prices.partition("/")
    given = {"base_url": url, "model": model, "api_key_variable": variable or None, "price_in": price_in or 0.0, "price_out": price_out or 0.0}
    try:
        return UpstreamHyper.model_validate(given)
    except ValidationError as e:
        raise Invalid("upstream.bad-offer", field=str(e.errors(include_input=False)[0]["loc"][0])) from e


class _understood:  # noqa: N801 read as a word: with _understood(server)
    """Turns an answer of another shape into `net.bad-answer`."""

    def __init__(self, server: Client) -> None:
        self.server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, _: object) -> None:
        if isinstance(e, (KeyError, IndexError, TypeError, ValueError, AttributeError)):
            raise Broken("net.bad-answer", host=self.server.host, reason=type(e).__name__) from e


def _output(text: str, finish: str | None, usage: Mapping[str, Any] | None) -> Output:
    usage = usage or {}
    return Output(text=text, finish="length" if finish == "length" else "stop", tokens_in=usage.get("prompt_tokens"), tokens_out=usage.get("completion_tokens"))
