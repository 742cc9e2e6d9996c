"""Every way of going wrong, as one tree.

* WenfangError
  - Invalid          422  the request or the data is not right; the caller can mend it
  - Unauthenticated  401  nobody said who is asking
  - Denied           403  known, but not allowed
  - NotFound         404  no such thing; the nearest names are offered
  - Conflict         409  the present state forbids it
  - Busy             429  full for now; ``retry_after_s`` says when to come back
  - Unsupported      501  not built, or a library is missing
  - Broken           500  our fault, or the machine's (disk full, damaged file)

An error is a stable ``code`` (``noun.what-went-wrong``) and the fields that its sentence needs. The sentence itself lives in
the catalogue (``core/words/<noun>.toml``), in Chinese and English, so every door can say it in the reader's language.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .words import hint, say

__all__ = ["BY_STATUS", "Broken", "Busy", "Conflict", "Denied", "Invalid", "NotFound", "Unauthenticated", "Unsupported", "WenfangError"]


class WenfangError(Exception):
    """One thing that went wrong, told so that a person can act on it.

    Args:
        code: ``noun.what-went-wrong``; must stand in the catalogue.
        fields: the values its sentence names; never a text of a user, a key or a personal datum.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Broken"

    def __init__(self, code: str, /, **fields: Any) -> None:
        super().__init__(code)
        self.code = code
        self.fields = fields

    def detail(self, lang: str | None = None) -> str:
        """What happened and what would have been right."""
        return say(self.code, lang, **self.fields)

    def hint(self, lang: str | None = None) -> str:
        """What to do next; empty if there is nothing to add."""
        return hint(self.code, lang, **self.fields)

    def problem(self, lang: str | None = None, request_id: str = "") -> dict[str, Any]:
        """The RFC 9457 document of this error."""
        body: dict[str, Any] = {
            "type": f"https://wenfang.invalid/errors#{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail(lang),
            "hint": self.hint(lang),
            "request_id": request_id,
            "errors": self.fields.get("errors", []),
        }
        if "retry_after_s" in self.fields:
            body["retry_after_s"] = self.fields["retry_after_s"]
        return body

    def __str__(self) -> str:
        tail = self.hint()
        return f"[{self.code}] {self.detail()}" + (f" {tail}" if tail else "")


class Invalid(WenfangError):
    """The request or the data is not right."""

    status = 422
    title = "Invalid"


class Unauthenticated(WenfangError):
    """Nobody said who is asking."""

    status = 401
    title = "Unauthenticated"


class Denied(WenfangError):
    """Known, but not allowed."""

    status = 403
    title = "Denied"


class NotFound(WenfangError):
    """No such thing."""

    status = 404
    title = "Not found"


class Conflict(WenfangError):
    """The present state forbids it."""

    status = 409
    title = "Conflict"


class Busy(WenfangError):
    """Full for now; pass ``retry_after_s``."""

    status = 429
    title = "Busy"


class Unsupported(WenfangError):
    """Not built, or a library is missing."""

    status = 501
    title = "Unsupported"


class Broken(WenfangError):
    """Our fault, or the machine's."""

    status = 500
    title = "Broken"


BY_STATUS: dict[int, type[WenfangError]] = {c.status: c for c in (Invalid, Unauthenticated, Denied, NotFound, Conflict, Busy, Unsupported, Broken)}
