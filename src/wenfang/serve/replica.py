"""One model version in a process of its own: frames of texts in, frames of outputs out, one thread.

Knows nothing of services, routes or HTTP; it accepts any text and lets no text spoil its neighbours' answers.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.discreet import begin_log
from wenfang.core.errors import Broken, WenfangError
from wenfang.core.examples import Output
from wenfang.core.frames import FRAME_MAX_BYTES, from_error, pack
from wenfang.core.ports import Cancelled
from wenfang.core.trace import CARRIED

from .alarm import Alarm
from .at_hand import Batch
from .costs import CostCurve
from .entrance import Entrance, read_some
from .joining import SLOTS, Joiner
from .memory import cap_memory, memory_error
from .recycling import Recycling, ask_to_be_replaced, say_taken_over
from .remembering import measured_once
from .wire import Answer, Ask, Cancel, Hello, Leaving, Piece

__all__ = ["Predictor", "Server", "main", "serve"]

SEND_TIMEOUT_S = 30.0
LEAVE_S = 30.0
"""A replica with a successor waits so long for its callers to hang up."""
_AS_IT_IS = Generation()
_SHORT = Generation(max_tokens=8)
log = logging.getLogger("wenfang.replica")


class Predictor(Protocol):
    """What a replica needs of a model: ``wenfang.models.base.Model`` is one."""

    labels_: list[str]
    task: Any

    def predict(self, texts: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each text, in order."""
        ...

    def match(self, texts: Sequence[str], texts_b: Sequence[str], *, top_k: int = 1) -> list[Output]:
        """One answer for each pair, in order."""
        ...

    def generate(self, texts: Sequence[str], options: Sequence[Generation], *, emit: Callable[[int, str], None] | None = None) -> list[Output]:
        """One generated text for each, in order; told piece by piece."""
        ...


