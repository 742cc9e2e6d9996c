"""One model version in a process of its own: frames of texts in, frames of outputs out, one thread.

Knows nothing of services, routes or HTTP; it accepts any text and lets no text spoil its neighbours' answers.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from wenfang.core.errors import Broken, WenfangError
from wenfang.core.examples import Output
from wenfang.core.frames import FRAME_MAX_BYTES, from_error, listening_socket, pack

from .costs import CostCurve, measure
from .wire import Answer, Ask, Hello

__all__ = ["Predictor", "Server", "main", "serve"]

SEND_TIMEOUT_S = 30.0
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


class Server:
    """Answers frames on a Unix socket from one thread, batch after batch.

    Args:
        model: predicts; is called from this thread only.
        path: of the socket; a stale one is replaced.
        name: what it serves, said in ``hello``.
        batch_max: texts in one batch at most; measured down.
        budget_s: for measuring the cost curve.
    """

    def __init__(self, model: Predictor, path: Path, *, name: str, batch_max: int = 8, budget_s: float = 1.5) -> None:
        self.model = model
        self.path = path
        self.name = name
        self.curve: CostCurve = measure(self._sample, batch_max=batch_max, budget_s=budget_s)
        self._selector = selectors.DefaultSelector()
        self._inbox: dict[socket.socket, bytearray] = {}
        self._decoder = msgspec.msgpack.Decoder(Ask)
        self._stopped = False
        self._listener = listening_socket(path)
        self._wake_in, self._wake_out = socket.socketpair()
        for sock in (self._wake_in, self._wake_out):
            sock.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_in, selectors.EVENT_READ)

    def _sample(self, texts: list[str]) -> object:
        return self.model.match(texts, texts[::-1]) if self.model.task == "matching" else self.model.predict(texts)

    def stop(self, *_: object) -> None:
        """End after the batch at hand; also a signal handler."""
        self._stopped = True
        with suppress(BlockingIOError):
            self._wake_out.send(b"x")

    def run(self) -> None:
        """Serve until stopped."""
        try:
            while not self._stopped:
                for key, _ in self._selector.select():
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is not self._wake_in and not self._stopped:
                        self._receive(key.fileobj)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        finally:
            for sock in [*self._inbox, self._listener, self._wake_in, self._wake_out]:
                sock.close()
            self._selector.close()
            self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(SEND_TIMEOUT_S)
        hello = Hello(1, os.getpid(), self.name, self.model.task, self.model.labels_, self.curve.batch_max, self.curve.item_ms, self.curve.fixed_ms)
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
            data = sock.recv(1 << 20)
            if not data:
                self._drop(sock)
                return
            inbox = self._inbox[sock]
            inbox += data
            while len(inbox) >= 4 and not self._stopped:
                size = int.from_bytes(inbox[:4], "big")
                if size > FRAME_MAX_BYTES:
                    log.warning("a frame of %d bytes: its caller was dropped", size)
                    self._drop(sock)
                    return
                if len(inbox) < 4 + size:
                    return
                ask = self._decoder.decode(memoryview(inbox)[4 : 4 + size])
                del inbox[: 4 + size]
                sock.sendall(pack(self.answer(ask)))
        except (OSError, msgspec.MsgspecError) as e:
            log.warning("a caller was dropped: %s", e)
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        del self._inbox[sock]
        sock.close()

    def answer(self, ask: Ask) -> Answer:
        """Predict one batch; when the batch fails, each text alone, so that only the guilty one has an error."""
        start = time.perf_counter()
        errors: dict[int, dict[str, Any]] = {}
        outputs: list[Output | None]
        try:
            outputs = [*self._predict(ask)]
        except Exception:  # whatever a model raises: the replica lives on and the callers are told
            log.exception("a batch of %d failed, trying one by one", len(ask.texts))
            outputs = [self._alone(ask, i, errors) for i in range(len(ask.texts))]
        return Answer(ask.id, outputs, errors, (time.perf_counter() - start) * 1000)

    def _predict(self, ask: Ask) -> list[Output]:
        outputs = self.model.match(ask.texts, ask.texts_b, top_k=ask.top_k) if ask.texts_b else self.model.predict(ask.texts, top_k=ask.top_k)
        if len(outputs) != len(ask.texts):
            raise Broken("serve.model-failed", model=self.name, kind=f"{len(outputs)} answers for {len(ask.texts)} texts")
        return outputs

    def _alone(self, ask: Ask, index: int, errors: dict[int, dict[str, Any]]) -> Output | None:
        try:
            return self._predict(Ask(ask.id, ask.texts[index : index + 1], ask.top_k, ask.texts_b[index : index + 1]))[0]
        except WenfangError as e:  # what a family refuses by name (a pair asked of a tagger) is the caller's to know
            errors[index] = from_error(e)
            return None
        except Exception as e:  # the text's own error, named by kind only: a message may hold the text
            errors[index] = from_error(Broken("serve.model-failed", model=self.name, kind=type(e).__name__))
            return None


def serve(model: Predictor, arguments: Mapping[str, Any]) -> None:
    """Serve ``model`` on ``arguments["socket"]`` until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    server = Server(
        model, Path(arguments["socket"]), name=str(arguments.get("name", "")), batch_max=int(arguments.get("batch_max", 8)), budget_s=float(arguments.get("budget_s", 1.5))
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    log.info("serving %s: %s", server.name, server.curve)
    server.run()


def main(arguments: dict[str, Any]) -> None:
    """Entry of a ``replica`` process.

    Args:
        arguments: ``bundle`` (folder of the unpacked, signed bundle), ``socket``, ``keys`` (folder of trusted public keys),
            ``name`` (what it serves), ``batch_max``.

    Raises:
        Broken: `signature.bad` and whatever else `open_bundle` finds wrong.
    """
    from wenfang.guard.keys import TrustedKeys
    from wenfang.models.bundle import open_bundle

    _, model = open_bundle(Path(arguments["bundle"]), verifier=TrustedKeys(Path(arguments["keys"])))
    serve(model, arguments)
