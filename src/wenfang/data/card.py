"""The data card: what a version holds and what is wrong with it, as one JSON document and as warnings in plain words.

Warnings are (key of ``card.toml``, fields); nothing here quotes a text.
"""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from wenfang.core.conversation import spoken
from wenfang.core.ports import Blobs

from .intake import Split
from .near import THRESHOLD, near_leaks

__all__ = ["build_card"]

FORMAT = 1
LISTED_MAX = 10_000
"""Leaked rows named one by one."""
NEAR_ROWS_MAX = 400_000
NEAR_POINTS_MAX = 40_000_000
"""Beyond these near-duplicates between splits are not looked for, and the card says so."""
RARE = 5
"""A class with fewer examples is named as rare."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 0.99, 1.0)
ORDER = {"all": 0, "train": 0, "valid": 1, "test": 2}
Warnings = list[tuple[str, dict[str, Any]]]


def build_card(splits: list[Split], blobs: Blobs, *, graded: bool = False) -> tuple[dict[str, Any], Warnings]:
    """(card, warnings) of the splits of one version; near-duplicates are read back from their parts.

    Args:
        splits: what the version holds.
        blobs: where its parts are.
        graded: labels are grades of pairs, of which most stand there once: nothing is said of classes.
    """
    warnings: Warnings = []
    labels: Counter[str] = Counter()
    card: dict[str, Any] = {"format": FORMAT, "task": splits[0].task, "splits": {}}
    for split in splits:
        card["splits"][split.name] = _describe(split, warnings, graded=graded)
        labels.update(split.tally.labels)
    card["labels"] = _histogram(labels)
    card["rows"] = {s.name: s.tally.rows for s in splits}
    card["leaks"] = _leaks(splits, blobs, warnings)
    if not graded:
        _class_warnings(splits, labels, warnings)
    card["warnings"] = [{"key": key, "fields": fields} for key, fields in warnings]
    return card, warnings


def _histogram(labels: Counter[str]) -> dict[str, int]:
    """Head to tail."""
    return dict(sorted(labels.items(), key=lambda kv: (-kv[1], kv[0])))


def _describe(split: Split, warnings: Warnings, *, graded: bool) -> dict[str, Any]:
    tally = split.tally
    same = tally.duplicates()
    names = {code: label for label, code in tally.codes.items()}
    conflicts: list[dict[str, Any]] = [
        {"lines": lines, "labels": [names[c] for c in codes]} if names else {"lines": lines} for lines, codes in same.conflict_examples
    ]  # fmt: skip
    quarantined = sum(split.quarantined.values())
    told: dict[str, Any] = {
        "rows": tally.rows,
        "source": split.source,
        "quarantined": {
            "rows": quarantined,
            "reasons": dict(split.quarantined.most_common()),
            "first_lines": [line for line, _ in split.quarantine[:20]],
            "blob": split.quarantine_blob,
        },
        "duplicates": {"rows": same.rows, "texts": same.texts, "example_lines": same.examples},
        "conflicts": {"texts": same.conflict_texts, "rows": same.conflict_rows, "examples": conflicts},
        "length": _lengths(split),
        "over_long": {"rows": tally.over_long, "limit_code_points": tally.long_at},
        "labels": _histogram(tally.labels),
        "scripts": dict(tally.scripts.most_common()) if tally.rows else {},
        "replacement_character_rows": tally.replacement_rows,
        "repaired": split.repaired,
    }
    told["scripts"] = {k: v for k, v in told["scripts"].items() if v}
    for key, n, fields in (
        ("card.quarantined", quarantined, {"rows": quarantined, "reasons": [f"{k} {v}" for k, v in split.quarantined.most_common()]}),
        ("card.duplicates", same.rows, {"rows": same.rows}),
        ("card.conflicts", 0 if graded else same.conflict_texts, {"texts": same.conflict_texts, "rows": same.conflict_rows}),
        ("card.over-long", tally.over_long, {"rows": tally.over_long, "limit": tally.long_at}),
        ("card.replacement-characters", tally.replacement_rows, {"rows": tally.replacement_rows}),
        ("card.repaired", split.repaired, {"spots": split.repaired}),
    ):
        if n:
            warnings.append((key, {"split": split.name, **fields}))
    if split.suffix_differs:
        warnings.append(("card.suffix-differs", {"file": split.source["file"], "format": split.source["format"]}))
    return told


def _lengths(split: Split) -> dict[str, Any]:
    tally = split.tally
    low, p05, median, p95, p99, _ = tally.length_quantiles(QUANTILES)
    return {
        "mean": round(tally.code_points / tally.rows, 2) if tally.rows else 0.0,
        "min": low, "p05": p05, "p50": median, "p95": p95, "p99": p99, "max": tally.length_max, "unit": "code points",
    }  # fmt: skip


def _leaks(splits: list[Split], blobs: Blobs, warnings: Warnings) -> list[dict[str, Any]]:
    """Texts of a later split (test, valid) that stand in an earlier one (train)."""
    found: list[dict[str, Any]] = []
    ordered = sorted(splits, key=lambda s: ORDER.get(s.name, 3))
    rows = sum(s.tally.rows for s in splits)
    near_possible = len(splits) <= 8 and rows <= NEAR_ROWS_MAX and sum(s.tally.code_points for s in splits) <= NEAR_POINTS_MAX
    near_rows = near_leaks([_texts(s, blobs) for s in ordered]) if near_possible and len(splits) > 1 else None
    for (i, against), (j, split) in combinations(enumerate(ordered), 2):
        exact = split.tally.rows_also_in(against.tally)
        near = np.asarray(near_rows[j, i], dtype=np.int64) if near_rows is not None else None
        entry: dict[str, Any] = {"split": split.name, "against": against.name, "exact": _named(split, exact), "threshold": THRESHOLD}
        entry["near"] = _named(split, near) if near is not None else None
        found.append(entry)
        if len(exact):
            warnings.append(("card.leak", {"split": split.name, "against": against.name, "rows": len(exact), "share_percent": round(100 * len(exact) / split.tally.rows, 1)}))
        if near is not None and len(near):
            warnings.append(("card.near-leak", {"split": split.name, "against": against.name, "rows": len(near), "similarity": THRESHOLD}))
    if len(splits) > 1 and not near_possible:
        warnings.append(("card.near-skipped", {"rows": rows, "rows_max": NEAR_ROWS_MAX}))
    return found


def _named(split: Split, rows: Any) -> dict[str, Any]:
    """Count, rows of the split (from 0) and lines of its file."""
    listed = rows[:LISTED_MAX]
    return {"count": len(rows), "rows": listed.tolist(), "lines": split.tally.line_of(listed).tolist()}


def _texts(split: Split, blobs: Blobs) -> list[str]:
    columns = [c for c in ("text", "text_b") if c in split.columns]
    frames = [pl.read_parquet(BytesIO(blobs.get(part["blob"])), columns=columns) for part in split.parts]
    texts = [t for f in frames for t in f.select(pl.concat_str(columns, separator="\x1f").alias("t"))["t"].to_list()]
    return list(map(spoken, texts)) if split.task == "chat" else texts


def _class_warnings(splits: list[Split], labels: Counter[str], warnings: Warnings) -> None:
    first = min(splits, key=lambda s: ORDER.get(s.name, 3))
    if len(labels) == 1:
        warnings.append(("card.one-label", {}))
    if rare := sum(n < RARE for n in first.tally.labels.values()):
        warnings.append(("card.rare-labels", {"split": first.name, "labels": rare, "rows_min": RARE}))
    rows = first.tally.rows
    if splits[0].task == "classification" and rows >= 100 and len(first.tally.labels) > 0.5 * rows:
        warnings.append(("card.labels-like-texts", {"labels": len(first.tally.labels), "rows": rows}))
    for split in splits:
        if split is not first and (new := set(split.tally.labels) - set(first.tally.labels)):
            warnings.append(("card.unseen-labels", {"split": split.name, "against": first.name, "labels": len(new)}))