class Server:
    """Answers frames from one thread: batch after batch, hearing ``Cancel`` while it writes; or, where the model has a ``joint``, all texts together.

    Args:
        model: predicts; is called from this thread only.
        entrance: where callers come in; made when the model is ready.
        name: what it serves, said in ``hello``.
        batch_max: texts in one batch at most; measured down.
        budget_s: for measuring the cost curve.
        curve: file in which the cost curve is kept; None: it is measured.
        hang_s: after which a batch without a sign of life ends the process; 0: it may take for ever.
    """

    def __init__(
        self, model: Predictor, entrance: Callable[[], Entrance], *, name: str, batch_max: int = 8, budget_s: float = 1.5, hang_s: float = 0.0, curve: Path | None = None
    ) -> None:
        self.model = model
        self.name = name
        self.alarm = Alarm(max(hang_s, float(getattr(model, "silent_s", 0.0))) if hang_s else 0.0)
        self.writes = model.task in {"generation", "chat"}
        at_once: int | None = getattr(model, "at_once", None)
        self.curve = CostCurve(0.0, 0.0, at_once) if at_once else measured_once(self._sample, batch_max=batch_max, budget_s=budget_s, path=curve)
        self._selector = selectors.DefaultSelector()
        self._inbox: dict[socket.socket, bytearray] = {}
        self._decoder = msgspec.msgpack.Decoder(Ask | Cancel)
        self._stopped = False
        self._leaves_at: float | None = None
        """It has a successor, and goes then at the latest."""
        self.recycling: Recycling | None = None
        make = getattr(model, "joint", None) if self.writes else None
        self._joiner = None if make is None or make() is None else Joiner(make, self._say, name=name)
        self._entrance = entrance()
        self._wake_in, self._wake_out = socket.socketpair()
        for sock in (self._wake_in, self._wake_out):
            sock.setblocking(False)
        self._selector.register(self._entrance.listener, selectors.EVENT_READ)
        self._selector.register(self._wake_in, selectors.EVENT_READ)

    def _sample(self, texts: list[str]) -> object:
        if self.writes:
            return self.model.generate(texts, [_SHORT] * len(texts))
        return self.model.match(texts, texts[::-1]) if self.model.task == "matching" else self.model.predict(texts)

    def stop(self, *_: object) -> None:
        """End after the batch at hand; also a signal handler."""
        self._stopped = True
        with suppress(BlockingIOError):
            self._wake_out.send(b"x")

    def leave(self, *_: object) -> None:
        """A successor listens: tell the callers, answer what they asked, go when they have hung up; also a signal handler."""
        if self._leaves_at is None:
            self._leaves_at = time.monotonic() + LEAVE_S
            with suppress(BlockingIOError):
                self._wake_out.send(b"x")

    def _see_off(self, leaves_at: float) -> None:
        listener = self._entrance.listener
        if listener.fileno() >= 0:
            self._selector.unregister(listener)
            listener.close()
            with suppress(BlockingIOError):
                self._wake_in.recv(64)
            for sock in [*self._inbox]:
                self._say(sock, Leaving())
        if not self._inbox or time.monotonic() > leaves_at:
            self._stopped = True

    def run(self) -> None:
        """Serve until stopped."""
        try:
            if self._joiner is not None:
                self._join(self._joiner)
            while not self._stopped:
                self._hear(None)
                while not self._stopped and sum([self._work(sock) for sock in [*self._inbox]]):  # a batch of each, in turn
                    pass
        finally:
            for sock in [*self._inbox, self._wake_in, self._wake_out]:
                sock.close()
            self._entrance.close()
            self._selector.close()

    # ------------------------------------------------------------ hearing
    def _hear(self, timeout_s: float | None) -> None:
        """Take what callers say into their inboxes."""
        for key, _ in self._selector.select(timeout_s if self._leaves_at is None or timeout_s is not None else 0.5):
            if key.fileobj is self._entrance.listener:
                self._accept()
            elif key.fileobj is not self._wake_in:
                (key.data or self._receive)(key.fileobj)  # pyright: ignore[reportArgumentType]
        if self._leaves_at is not None:
            self._see_off(self._leaves_at)

    def _accept(self) -> None:
        sock = self._entrance.accept()
        if sock is not None and self._entrance.is_in(sock):
            self._greet(sock)
        elif sock is not None:
            self._selector.register(sock, selectors.EVENT_READ, self._enter)

    def _enter(self, sock: socket.socket) -> None:
        """Go on with somebody who is on the way in."""
        entered = self._entrance.step(sock)
        if entered is not None:
            self._selector.unregister(sock)
        if entered:
            self._greet(sock)
        elif entered is False:
            sock.close()

    def _greet(self, sock: socket.socket) -> None:
        curve = self.curve
        silent_s = float(getattr(self.model, "silent_s", 0.0))
        slots = 0 if self._joiner is None else SLOTS
        steady = not getattr(self.model, "remote", False)
        hello = Hello(1, os.getpid(), self.name, self.model.task, self.model.labels_, curve.batch_max, curve.item_ms, curve.fixed_ms, silent_s, slots, steady)
        try:
            sock.sendall(pack(hello))
        except OSError as e:
            log.info("a caller left before hello: %s", e)
            sock.close()
            return
        self._inbox[sock] = bytearray()
        self._selector.register(sock, selectors.EVENT_READ)

    def _receive(self, sock: socket.socket) -> None:
        try:
            data = read_some(sock)
        except OSError as e:
            log.warning("a caller was dropped: %s", e)
            data = b""
        if data is None:
            return
        if data:
            self._inbox[sock] += data
        else:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        if self._inbox.pop(sock, None) is not None:
            self._selector.unregister(sock)
            if self._joiner is not None:
                self._joiner.gone(sock)
            sock.close()

    def _next(self, sock: socket.socket, *, take: bool = True) -> Ask | Cancel | None:
        """The oldest whole frame of a caller, if any; one that sends nonsense is dropped."""
        inbox = self._inbox.get(sock)
        if inbox is None or len(inbox) < 4:
            return None
        size = int.from_bytes(inbox[:4], "big")
        try:
            if size > FRAME_MAX_BYTES:
                raise msgspec.ValidationError(f"a frame of {size} bytes")  # noqa: TRY301
            if len(inbox) < 4 + size:
                return None
            said = self._decoder.decode(memoryview(inbox)[4 : 4 + size])
        except msgspec.MsgspecError as e:
            log.warning("a caller was dropped: %s", e)
            self._drop(sock)
            return None
        if take:
            del inbox[: 4 + size]
        return said

    def look_around(self, batch: Batch) -> None:
        """In the middle of a long batch: greet new callers, tell waiting ones that they wait for work and not for a corpse, hear of cancelling."""
        self._hear(0.0)
        if batch.sock not in self._inbox:
            batch.cancelled = True
        for sock in [*self._inbox]:
            said = self._next(sock, take=False)
            if type(said) is Ask:
                with suppress(OSError):  # it is dropped where its answer is sent
                    sock.sendall(pack(Piece(said.id, -1, "")))
            elif type(said) is Cancel and sock is batch.sock:
                self._next(sock)
                batch.cancelled = batch.cancelled or said.id == batch.ask.id

    # ------------------------------------------------------------ joining
    def _join(self, joiner: Joiner) -> None:
        """Hear, begin, step, until stopped and what was begun is written."""
        while not self._stopped or joiner.writing:
            self._hear(0.0 if joiner.busy else None)
            for sock in [] if self._stopped else [*self._inbox]:
                while (said := self._next(sock)) is not None:
                    joiner.ask(sock, said) if type(said) is Ask else joiner.cancel(sock, said.id)
                    if self.recycling is not None and type(said) is Ask:
                        self.recycling.worked(len(said.texts))
            self.alarm.wind()
            joiner.turn()
            self.alarm.off()

    def _say(self, sock: socket.socket, frame: Answer | Piece | Leaving) -> bool:
        """Send a frame; a caller that has gone wants nothing any more."""
        try:
            if sock in self._inbox:
                sock.sendall(pack(frame))
        except OSError as e:
            log.warning("a caller was dropped: %s", e)
            self._drop(sock)
        return sock in self._inbox

    # ------------------------------------------------------------ answering
    def _work(self, sock: socket.socket) -> bool:
        """Answer the oldest question of one caller; whether there was any."""
        said = self._next(sock)
        if type(said) is Ask:
            self.alarm.wind(len(said.texts) / self.curve.batch_max)
            answer = self.answer(Batch(self, sock, said))
            self.alarm.off()
            try:
                if sock in self._inbox:
                    sock.sendall(pack(answer))
            except OSError as e:
                log.warning("a caller was dropped: %s", e)
                self._drop(sock)
            if self.recycling is not None:
                self.recycling.worked(len(said.texts))
        return said is not None

    def answer(self, batch: Batch) -> Answer:
        """Predict one batch; when the batch fails, each text alone, so that only the guilty one has an error."""
        start = time.perf_counter()
        ask = batch.ask
        errors: dict[int, dict[str, Any]] = {}
        outputs: list[Output | None]
        try:
            outputs = [*self._predict(batch, ask)]
        except Cancelled:
            return Answer(ask.id, [None] * len(ask.texts), errors, (time.perf_counter() - start) * 1000, batch.told)
        except Exception as e:  # whatever a model raises: the replica lives on and the callers are told
            log.exception("a batch of %d failed, trying one by one%s", len(ask.texts), _of_traces(ask))
            outputs = [self._alone(batch, i, errors, e) for i in range(len(ask.texts))]
        return Answer(ask.id, outputs, errors, (time.perf_counter() - start) * 1000)

    def _predict(self, batch: Batch, ask: Ask, first: int = 0) -> list[Output]:
        carried = CARRIED.set(ask.traces)
        try:
            return self._predicted(batch, ask, first)
        finally:
            CARRIED.reset(carried)

    def _predicted(self, batch: Batch, ask: Ask, first: int) -> list[Output]:
        if self.writes:
            options = [option or _AS_IT_IS for option in ask.options] or [_AS_IT_IS] * len(ask.texts)
            outputs = self.model.generate(ask.texts, options, emit=batch.emitter(first))
        else:
            outputs = self.model.match(ask.texts, ask.texts_b, top_k=ask.top_k) if ask.texts_b else self.model.predict(ask.texts, top_k=ask.top_k)
        if len(outputs) != len(ask.texts):
            raise Broken("serve.model-failed", model=self.name, kind=f"{len(outputs)} answers for {len(ask.texts)} texts")
        return outputs

    def _alone(self, batch: Batch, index: int, errors: dict[int, dict[str, Any]], first_error: Exception) -> Output | None:
        ask = batch.ask
        one = slice(index, index + 1)
        try:
            if len(ask.texts) == 1 or index in batch.written:
                raise first_error  # noqa: TRY301 nothing new would come of it
            self.alarm.wind()
            return self._predict(batch, Ask(ask.id, ask.texts[one], ask.top_k, ask.texts_b[one], ask.options[one], traces=ask.traces[one]), index)[0]
        except Cancelled:
            return None
        except WenfangError as e:  # what a family refuses by name (a pair asked of a tagger) is the caller's to know
            errors[index] = from_error(e)
            return None
        except Exception as e:  # the text's own error, named by kind only: a message may hold the text
            errors[index] = from_error(Broken("serve.model-failed", model=self.name, kind=type(e).__name__))
            return None


