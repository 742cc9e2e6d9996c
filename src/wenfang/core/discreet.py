"""Logs that quote nobody: of a foreign exception its type and places are told, not its words, which may be a user's text.

Our own errors are told whole, for they never hold one. ``WENFANG_DEBUG=1`` tells everything.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from types import TracebackType

from .errors import WenfangError

__all__ = ["Discreet", "begin_log", "told"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def told(e: BaseException) -> str:
    """The trace of an exception and of what caused it, the words of foreign ones left out.

    >>> told(ValueError("secret"))
    'ValueError (words left out)'
    """
    if os.environ.get("WENFANG_DEBUG") == "1":
        return "".join(traceback.format_exception(e)).rstrip()
    parts: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = e
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        name = type(at).__qualname__ if type(at).__module__ == "builtins" else f"{type(at).__module__}.{type(at).__qualname__}"
        places = "".join(traceback.format_tb(at.__traceback__))
        parts.append(places + (f"{name}: {at}" if isinstance(at, WenfangError) else f"{name} (words left out)"))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n\nThis led to:\n\n".join(reversed(parts))


class Discreet(logging.Formatter):
    """Lines of a log, traces as ``told`` tells them."""

    def formatException(self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]) -> str:  # noqa: N802 logging's own name
        """The trace of a record."""
        return "" if ei[1] is None else told(ei[1])


def begin_log() -> None:
    """Have this process log to stderr, uncaught exceptions of all threads included; a second call changes nothing."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Discreet(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)


def _uncaught(kind: type[BaseException], e: BaseException, trace: TracebackType | None) -> None:  # noqa: ARG001 the signature of a hook
    if not issubclass(kind, SystemExit):
        print(told(e), file=sys.stderr, flush=True)  # noqa: T201 stderr is the log of this process
