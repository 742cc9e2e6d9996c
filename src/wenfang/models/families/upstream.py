"""Any server that speaks the OpenAI protocol as a model: it writes, goes on with conversations, names a label, makes vectors.

Nothing is learned but a few examples to show. The bundle holds addresses and examples, never a key: the key's environment variable is
named, and read when the server is asked. An answer that names no label counts as unparsable and gets the most frequent one.
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
from collections import Counter
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
from wenfang.models.answers import trainable_labels
from wenfang.models.base import Curve, DataShape, Emit, Hyper, Model
from wenfang.net.client import Client

__all__ = ["Upstream", "UpstreamHyper"]

SHOWN_MAX_CHARS = 2000
CHECKED = 16
"""Examples that fit asks about, to know how often the server is right."""
_KNOWN = ("max_tokens", "temperature", "top_p", "seed", "top_k", "min_tokens", "repetition_penalty")
_UNKNOWN = ("beams", "no_repeat", "forbidden")
_CLASSIFY = "Classify the user's text. Answer with exactly one of these labels and nothing else: {labels}"
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

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "generation", "chat", "embedding"})
    cost_rank: ClassVar[int] = 90
    remote: ClassVar[bool] = True
    Hyper: ClassVar[type[BaseModel]] = UpstreamHyper
    hyper: UpstreamHyper

    def __init__(self, hyper: BaseModel | None = None, *, task: Task, seed: int = 0) -> None:
        super().__init__(hyper, task=task, seed=seed)
        self.shown_: list[tuple[str, str]] = []
        self.fallback_ = ""
        self.right_ = 0.5
        """Share of checked examples whose label it named."""
        self.at_once = self.hyper.concurrency
        self.silent_s = (self.hyper.timeout_s + 10.0) * (self.hyper.retries + 1)
        self.spent_ = Spent()
        self._known: dict[bytes, Output] | None = None
        self._took_ms: list[float] = []
        self.unparsable = 0
        """Answers so far that named no label."""
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
        answers = train.labels if self.task == "classification" else train.targets
        if answers:
            rows = _spread(rows, answers) if self.task == "classification" else rows
            self.shown_ = [(train.texts[i][:SHOWN_MAX_CHARS], answers[i]) for i in rows[: self.hyper.shots]]
        if self.task != "classification":
            self._check(train.texts[:1])
            return self
        self.fallback_ = Counter(train.labels).most_common(1)[0][0]
        held = rows[self.hyper.shots : self.hyper.shots + CHECKED] or rows[:1]
        named = self.predict([train.texts[i] for i in held])
        self.right_ = (sum(o.label == train.labels[i] for o, i in zip(named, held, strict=True)) + 1) / (len(held) + 2)
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
        """Labels, texts or vectors, by the task; ``top_k`` is not known here."""
        del top_k
        if not texts:
            return []
        if self.task == "embedding":
            return self._vectors(texts)
        if self.task != "classification":
            return self.generate(texts, [Generation()] * len(texts))
        options = Generation(max_tokens=64, temperature=0.0)
        return [self._labelled(o) for o in self._each(texts, [options] * len(texts), None)]

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """Cosine of each pair, for the task embedding.

        Raises:
            Unsupported: `model.no-pairs`.
        """
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

    def _each(self, texts: Sequence[str], options: Sequence[Generation], emit: Emit | None) -> list[Output]:
        """Ask about each text, ``concurrency`` at a time; pieces are told from the calling thread."""
        heard: queue.Queue[tuple[int, str]] = queue.Queue()
        left = threading.Event()
        bodies = [self._body(t, o) for t, o in zip(texts, options, strict=True)]
        keys = [hashlib.sha256(msgspec.json.encode(b)).digest() for b in bodies] if self._known is not None else []
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in (self._known or {})}

        def one(index: int) -> Output | None:
            if keys and first.get(keys[index]) != index:
                return None  # known, or being asked
            return self._write(bodies[index], lambda piece: heard.put((index, piece)), left) if emit is not None else self._ask(bodies[index])

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
        instruction = self.hyper.instruction or (_CLASSIFY if self.task == "classification" else None)
        start = [Message("system", instruction.replace("{labels}", json.dumps(self.labels_, ensure_ascii=False)))] if instruction else []
        for shown, answer in self.shown_:
            start += [*(conversation(shown) if self.task == "chat" else [Message("user", shown)]), Message("assistant", answer)]
        body: dict[str, Any] = {"model": self._model_name(), "messages": [*start, *said]}
        given = msgspec.to_builtins(options)
        body.update({name: given[name] for name in _KNOWN if name in given and given[name] is not None})
        if options.stop:
            body["stop"] = list(options.stop)
        if options.json_schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": options.json_schema}}
        return body

    def _ask(self, body: dict[str, Any]) -> Output:
        begun = time.monotonic()
        answer = self._server().ask("POST", "/chat/completions", body, until=self.until)
        self._took_ms.append(1000 * (time.monotonic() - begun))
        with _understood(self._server()):
            choice = answer["choices"][0]
            return _output(choice["message"]["content"] or "", choice.get("finish_reason"), answer.get("usage"))

    def _write(self, body: dict[str, Any], tell: Callable[[str], None], left: threading.Event) -> Output:
        pieces: list[str] = []
        finish: str | None = None
        usage: Mapping[str, Any] | None = None
        for data in self._server().events("/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}):
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

    def _labelled(self, output: Output) -> Output:
        said = (output.text or "").strip().strip("\"'`。.“”").casefold()
        exact = [label for label in self.labels_ if label.casefold() == said]
        found = exact or [label for label in self.labels_ if label.casefold() in said]
        sure = len(found) == 1
        if not sure:
            self.unparsable += 1
            log.warning("an answer named no label: %d so far", self.unparsable)
        score = self.right_ if sure else 1 / len(self.labels_)
        return Output(label=found[0] if sure else self.fallback_, score=score, tokens_in=output.tokens_in, tokens_out=output.tokens_out)

    def _vectors(self, texts: Sequence[str]) -> list[Output]:
        clean = [t.encode("utf-8", "replace").decode() for t in texts]
        begun = time.monotonic()
        answer = self._server().ask("POST", "/embeddings", {"model": self._model_name(), "input": clean, "encoding_format": "float"}, until=self.until)
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
        kept = {"shown": self.shown_, "fallback": self.fallback_, "right": self.right_, "spent": asdict(self.spent_)}
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
            model.fallback_, model.right_, model.labels_ = str(kept["fallback"]), float(kept["right"]), labels
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


def _spread(rows: list[int], labels: Sequence[str]) -> list[int]:
    """The rows, one of each label in turn."""
    by_label: dict[str, list[int]] = {}
    for row in rows:
        by_label.setdefault(labels[row], []).append(row)
    turns = [(turn, at, row) for at, (_, own) in enumerate(sorted(by_label.items())) for turn, row in enumerate(own)]
    return [row for _, _, row in sorted(turns)]


def _output(text: str, finish: str | None, usage: Mapping[str, Any] | None) -> Output:
    usage = usage or {}
    return Output(text=text, finish="length" if finish == "length" else "stop", tokens_in=usage.get("prompt_tokens"), tokens_out=usage.get("completion_tokens"))