def _of_traces(ask: Ask) -> str:
    return ", of traces " + " ".join(sorted({t.trace_id for t in ask.traces if t is not None})) if ask.traces else ""


def serve(model: Predictor, arguments: Mapping[str, Any]) -> None:
    """Serve ``model`` on ``arguments["socket"]`` until SIGTERM or SIGINT; with ``host``, on a port of that address, which the file there then names."""
    begin_log()

    def entrance() -> Entrance:
        return Entrance(Path(arguments["socket"]), host=arguments.get("host"), certificate=str(arguments.get("certificate", "")), timeout_s=SEND_TIMEOUT_S)

    name, batch_max = str(arguments.get("name", "")), int(arguments.get("batch_max", 8))
    budget_s, hang_s = float(arguments.get("budget_s", 1.5)), float(arguments.get("hang_s", 0.0))
    server = Server(model, entrance, name=name, batch_max=batch_max, budget_s=budget_s, hang_s=hang_s, curve=Path(arguments["curve"]) if arguments.get("curve") else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    signal.signal(signal.SIGUSR1, server.leave)
    texts, growth = int(arguments.get("recycle_texts", 0)), float(arguments.get("recycle_growth", 0.0))
    if texts or growth:
        server.recycling = Recycling(lambda: ask_to_be_replaced(arguments), texts=texts, growth=growth)
    if arguments.get("succeeds"):
        say_taken_over(arguments)
    log.info("serving %s: %s", server.name, server.curve)
    server.run()


def main(arguments: dict[str, Any]) -> None:
    """Entry of a ``replica`` process.

    Args:
        arguments: ``bundle`` (folder of the unpacked, signed bundle), ``socket``, ``keys`` (folder of trusted public keys),
            ``name`` (what it serves), ``batch_max``, ``curve`` (file in which replicas of one model version keep what a batch takes), ``hang_s`` (a batch that takes longer without a sign of life ends the process);
            elsewhere than its callers, ``host`` and ``certificate``; ``memory_bytes`` (at most; 0: what the machine has); ``recycle_texts``,
            ``recycle_growth``, ``supervisor``, ``process`` (see ``recycling``).

    Raises:
        Broken: `signature.bad` and whatever else `open_bundle` finds wrong.
        Conflict: `serve.memory-short`.
    """
    from wenfang.guard.keys import TrustedKeys
    from wenfang.models.bundle import open_bundle

    def make() -> Predictor:
        return open_bundle(Path(arguments["bundle"]), verifier=TrustedKeys(Path(arguments["keys"])))[1]

    serve_within(make, arguments)


def serve_within(make: Callable[[], Predictor], arguments: Mapping[str, Any]) -> None:
    """Make a model under the memory cap of ``arguments`` and serve it.

    Raises:
        Conflict: `serve.memory-short`.
    """
    cap = cap_memory(int(arguments.get("memory_bytes", 0)))
    try:
        serve(make(), arguments)
    except WenfangError as e:
        if (short := memory_error(e, str(arguments.get("name", "")), cap)) is not None:
            raise short from e
        raise
    except Exception as e:
        if (short := memory_error(e, str(arguments.get("name", "")), cap)) is not None:
            raise short from e
        raise
