"""Tab-separated values. Quotes are letters like any other, unless the first fields that hold some are quoted as a spreadsheet does it."""

from __future__ import annotations

from ._delimited import Delimited

__all__ = ["Tsv"]


class Tsv(Delimited):
    """Reads TSV."""

    suffixes = (".tsv", ".tab")

    @classmethod
    def sniff(cls, head: bytes) -> float:
        """A tab in the first line: perhaps."""
        return 0.5 if b"\t" in head.split(b"\n", 1)[0] else 0.1

    def dialect(self, head: str) -> tuple[str, bool]:
        """Tab; quoted only if every field with a quote is wholly quoted."""
        cells = [cell for line in head.replace("\r\n", "\n").split("\n") if '"' in line for cell in line.split("\t") if '"' in cell]
        return "\t", bool(cells) and all(len(c) > 1 and c[0] == c[-1] == '"' and '"' not in c[1:-1].replace('""', "") for c in cells)
