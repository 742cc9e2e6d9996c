"""What is counted of a split while its rows stream by: hashes instead of texts, so that 100 million rows stay small.

12 bytes a row are kept (text hash and label code); duplicates and conflicts are found at the end, one sixteenth of the hash space
at a time. Knows nothing of files or of sentences for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .codepoints import SCRIPTS, points_of, scripts_of_rows
from .imported import LABELS

__all__ = ["Duplicates", "Tally", "same_id"]

LENGTH_MAX = 100_001
"""Lengths above are counted as this one."""
PIECE_ROWS = 50_000
EXAMPLES_MAX = 20
_PARTS = 16


@dataclass(slots=True)
class Duplicates:
    """Texts that stand more than once in a split."""

    texts: int = 0
    """Different texts that do."""
    rows: int = 0
    """Rows beyond the first of each."""
    conflict_texts: int = 0
    """Texts with more than one label."""
    conflict_rows: int = 0
    examples: list[list[int]] = field(default_factory=list[list[int]])
    """Lines of some of them."""
    conflict_examples: list[tuple[list[int], list[int]]] = field(default_factory=list[tuple[list[int], list[int]]])
    """(lines, label codes) of some conflicts."""


class Tally:
    """Counts of one split.

    Args:
        long_at: a text of more code points is over-long.
    """

    def __init__(self, long_at: int) -> None:
        self.long_at = long_at
        self.rows = 0
        self.over_long = 0
        self.labels: Counter[str] = Counter()
        self.codes: dict[str, int] = {}
        self.scripts: Counter[str] = Counter()
        self.replacement_rows = 0
        self.lengths: NDArray[np.int64] = np.zeros(LENGTH_MAX + 1, dtype=np.int64)
        self.length_max = 0
        self.text_bytes = 0
        self.code_points = 0
        self._hashes: list[NDArray[np.uint64]] = []
        self._label_codes: list[NDArray[np.uint32]] = []
        self._ids: list[NDArray[np.uint64]] = []
        self._runs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, frame: pl.DataFrame, lines: NDArray[np.int64]) -> None:
        """Count usable rows: ``text``, perhaps ``text_b``, the answer, perhaps ``id``."""
        text = frame["text"]
        asked = text if "text_b" not in frame.columns else frame.select(pl.concat_str("text", "text_b", separator="\x1f"))["text"]
        self._hashes.append(asked.hash(17).to_numpy())
        self._label_codes.append(self._codes_of(frame))
        if "id" in frame.columns:
            self._ids.append(frame["id"].hash(17).to_numpy())
        begins = np.flatnonzero(np.diff(lines, prepend=lines[:1] - 2) != 1)
        self._runs.append((begins + self.rows, lines[begins]))
        lengths = text.str.len_chars().to_numpy().astype(np.int64)
        self.lengths += np.bincount(np.minimum(lengths, LENGTH_MAX), minlength=LENGTH_MAX + 1)
        self.length_max = max(self.length_max, int(lengths.max(initial=0)))
        self.over_long += int((lengths > self.long_at).sum())
        self.text_bytes += int(text.str.len_bytes().sum())
        self.code_points += int(lengths.sum())
        for start in range(0, frame.height, PIECE_ROWS):
            texts = text.slice(start, PIECE_ROWS).to_list()
            self._letters(texts, lengths[start : start + PIECE_ROWS])
        self.rows += frame.height

    def _letters(self, texts: list[str], lengths: NDArray[np.int64]) -> None:
        points = points_of(texts)
        for index, n in enumerate(np.bincount(scripts_of_rows(texts, points, lengths), minlength=len(SCRIPTS))):
            self.scripts[SCRIPTS[index]] += int(n)
        places = np.flatnonzero(points == 0xFFFD)
        self.replacement_rows += len(np.unique(np.searchsorted(np.cumsum(lengths), places, side="right")))

    def _codes_of(self, frame: pl.DataFrame) -> NDArray[np.uint32]:
        if "target" in frame.columns:
            return frame["target"].hash(17).to_numpy().astype(np.uint32)
        if "label" not in frame.columns and "spans" not in frame.columns:
            return np.zeros(frame.height, np.uint32)
        if "label" not in frame.columns:
            spans = frame["spans"]
            counts = spans.explode(empty_as_null=False).struct.field("label").value_counts()
            self.labels.update(dict(zip(counts["label"].to_list(), counts["count"].to_list(), strict=True)))
            return spans.hash(17).to_numpy().astype(np.uint32)
        counts = frame["label"].value_counts(name="n")
        found: dict[str, int] = dict(zip(counts["label"].to_list(), counts["n"].to_list(), strict=True))
        for labels, n in found.items():
            self.labels.update(dict.fromkeys(filter(None, labels.split(LABELS)) if LABELS in labels or not labels else [labels], n))
        for label in sorted(found):
            self.codes.setdefault(label, len(self.codes))
        return frame["label"].replace_strict(self.codes, return_dtype=pl.UInt32).to_numpy()

    def _parts(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint32]]]:
        """(hashes, rows, label codes) of one part of the hash space after another."""
        parts = _PARTS if self.rows > 1_000_000 else 1
        for part in range(parts):
            hashes: list[NDArray[np.uint64]] = []
            rows: list[NDArray[np.int64]] = []
            codes: list[NDArray[np.uint32]] = []
            begun = 0
            for h, c in zip(self._hashes, self._label_codes, strict=True):
                at = np.flatnonzero((h >> np.uint64(60)) % np.uint64(parts) == part)
                hashes.append(h[at])
                rows.append(at + begun)
                codes.append(c[at])
                begun += len(h)
            if hashes:
                yield np.concatenate(hashes), np.concatenate(rows), np.concatenate(codes)

    def line_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n) line in the file of each row of the split."""
        if not len(rows):
            return rows
        begins = np.concatenate([b for b, _ in self._runs])
        lines = np.concatenate([line for _, line in self._runs])
        run = np.searchsorted(begins, rows, side="right") - 1
        return lines[run] + rows - begins[run]

    def duplicates(self) -> Duplicates:
        """Equal texts, and those among them with different labels."""
        found = Duplicates()
        same: list[NDArray[np.int64]] = []
        differing: list[tuple[NDArray[np.int64], NDArray[np.uint32]]] = []
        for part in self._parts():
            order = np.argsort(part[0])
            hashes, rows, codes = part[0][order], part[1][order], part[2][order]
            starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1]))) if len(hashes) else np.zeros(0, dtype=np.int64)
            counts = np.diff(starts, append=len(hashes))
            several = np.flatnonzero(counts > 1)
            found.texts += len(several)
            found.rows += int((counts[several] - 1).sum())
            if not len(several):
                continue
            torn = several[(np.maximum.reduceat(codes, starts) != np.minimum.reduceat(codes, starts))[several]]
            found.conflict_texts += len(torn)
            found.conflict_rows += int(counts[torn].sum())
            firsts = np.minimum.reduceat(rows, starts)
            same.extend(np.sort(rows[starts[g] : starts[g] + counts[g]]) for g in several[np.argsort(firsts[several])[:EXAMPLES_MAX]])
            for group in torn[np.argsort(firsts[torn])[:EXAMPLES_MAX]]:
                at = slice(starts[group], starts[group] + counts[group])
                order = np.argsort(rows[at])
                differing.append((rows[at][order], codes[at][order]))
        same.sort(key=lambda r: int(r[0]))
        differing.sort(key=lambda d: int(d[0][0]))
        found.examples = [self.line_of(r[:EXAMPLES_MAX]).tolist() for r in same[:EXAMPLES_MAX]]
        found.conflict_examples = [(self.line_of(r[:EXAMPLES_MAX]).tolist(), c[:EXAMPLES_MAX].tolist()) for r, c in differing[:EXAMPLES_MAX]]
        return found

    def rows_also_in(self, other: Tally) -> NDArray[np.int64]:
        """Rows of this split whose text stands in ``other`` too, ascending."""
        theirs = [h for h, _, _ in other._parts()]
        mine = [(h, r) for h, r, _ in self._parts()]
        if len(theirs) != len(mine):
            theirs, mine = [np.concatenate([*theirs, np.zeros(0, np.uint64)])], [(np.concatenate(self._hashes), np.arange(self.rows))] if self._hashes else []
        hits = [rows[np.isin(hashes, against)] for (hashes, rows), against in zip(mine, theirs, strict=False)]
        return np.sort(np.concatenate(hits)) if hits else np.zeros(0, dtype=np.int64)

    def length_quantiles(self, quantiles: tuple[float, ...]) -> list[int]:
        """Exact quantiles (lower) of the lengths, code points."""
        if not self.rows:
            return [0 for _ in quantiles]
        cumulated = np.cumsum(self.lengths)
        return [min(int(np.searchsorted(cumulated, max(1.0, q * self.rows))), self.length_max) for q in quantiles]

    def first_same_id(self) -> tuple[int, int] | None:
        """Lines of two rows with one id, if there are such."""
        if not self._ids:
            return None
        pair = same_id(np.concatenate(self._ids))
        if pair is None:
            return None
        first, second = self.line_of(np.asarray(pair, dtype=np.int64)).tolist()
        return first, second


def same_id(hashes: NDArray[np.uint64]) -> tuple[int, int] | None:
    """(row, later row) with equal hashes, the later one as early as can be; None: all differ."""
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if not len(again):
        return None
    at = again[np.argmin(order[again + 1])]
    return int(order[at]), int(order[at + 1])
