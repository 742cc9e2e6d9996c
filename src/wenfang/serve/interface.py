"""What a service takes and gives, as plain values: questions, parameters with their ranges, answers, an example. Made of the task and the labels of
the model version that answers, and of nothing else, so that equal versions have equal interfaces. Knows nothing of HTTP, gRPC or Python clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from wenfang.core.conversation import ROLES, Generation
from wenfang.core.records import GraphVersion, ModelVersion

__all__ = [
    "INPUTS_MAX", "LABELS_LISTED", "TEXT_MAX_CHARS", "TOP_K_MAX", "WRITING", "ByName", "Interface", "Kind", "Many", "Part", "Scalar", "Shape", "interface_of", "interface_with",
]  # fmt: skip

INPUTS_MAX = 1024
TEXT_MAX_CHARS = 50_000
TOP_K_MAX = 100
LABELS_LISTED = 1000
"""A model version with as many labels or more does not list them in its interface: they are any string."""
WRITING = frozenset({"generation", "chat"})
"""Tasks whose answers are written."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value of JSON; ``object`` is any."""

    kind: Literal["string", "integer", "number", "boolean", "object"]
    least: float | None = None
    most: float | None = None
    above: float | None = None
    """Greater than this, not equal."""
    length_max: int | None = None
    """Of a string, in code points."""
    names: tuple[str, ...] = ()
    """It is one of these; none: any."""


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    of: Kind
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class ByName:
    """An object with names of its own, such as labels."""

    of: Kind


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a shape."""

    name: str
    number: int
    """In binary messages; once given, it stands for this field alone."""
    kind: Kind
    says: str
    required: bool = False
    default: Any = None
    """What it counts as where it is left out."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An object with fields known beforehand."""

    name: str
    says: str
    parts: tuple[Part, ...]


Kind = Scalar | Many | ByName | Shape


@dataclass(frozen=True, slots=True)
class Interface:
    """Of one service as one model version answers it."""

    service: str
    model: str
    """``name:number`` of the version."""
    task: str
    labels: tuple[str, ...]
    """Those that are listed; see ``LABELS_LISTED``."""
    question: Shape
    parameters: Shape
    answer: Shape
    asked: dict[str, Any]
    """A request that is right."""
    answered: dict[str, Any]
    """What an answer to it looks like."""

    @property
    def bare(self) -> bool:
        """Whether a question may be a string alone."""
        return all(p.name == "text" or not p.required for p in self.question.parts)

    @property
    def request(self) -> Shape:
        """What is sent."""
        parts = [
            Part("inputs", 1, Many(self.question, 1, INPUTS_MAX), "what is asked, answered in this order", required=True),
            Part("parameters", 2, self.parameters, "how it shall be answered"),
        ]
        if self.task in WRITING:
            parts.append(Part("stream", 3, _flag, "texts come while they are written", default=False))
        return Shape("PredictRequest", "Questions for the service.", tuple(parts))

    @property
    def reply(self) -> Shape:
        """What comes back."""
        parts = (
            Part("outputs", 1, Many(self.answer), "one answer for each question, in order", required=True),
            Part("model", 2, _string, "name:number of the model version that answered", required=True),
            Part("id", 3, _string, "of the request, for logs", required=True),
        )
        return Shape("PredictReply", "Answers of the service.", parts)


