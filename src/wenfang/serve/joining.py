"""Texts of many callers that one replica writes together: each joins between two steps of the others and leaves when it is written.

Knows nothing of sockets' contents or models beyond their ports. Prompts are read between two steps, few at a time, so that those who
are being written hardly wait.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from wenfang.core.conversation import Generation
from wenfang.core.errors import Broken, WenfangError
from wenfang.core.examples import Output
from wenfang.core.frames import from_error

from .wire import Answer, Ask, Piece

__all__ = ["SIGN_OF_LIFE_S", "SLOTS", "Joiner", "Joint"]

SIGN_OF_LIFE_S = 0.5
READING_S = 0.03
"""Between two steps, after which no further prompt is read: those who are being written wait for that and the last reading."""
SLOTS = 32
"""Texts that a caller may have with one replica at once."""
_AS_IT_IS = Generation()
log = logging.getLogger("wenfang.replica")


class Joint(Protocol):
    """Texts that are written side by side: ``wenfang.models.generation`` has one."""

    @property
    def full(self) -> bool:
        """Whether no further text should join now."""
        ...

    def add(self, text: str, asked: Generation, tell: Callable[[str], object]) -> int:
        """Begin a text; its number. Its pieces are told while it is written."""
        ...

    def drop(self, number: int) -> None:
        """Nobody wants it any more."""
        ...

    def step(self) -> list[tuple[int, Output]]:
        """Go on with all; those that are written now."""
        ...


class _Question:
    """An ``Ask``: what is answered of it, and when its caller heard of it last."""

    def __init__(self, sock: socket.socket, ask: Ask) -> None:
        self.sock, self.ask = sock, ask
        self.outputs: list[Output | None] = [None] * len(ask.texts)
        self.errors: dict[int, dict[str, Any]] = {}
        self.left = len(ask.texts)
        self.ms = 0.0
        self.said_at = time.perf_counter()
        self.told = [0] * len(ask.texts)
        """Pieces of each text, whoever heard them."""
        self.streamed = frozenset(ask.stream)


class _Text:
    """One text of a question."""

    def __init__(self, question: _Question, index: int) -> None:
        self.question, self.index = question, index
        self.written = False
        """Pieces are out: it cannot be tried again."""
        self.suspect: Exception | None = None
        """What was raised while it was being written with others: it is tried once more alone."""


class Joiner:
    """The texts of one replica.

    Args:
        make: an empty joint.
        say: sends a frame to a caller; False: it has gone.
        name: what is served, for errors.
    """

    def __init__(self, make: Callable[[], Joint], say: Callable[[socket.socket, Answer | Piece], bool], *, name: str) -> None:
        self._make, self._say, self._name = make, say, name
        self._joint = make()
        self._questions: dict[tuple[socket.socket, int], _Question] = {}
        self._waiting: deque[_Text] = deque()
        self._suspects: deque[_Text] = deque()
        self._open: dict[int, _Text] = {}
        self._dropped: list[int] = []
        """Not wanted any more, perhaps since the middle of a step."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._open or self._waiting or self._suspects)

    @property
    def writing(self) -> bool:
        """Whether texts are in the making."""
        return bool(self._open or self._suspects)

    def ask(self, sock: socket.socket, ask: Ask) -> None:
        """Take a question in."""
        question = self._questions[sock, ask.id] = _Question(sock, ask)
        self._waiting.extend(_Text(question, index) for index in range(len(ask.texts)))
        if not ask.texts:
            self._answer(question)

    def cancel(self, sock: socket.socket, number: int) -> None:
        """Nobody wants the answer; it is given at once, empty where it is not done."""
        question = self._questions.get((sock, number))
        if question is not None:
            self._answer(question)

    def gone(self, sock: socket.socket) -> None:
        """A caller has left."""
        for question in [q for q in self._questions.values() if q.sock is sock]:
            self._forget(question)

    def turn(self) -> None:
        """Begin the next texts, then one step of all; what goes wrong is told to whom it belongs."""
        while self._dropped:
            self._joint.drop(self._dropped.pop())
        alone = bool(self._suspects) or any(text.suspect is not None for text in self._open.values())
        if alone and not self._open:
            self._begin(self._suspects.popleft())
        until = time.perf_counter() + READING_S
        while not alone and self._waiting and not self._joint.full:
            self._begin(self._waiting.popleft())
            if time.perf_counter() > until:
                break
        if self._open:
            self._step()
        self._live()

    # ------------------------------------------------------------ writing
    def _begin(self, text: _Text) -> None:
        question, index = text.question, text.index
        options = question.ask.options
        start = time.perf_counter()
        try:
            number = self._joint.add(question.ask.texts[index], (options[index] if options else None) or _AS_IT_IS, lambda piece: self._tell(text, piece))
        except Exception as e:  # whatever a model raises: the replica lives on and the caller is told
            self._failed(text, e)
        else:
            self._open[number] = text
        question.ms += (time.perf_counter() - start) * 1000

    def _step(self) -> None:
        start = time.perf_counter()
        texts = list(self._open.values())
        try:
            done = self._joint.step()
        except Exception as e:  # one of them did it: each that nobody has seen a piece of is tried alone
            log.exception("%d texts failed together", len(texts))
            self._joint, self._open, self._dropped = self._make(), {}, []
            for text in texts:
                if text.written or text.suspect is not None or len(texts) == 1:
                    self._failed(text, e)
                else:
                    text.suspect = e
                    self._suspects.append(text)
            return
        share_ms = (time.perf_counter() - start) * 1000 / len(texts)
        for text in texts:
            text.question.ms += share_ms
        for number, output in done:
            text = self._open.pop(number, None)  # its caller may have gone in the middle of the step
            if text is not None:
                text.question.outputs[text.index] = output
                self._done(text.question)

    def _failed(self, text: _Text, error: Exception) -> None:
        if not isinstance(error, WenfangError):  # named by kind only: a message may hold the text
            log.error("a text failed: %s", type(error).__name__)
            error = Broken("serve.model-failed", model=self._name, kind=type(error).__name__)
        text.question.errors[text.index] = from_error(error)
        self._done(text.question)

    def _done(self, question: _Question) -> None:
        question.left -= 1
        if not question.left:
            self._answer(question)

    # ------------------------------------------------------------ telling
    def _answer(self, question: _Question) -> None:
        self._forget(question)
        self._say(question.sock, Answer(question.ask.id, question.outputs, question.errors, question.ms, question.told if question.left else []))

    def _forget(self, question: _Question) -> None:
        self._questions.pop((question.sock, question.ask.id), None)
        for number in [n for n, text in self._open.items() if text.question is question]:
            del self._open[number]
            self._dropped.append(number)
        for queue in (self._waiting, self._suspects):
            if any(text.question is question for text in queue):
                kept = [text for text in queue if text.question is not question]
                queue.clear()
                queue.extend(kept)

    def _tell(self, text: _Text, piece: str) -> None:
        question = text.question
        question.told[text.index] += bool(piece)
        if piece and text.index in question.streamed:
            text.written = True
            question.said_at = time.perf_counter()
            self._say(question.sock, Piece(question.ask.id, text.index, piece))

    def _live(self) -> None:
        """Tell those who have heard nothing for a while that work goes on, or that they wait for their turn."""
        now = time.perf_counter()
        silent = [q for q in self._questions.values() if now - q.said_at > SIGN_OF_LIFE_S]
        begun = {id(text.question): text.index for text in self._open.values()} if silent else {}
        for question in silent:
            question.said_at = now
            self._say(question.sock, Piece(question.ask.id, begun.get(id(question), -1), ""))
