"""From what a caller asks to rules, and from written texts to answers: alike for every network. Knows nothing of files or training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid
from wenfang.core.examples import Output
from wenfang.core.text import encodable
from wenfang.models.base import Emit

from .decoding import Batch, Tell, Written, write
from .json_schema import Schema
from .rules import Rules, Speech
from .stepping import Steps

__all__ = ["Habits", "Joint", "answer", "rules_of"]

AT_ONCE = 64
"""Texts that step together."""
JOINT_LINES = 64
"""Lines, beams counted, beyond which no further text joins."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a model version does where its caller says nothing."""

    max_tokens: int
    temperature: float = 0.0
    beams: int = 1
    repetition_penalty: float = 1.0
    no_repeat: int = 0
    min_tokens: int = 1
    """An empty answer is none: little training makes the end the likeliest first token."""


def rules_of(asked: Generation, habits: Habits, speech: Speech, *, room: int) -> Rules:
    """The rules of one text.

    Args:
        asked: by the caller.
        habits: of the model version.
        speech: what tokens say.
        room: tokens that fit behind the prompt.

    Raises:
        Invalid: `generation.schema-unsupported`, `generation.schema-wrong`, `generation.schema-too-long`, `generation.schema-unspellable`.
    """
    max_tokens = max(1, min(asked.max_tokens or habits.max_tokens, room))
    schema = None if asked.json_schema is None else _schema(asked, speech, max_tokens)
    return Rules(
        speech,
        max_tokens=max_tokens,
        min_tokens=min(max(asked.min_tokens, habits.min_tokens), max_tokens),
        temperature=habits.temperature if asked.temperature is None else asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        beams=asked.beams or habits.beams,
        penalty=habits.repetition_penalty if asked.repetition_penalty is None else asked.repetition_penalty,
        no_repeat=0 if schema is not None else habits.no_repeat if asked.no_repeat is None else asked.no_repeat,
        stop=tuple(encodable(word).encode() for word in asked.stop if word),
        forbidden=tuple(encodable(word).encode() for word in asked.forbidden if word),
        schema=schema,
        seed=asked.seed,
        logprobs=asked.logprobs,
    )


def _schema(asked: Generation, speech: Speech, max_tokens: int) -> Schema:
    schema = Schema(asked.json_schema or {})
    needed = schema.needs(schema.start)
    if needed > max_tokens:
        raise Invalid("generation.schema-too-long", needed=needed, max_tokens=max_tokens)
    if not all(byte in speech.single or char.encode() in speech.whole for char in schema.spelled() for byte in char.encode()):
        raise Invalid("generation.schema-unspellable")
    return schema


def answer(
    steps: Steps, prompt_of: Callable[[str], Sequence[int]], texts: Sequence[str], asked: Sequence[Generation], *, habits: Habits, speech: Speech, emit: Emit | None
) -> list[Output]:
    """Write a text for each source.

    Args:
        steps: the network.
        prompt_of: numbers of a source; at least one token of room is left behind them.
        texts: B sources.
        asked: B.
        habits: of the model version.
        speech: what tokens say.
        emit: told each piece.

    Raises:
        Invalid: as ``rules_of``.
    """
    prompts = [prompt_of(text) for text in texts]
    rules = [rules_of(a, habits, speech, room=steps.room(len(p))) for a, p in zip(asked, prompts, strict=True)]
    outputs: list[Output] = []
    for start in range(0, len(prompts), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        told = None if emit is None else _shifted(emit, start)
        for prompt, rule, written in zip(prompts[part], rules[part], write(steps, prompts[part], rules[part], told), strict=True):
            outputs.append(_output(written, len(prompt), rule))
    return outputs


def _shifted(emit: Emit, start: int) -> Emit:
    return lambda row, piece: emit(start + row, piece)


def _output(written: Written, tokens_in: int, rules: Rules) -> Output:
    return Output(text=written.text, finish=written.finish, tokens_in=tokens_in, tokens_out=written.tokens, logprobs=written.logprobs if rules.logprobs else None)


class Joint:
    """Texts of many callers that are written together: each may begin and end between any two steps.

    Args:
        steps: the network.
        prompt_of: numbers of a source.
        habits: of the model version.
        speech: what tokens say.
    """

    def __init__(self, steps: Steps, prompt_of: Callable[[str], Sequence[int]], *, habits: Habits, speech: Speech) -> None:
        self._steps, self._prompt_of, self._habits, self._speech = steps, prompt_of, habits, speech
        self._batch = Batch(steps)
        self._open: dict[int, tuple[int, Rules]] = {}

    @property
    def full(self) -> bool:
        """Whether more would make each step too slow."""
        return self._batch.lines >= JOINT_LINES

    def add(self, text: str, asked: Generation, tell: Tell) -> int:
        """Begin a text; its number.

        Raises:
            Invalid: as ``rules_of``.
        """
        prompt = self._prompt_of(text)
        rules = rules_of(asked, self._habits, self._speech, room=self._steps.room(len(prompt)))
        (number,) = self._batch.add([prompt], [rules], [tell])
        self._open[number] = (len(prompt), rules)
        return number

    def drop(self, number: int) -> None:
        """Nobody wants this text any more."""
        self._batch.drop({number})
        self._open.pop(number, None)

    def step(self) -> list[tuple[int, Output]]:
        """One more token of every text; returns those that are written."""
        return [(number, _output(written, *self._open.pop(number))) for number, written in self._batch.step()]
