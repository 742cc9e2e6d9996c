"""What stands in a request message and in its reply, as JSON or msgpack (``content-type``). A reply is what ``/predict`` answers, with the correlation id."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from wenfang.core.errors import Invalid
from wenfang.core.ids import now
from wenfang.core.messages import Message, checked_queue
from wenfang.serve.turns import RANKS

__all__ = ["Question", "dead_letter", "digest", "failure", "read_question", "reply", "sealed"]

JSON = "application/json"
MSGPACK = "application/msgpack"
KINDS = {JSON: JSON, "text/json": JSON, "": JSON, MSGPACK: MSGPACK, "application/x-msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK}
ID_MAX_CHARS = 200


class _Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the body of a request message may hold."""

    inputs: Any
    parameters: dict[str, Any] = {}
    id: str = ""
    reply_to: str = ""
    correlation_id: str = ""
    deadline: datetime | None = None
    priority: str = "batch"


class Question(msgspec.Struct, frozen=True):
    """A request message as it was read."""

    id: str
    correlation_id: str
    reply_to: str
    priority: str
    deadline: datetime | None
    kind: str
    """Content type; of the reply too."""
    body: bytes
    """What ``/predict`` is asked."""

    def left_s(self) -> float | None:
        """Until the deadline; None: there is none."""
        return None if self.deadline is None else (self.deadline - now()).total_seconds()


_canonical = msgspec.json.Encoder(order="deterministic")
_decoders = {JSON: msgspec.json.Decoder(_Sent), MSGPACK: msgspec.msgpack.Decoder(_Sent)}
_encoders: dict[str, Any] = {JSON: msgspec.json.Encoder(), MSGPACK: msgspec.msgpack.Encoder()}


def read_question(message: Message, replies: str) -> Question:
    """The question in a message.

    Args:
        message: as it came; headers stand for fields that the body leaves out.
        replies: the queue of replies; a message may name it, or one whose name goes on behind it and a dot.

    Raises:
        Invalid: `queue.wrong-content-type`, `queue.unreadable`, `queue.no-id`, `queue.bad-field`, `queue.reply-to-elsewhere`.
    """
    given = message.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = KINDS.get(given)
    if kind is None:
        raise Invalid("queue.wrong-content-type", got=given[:80])
    try:
        read = _decoders[kind].decode(message.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Invalid("queue.unreadable", kind=kind, reason=str(e)[:200] if isinstance(e, msgspec.ValidationError) else "it does not parse") from e
    try:
        body = _canonical.encode({"inputs": read.inputs, **({"parameters": read.parameters} if read.parameters else {})})
    except (msgspec.MsgspecError, TypeError, UnicodeEncodeError, RecursionError) as e:
        raise Invalid("queue.unreadable", kind=kind, reason="inputs or parameters hold what JSON cannot say") from e
    headers = message.headers
    id, correlation_id = read.id or headers.get("id", ""), read.correlation_id or headers.get("correlation-id", "")
    asked = Question(id, correlation_id or id, read.reply_to or headers.get("reply-to", "") or replies, read.priority, read.deadline, kind, body)
    _check(asked, replies)
    return asked


def _check(asked: Question, replies: str) -> None:
    if not asked.id:
        raise Invalid("queue.no-id")
    for name, value in (("id", asked.id), ("correlation_id", asked.correlation_id)):
        if len(value) > ID_MAX_CHARS or not (value.isascii() and value.isprintable()):
            raise Invalid("queue.bad-field", name=name, expected=f"printable ASCII, at most {ID_MAX_CHARS} characters")
    if asked.priority not in RANKS:
        raise Invalid("queue.bad-field", name="priority", expected=", ".join(RANKS))
    if asked.deadline is not None and asked.deadline.tzinfo is None:
        raise Invalid("queue.bad-field", name="deadline", expected="a time with its zone, such as 2026-01-31T08:00:00Z")
    if asked.reply_to != replies and not asked.reply_to.startswith(f"{replies}."):
        raise Invalid("queue.reply-to-elsewhere", queue=ascii(asked.reply_to[:80]), allowed=replies)
    checked_queue(asked.reply_to)


def digest(asked: Question) -> bytes:
    """Of what is asked and of the form of the answer."""
    return hashlib.sha256(asked.kind.encode() + b"\n" + asked.body).digest()


def reply(asked: Question, answer: dict[str, Any]) -> Message:
    """The message that answers: ``answer`` is a document of ``/predict``, or ``{"error": …}``."""
    document = {**answer, "id": asked.id, "correlation_id": asked.correlation_id}
    return sealed(asked, _encoders[asked.kind].encode(document), 200 if "error" not in answer else int(answer["error"].get("status", 500)))


def sealed(asked: Question, body: bytes, status: int = 200) -> Message:
    """The bytes of a reply with their headers."""
    return Message(body, {"id": asked.id, "correlation-id": asked.correlation_id, "content-type": asked.kind, "status": str(status)})


def failure(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem document as the answer of a reply."""
    return {"error": {name: problem[name] for name in ("status", "code", "title", "detail", "hint") if name in problem}}


def dead_letter(message: Message, queue: str, problem: dict[str, Any], attempts: int) -> Message:
    """The message as it came, with why it is dead: ``reason`` is a code, ``detail`` its sentence in ASCII."""
    detail = str(problem.get("detail", "")).encode("ascii", "backslashreplace").decode()
    kept = {name: value for name, value in message.headers.items() if name in {"id", "correlation-id", "reply-to", "content-type"} and value.isascii() and value.isprintable()}
    told = {"reason": str(problem.get("code", "")), "detail": "".join(c if c.isprintable() else " " for c in detail)[:500], "queue": queue, "attempts": str(attempts)}
    return Message(message.body, {**{name: value[:1000] for name, value in kept.items()}, **told, "died-at": datetime.now(UTC).isoformat(timespec="seconds")})
