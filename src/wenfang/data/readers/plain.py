"""Plain lines: ``text<TAB>label``, ``label<TAB>text`` or only a text on each line; no header, no quoting."""

from __future__ import annotations

from ._delimited import Delimited

__all__ = ["Plain"]


class Plain(Delimited):
    """Reads plain lines; which of two columns is the text is guessed from their contents."""

    suffixes = (".txt", ".text", ".dat")
    generic = True
    may_have_header = False

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """Any text is plain lines if nothing else fits."""
        return 0.3 if head else 0.0

    def dialect(self, head: str) -> tuple[str, bool]:
        """Tab; no quoting."""
        del head
        return "\t", False