_string = Scalar("string")
_text = Scalar("string", length_max=TEXT_MAX_CHARS)
_flag = Scalar("boolean")
_count = Scalar("integer", least=0)
_share = Scalar("number", least=0, most=1)
_cosine = Scalar("number", least=-1, most=1)
_PAIRED = Part("text_b", 2, _text, "second text of the pair", required=True)
_MESSAGE = Shape(
    "Message",
    "One turn of a conversation.",
    (Part("role", 1, Scalar("string", names=ROLES), "who speaks", required=True), Part("content", 2, _string, "what is said", required=True)),
)
_SAYS = {
    "max_tokens": (1, "tokens at most"),
    "min_tokens": (2, "tokens at least"),
    "temperature": (3, "0: always the likeliest token"),
    "top_p": (4, "share of the probability that is drawn from"),
    "top_k": (5, "tokens that are drawn from; 0: all"),
    "beams": (6, "texts that are followed at once"),
    "repetition_penalty": (7, "divides the odds of tokens that already stand there; 1: none"),
    "no_repeat": (8, "an n-gram of so many tokens never comes twice; 0: it may"),
    "stop": (9, "the text ends before any of these"),
    "forbidden": (10, "words that must not come"),
    "json_schema": (11, "the text is JSON of this schema"),
    "seed": (12, "equal seed, equal text"),
    "logprobs": (13, "tell the logarithm of each token's probability"),
}
"""Number and sentence of what may be asked of generation; its ranges are those of ``Generation``."""


def interface_of(service: str, *, model: str, task: str, labels: Sequence[str]) -> Interface:
    """The interface of a service.

    Args:
        service: its name.
        model: ``name:number`` of the version that answers.
        task: of that version.
        labels: of that version; L of them.

    Cost: as many steps as there are labels.

    >>> interface_of("intent", model="intent:3", task="classification", labels=["退款", "物流"]).asked
    {'inputs': ['今天天气很好'], 'parameters': {'top_k': 2}}
    """
    listed = tuple(labels) if len(labels) < LABELS_LISTED else ()
    label = Scalar("string", names=listed)
    parts, answered = _answer(task, label, few=len(labels))
    asked: dict[str, Any] = {"inputs": [_example(task)]}
    if task not in WRITING | {"embedding"} and labels:
        asked["parameters"] = {"top_k": min(len(labels), 2)}
    if task in WRITING:
        asked["parameters"] = {"max_tokens": 64}
    reply = {"outputs": [answered], "model": model, "id": "rq_01jd3kexample0123456789abc"}
    return Interface(service, model, task, listed, _question(task), _parameters(task), Shape("Answer", "What the service says to one question.", parts), asked, reply)


def interface_with(service: str, version: ModelVersion | GraphVersion) -> Interface:
    """What ``service`` takes and gives when ``version`` answers."""
    return interface_of(service, model=f"{version.name}:{version.number}", task=version.task, labels=version.labels)


def _example(task: str) -> Any:
    match task:
        case "matching":
            return {"text": "怎么退货", "text_b": "如何申请退款"}
        case "chat":
            return {"messages": [{"role": "user", "content": "你好"}]}
        case "tagging":
            return "我在北京"
        case _:
            return "今天天气很好"


def _question(task: str) -> Shape:
    text = Part("text", 1, _text, "the text", required=True)
    match task:
        case "matching":
            return Shape("Question", "A pair of texts.", (text, _PAIRED))
        case "embedding":
            return Shape("Question", "A text, or a pair whose likeness is asked.", (text, Part("text_b", 2, _text, _PAIRED.says)))
        case "chat":
            either = Part("text", 1, _text, "a conversation of one message")
            return Shape("Question", "A conversation: its messages, or a text alone.", (either, Part("messages", 3, Many(_MESSAGE, 1), "oldest first")))
        case _:
            return Shape("Question", "A text.", (text,))


def _parameters(task: str) -> Shape:
    if task in WRITING:
        ranges = {f.name: f for f in msgspec.structs.fields(Generation)}
        parts = tuple(Part(name, number, _asked(ranges[name].type), says) for name, (number, says) in _SAYS.items())
        return Shape("Parameters", "What is asked of the text; what is left out is as the model version was set.", parts)
    top_k = Part("top_k", 1, Scalar("integer", least=1, most=TOP_K_MAX), "answers to choose from, with their probabilities", default=1)
    return Shape("Parameters", "How it shall be answered.", (top_k,))


