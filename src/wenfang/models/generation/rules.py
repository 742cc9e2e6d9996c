"""What one caller asks of one text, as rules over the next token: lengths, forbidden words, repetition, stop strings, JSON. Knows nothing of networks.

Rules of numbers change scores at once; rules of words are asked only about tokens that would be taken. All speak in bytes, so that a
token may be half a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .json_schema import Schema, State

__all__ = ["Line", "Rules", "Speech"]

Floats = npt.NDArray[np.floating]
NEVER = np.float32(-np.inf)


class Speech:
    """What tokens say.

    Args:
        pieces: V byte strings; empty for marks and for what must not be written.
        ends: tokens that end a text.
        blank_first: the first blank of a text is the tokeniser's, not the writer's.
        words: which tokens begin a word, where blanks are not written: one stands between words of letters and digits, none beside other signs.
    """

    def __init__(self, pieces: Sequence[bytes], ends: Sequence[int], *, blank_first: bool = False, words: Sequence[bool] | None = None) -> None:
        self.pieces = pieces
        self._words = words
        self.ends = frozenset(ends)
        self.blank_first = blank_first
        self.first = np.array([p[0] if p else 256 for p in pieces], np.int16)
        """First byte of each piece; 256: it says nothing."""
        self.whole = frozenset(p for p in pieces if p)
        self.single = frozenset(p[0] for p in self.whole if len(p) == 1)
        """Bytes that stand alone: with all of them anything can be spelled."""
        self.mute = np.flatnonzero((self.first == 256) & ~np.isin(np.arange(len(pieces)), sorted(self.ends)))

    def piece(self, said: bytes, token: int) -> bytes:
        """What a token says behind ``said``."""
        piece = self.pieces[token]
        if self._words is not None and self._words[token] and said[-1:].isalnum() and piece[:1].isalnum():
            return b" " + piece
        return piece

    def text(self, said: bytes) -> str:
        """Whole characters of ``said``; what is no UTF-8 shows as U+FFFD."""
        text = said.decode("utf-8", "replace")
        return text.removeprefix(" ") if self.blank_first else text


@dataclass(frozen=True, slots=True)
class Line:
    """A text in the making; never changes, so that beams may share it."""

    ids: tuple[int, ...] = ()
    said: bytes = b""
    state: State | None = None
    """Of its JSON."""
    logprob: float = 0.0
    """Sum over its tokens, under the rules."""
    logprobs: tuple[float, ...] = ()
    """Of each token, as the network gave it; only when asked for."""


@dataclass(frozen=True, slots=True)
class Rules:
    """All that holds for one text."""

    speech: Speech
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    penalty: float = 1.0
    no_repeat: int = 0
    stop: tuple[bytes, ...] = ()
    forbidden: tuple[bytes, ...] = ()
    schema: Schema | None = None
    seed: int | None = None
    logprobs: bool = False

    def start(self) -> Line:
        """Nothing said yet."""
        return Line(state=None if self.schema is None else self.schema.start)

    def adjusted(self, line: Line, scores: Floats) -> Floats:
        """Scores of the next token after every rule of numbers, shape (V,); the scores given stay as they are."""
        speech, ends = self.speech, list(self.speech.ends)
        z = scores.astype(np.float64)
        if self.penalty != 1.0 and line.ids:
            seen = np.unique(np.array([i for i in line.ids if i not in speech.ends], np.int64))
            z -= z.max() + np.log(np.exp(z - z.max()).sum())
            z[seen] *= self.penalty  # log probabilities are negative: above 1 makes them smaller
        z[speech.mute] = NEVER
        if self.no_repeat and len(line.ids) >= self.no_repeat:
            z[self._repeats(line.ids)] = NEVER
        if self.schema is not None and line.state is not None:
            first = self.schema.first_bytes(line.state)
            z[~np.isin(speech.first, list(first)) & ~np.isin(np.arange(len(z)), ends)] = NEVER
            if not self.schema.ended(line.state):
                z[ends] = NEVER
        elif len(line.ids) < self.min_tokens:
            z[ends] = NEVER
        return z.astype(np.float32)

    def _repeats(self, ids: tuple[int, ...]) -> list[int]:
        """Tokens that would say an n-gram again."""
        n = self.no_repeat
        last = ids[len(ids) - n + 1 :]
        return [ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == last]

    def extended(self, line: Line, token: int) -> Line | None:
        """The line with one more token; None: a word of it is forbidden, or it could not become JSON in the tokens that are left."""
        piece = self.speech.piece(line.said, token)
        said = line.said + piece
        if any(said.rfind(word, max(0, len(line.said) - len(word) + 1)) >= 0 for word in self.forbidden):
            return None
        state = line.state
        if self.schema is not None and state is not None:
            state = self.schema.after(state, piece)
            if state is None or self.schema.needs(state) > self.max_tokens - len(line.ids) - 1:
                return None
        return Line((*line.ids, token), said, state, line.logprob, line.logprobs)

    def stopped(self, line: Line) -> int | None:
        """Where the first stop string begins in what was said, in bytes; None: there is none."""
        found = [at for word in self.stop if (at := line.said.find(word)) >= 0]
        return min(found, default=None)

    def whole(self, line: Line) -> bool:
        """Whether the JSON is complete, so that nothing may follow."""
        return line.state == ()

    def certain(self, said: bytes) -> int:
        """How many bytes will stand whatever comes: not half a character, not what may be the beginning of a stop string."""
        end = len(said)
        for back in range(1, min(4, end) + 1):
            byte = said[end - back]
            if byte >= 0xC0:  # the first byte of a character: is it whole?
                if back < 2 + (byte >= 0xE0) + (byte >= 0xF0):
                    end -= back
                break
            if byte < 0x80:
                break
        for word in self.stop:
            for n in range(min(len(word) - 1, len(said)), 0, -1):
                if said.endswith(word[:n]):
                    end = min(end, len(said) - n)
                    break
        return end
