"""Real questions to a replica, to know that it answers and not only that it lives. Knows nothing of how replicas are started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import BY_STATUS, Broken
from wenfang.core.examples import Output
from wenfang.core.frames import recv_frame, send_frame
from wenfang.core.places import connect
from wenfang.core.text import encodable

from .wire import Ask, Hello

__all__ = ["PROBES", "Probed", "probe", "vital"]

PROBES = ("你好，请问快递什么时候到？", "Where is my order?", "ありがとう 🙂", "1", "长" * 200)
"""Scripts, lengths and signs that every model must take."""
WRITTEN_TOKENS = 2
TIMEOUT_S = 60.0


class Probed(NamedTuple):
    """What came of looking whether a replica answers."""

    path: Path
    state: Literal["answers", "fails", "silent", "away"]
    """``away``: nobody listens there, or hung up."""
    hello: Hello | None = None


def probe(path: Path, texts: Sequence[str] = PROBES, *, timeout_s: float = TIMEOUT_S) -> list[Output]:
    """One answer for each text from the replica that listens on ``path``.

    A replica of a remote model is only asked for its hello: an answer of it costs money.

    Args:
        path: of its socket.
        texts: B strings; pairs are made of each text and itself.
        timeout_s: of silence.

    Raises:
        Broken: `process.not-answering`; `serve.model-failed` and whatever else it says of a text.
    """
    try:
        _, reply = _asked(path, texts, timeout_s)
    except (OSError, EOFError, msgspec.ValidationError) as e:
        raise Broken("process.not-answering", socket=path.name, reason=str(e)) from e
    if reply is None:
        return []
    for error in reply["errors"].values():
        raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
    return msgspec.convert(reply["outputs"], list[Output])


def vital(path: Path, *, patience_s: float) -> Probed:
    """Whether the replica that listens on ``path`` answers a question within ``patience_s`` of its last sign of life."""
    hello: Hello | None = None
    try:
        hello, reply = _asked(path, PROBES[:1], patience_s)
    except TimeoutError:
        return Probed(path, "silent", hello)
    except (OSError, EOFError):
        return Probed(path, "away")
    except msgspec.ValidationError:
        return Probed(path, "fails", hello)
    return Probed(path, "fails" if reply and reply["errors"] else "answers", hello)


def _asked(path: Path, texts: Sequence[str], timeout_s: float) -> tuple[Hello, dict[str, Any] | None]:
    """Its hello and its answer; None where answers cost money."""
    with connect(path, timeout_s) as sock:
        hello = msgspec.convert(recv_frame(sock), Hello)
        if not hello.steady:
            return hello, None
        send_frame(sock, question(hello, texts))
        while (reply := recv_frame(sock))["type"] == "piece":
            pass  # a sign of life
        return hello, reply


def question(hello: Hello, texts: Sequence[str], number: int = 0) -> Ask:
    """What a replica that says ``hello`` can be asked about ``texts``."""
    asked = [encodable(t) for t in texts]
    writes = hello.task in {"generation", "chat"}
    return Ask(number, asked, 1, asked if hello.task == "matching" else [], [Generation(max_tokens=WRITTEN_TOKENS)] * len(asked) if writes else [])