def _asked(annotation: Any) -> Kind:
    """The kind of a field of ``Generation``."""
    found: Any = msgspec.inspect.type_info(annotation)
    if isinstance(found, msgspec.inspect.UnionType):
        found = next(t for t in found.types if not isinstance(t, msgspec.inspect.NoneType))
    match found:
        case msgspec.inspect.IntType(gt=_, ge=least, le=most):
            return Scalar("integer", least=least, most=most)
        case msgspec.inspect.FloatType(gt=above, ge=least, le=most):
            return Scalar("number", least=least, most=most, above=above)
        case msgspec.inspect.BoolType():
            return _flag
        case msgspec.inspect.VarTupleType():
            return Many(_string)
        case _:
            return Scalar("object")


def _answer(task: str, label: Scalar, *, few: int) -> tuple[tuple[Part, ...], dict[str, Any]]:
    """Fields of an answer, and an example of one."""
    first = label.names[0] if label.names else "A"
    score = Part("score", 2, _share, "probability; left out by a model that knows none", default=0.0)
    scores = Part("scores", 3, ByName(_share), "the likeliest labels with their probabilities, where top_k asks for several")
    several: dict[str, Any] = {"scores": dict(zip(label.names[:2], (0.75, 0.25), strict=False))} if len(label.names) > 1 else {}
    match task:
        case "classification":
            return (Part("label", 1, label, "the likeliest label", required=True), score, scores), {"label": first, "score": 0.75, **several}
        case "multilabel":
            labels = Part("labels", 1, Many(label), "every label that holds, the likeliest first; perhaps none", required=True)
            return (labels, Part("score", 2, _share, "of the least sure decision", default=0.0), scores), {"labels": [first], "score": 0.75, **several}
        case "matching" if few:
            return (Part("label", 1, label, "of the pair", required=True), score, scores), {"label": first, "score": 0.75, **several}
        case "matching":
            return (Part("score", 2, _share, "grade of the pair", required=True),), {"score": 0.75}
        case "tagging":
            return _tagged(label), {"spans": [{"start": 2, "end": 4, "label": first, "text": "北京"}], "score": 0.75}
        case "embedding":
            vector = Part("vector", 1, Many(Scalar("number")), "of a text; its length is one")
            used = Part("tokens_in", 3, _count, "tokens that were read")
            return (vector, Part("score", 2, _cosine, "cosine of a pair"), used), {"vector": [0.6, 0.8]}
        case _:
            return _written(), {"text": "你好", "finish": "stop", "tokens_in": 2, "tokens_out": 2}


def _tagged(label: Scalar) -> tuple[Part, ...]:
    place = Scalar("integer", least=0)
    span = Shape(
        "Span",
        "A labelled piece of a text; places are code points.",
        (
            Part("start", 1, place, "its first", required=True),
            Part("end", 2, place, "behind its last", required=True),
            Part("label", 3, label, "what it is", required=True),
            Part("text", 4, _string, "the piece itself", required=True),
            Part("score", 5, _share, "probability of the span"),
        ),
    )
    spans = Part("spans", 1, Many(span), "in the order of the text", required=True)
    other = Shape("Alternative", "One way to read a text.", (spans, Part("score", 2, _share, "probability that these are all", required=True)))
    score = Part("score", 2, _share, "probability of the whole reading; left out by a model that knows none", default=0.0)
    return spans, score, Part("alternatives", 3, Many(other), "the likeliest readings, where top_k asks for several")


def _written() -> tuple[Part, ...]:
    reply = Shape("Reply", "A reply that was considered.", (Part("text", 1, _string, "what it says", required=True), Part("score", 2, _cosine, "its probability", required=True)))
    return (
        Part("text", 1, _string, "what was written; left out where there is no good enough reply"),
        Part("finish", 2, Scalar("string", names=("stop", "length", "none")), "why it ends"),
        Part("tokens_in", 3, _count, "tokens that were read"),
        Part("tokens_out", 4, _count, "tokens that were written"),
        Part("logprobs", 5, Many(Scalar("number")), "of each token, where asked for"),
        Part("score", 6, _cosine, "of the reply, where it comes from a library"),
        Part("replies", 7, Many(reply), "replies that were considered, best first"),
    )
