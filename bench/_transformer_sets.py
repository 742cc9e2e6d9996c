"""Real sets as examples, for the benches of the transformer family. Test files are not opened here."""

from __future__ import annotations

import json
import os
from pathlib import Path

from wenfang.core.examples import Examples, Span

__all__ = ["DATA", "cluener", "resume", "titles"]

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def titles(name: str, rows: int | None = None) -> Examples:
    """THUCNews titles."""
    lines = [line.rstrip("\n").split("\t") for line in open(DATA / "thucnews_titles" / f"{name}.txt", encoding="utf-8") if line.strip()]
    return Examples("classification", [t for t, _ in lines][:rows], [label for _, label in lines][:rows])


def resume(name: str) -> Examples:
    """Résumé entities from BMES characters."""
    texts: list[str] = []
    spans: list[tuple[Span, ...]] = []
    for block in (DATA / "resume_ner" / f"{name}.char.bmes").read_text(encoding="utf-8").strip().split("\n\n"):
        pairs = [line.split(" ") for line in block.split("\n")]
        found, start = [], 0
        for i, (_, tag) in enumerate(pairs):
            kind, _, label = tag.partition("-")
            if kind in {"B", "S"}:
                start = i
            if kind in {"E", "S"}:
                found.append(Span(start, i + 1, label))
        texts.append("".join(c for c, _ in pairs))
        spans.append(tuple(found))
    return Examples("tagging", texts, spans=spans)


def cluener(name: str) -> Examples:
    """CLUENER entities; of two that overlap the longer one stays."""
    texts: list[str] = []
    spans: list[tuple[Span, ...]] = []
    for line in open(DATA / "cluener2020" / f"{name}.json", encoding="utf-8"):
        row = json.loads(line)
        every = [Span(a, b + 1, label) for label, names in row["label"].items() for places in names.values() for a, b in places]
        kept: list[Span] = []
        for span in sorted(every, key=lambda s: (s.start - s.end, s.start, s.label)):
            if all(span.end <= k.start or k.end <= span.start for k in kept):
                kept.append(span)
        texts.append(row["text"])
        spans.append(tuple(sorted(kept, key=lambda s: s.start)))
    return Examples("tagging", texts, spans=spans)
