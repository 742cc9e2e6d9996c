"""Which texts a capacity plan reckons with, and how they come: those of a file or dataset version, as the gateways counted them lately, of what the model learned from, or assumed ones."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wenfang.core.errors import Invalid, WenfangError
from wenfang.core.frames import FrameClient
from wenfang.core.records import DatasetVersion, ModelVersion
from wenfang.data.asked import Row, asked_of_file, asked_of_version
from wenfang.serve.costs import sample_text

from .app import Studio
from .names import local_path
from .references import find_dataset_version

__all__ = ["Recent", "Texts", "recent_arrivals", "texts_of"]

ENOUGH = 500
"""Texts that gateways must have counted before a plan goes by them."""

TEXTS_MAX = 2000
"""So many are drawn from all of them."""
log = logging.getLogger("wenfang.studio")
ASSUMED_LOG_MEAN, ASSUMED_LOG_SIGMA = 3.37, 0.42
Texts = tuple[list[tuple[str, str]], tuple[str, dict[str, Any]]]
"""(text and second text each, the sentence that says where they come from)."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What gateways counted of one model version.

    Args:
        lengths: (code points, how often).
        texts, requests: so many.
        dispersion: of requests; 1 is by chance.
    """

    lengths: tuple[tuple[int, float], ...]
    texts: float
    requests: float
    dispersion: float


def recent_arrivals(studio: Studio, version: ModelVersion) -> Recent | None:
    """What came lately, by all gateways that run; None where that is too little to say anything."""
    lengths: Counter[int] = Counter()
    texts = requests = weighted = 0.0
    for path in sorted(studio.home.run.glob("gateway-*.sock")):
        try:
            client = FrameClient(path, timeout_s=5.0)
            try:
                found = client.call("stats")["pools"].get(version.id, {}).get("arrivals")
            finally:
                client.close()
        except WenfangError as e:
            log.info("%s did not tell what came: %s", path.name, e)
            continue
        if found:
            for length, n in found["lengths"]:
                lengths[length] += n
            texts += found["texts"]
            requests += found["requests"]
            weighted += found["dispersion"] * found["requests"]
    return Recent(tuple(sorted(lengths.items())), texts, requests, weighted / requests) if texts >= ENOUGH else None


def texts_of(studio: Studio, version: ModelVersion, *, recent: Recent | None, file: str | None, dataset: str | None, text: str | None, text_b: str | None, project: str) -> Texts:
    """The texts to measure with.

    Raises:
        Invalid: `plan.one-source`, `plan.no-texts`, and whatever is wrong with the file.
    """
    if file is not None and dataset is not None:
        raise Invalid("plan.one-source")
    pairs = version.task == "matching"
    if file is not None:
        path = local_path(studio, file, studio.home.jobs / "uploads")
        drawn = _drawn(asked_of_file(path, version.task, text=text, text_b=text_b).rows, pairs)
        if not drawn:
            raise Invalid("plan.no-texts", source=path.name)
        return drawn, ("plan.texts-file", {"n": len(drawn)})
    if dataset is not None:
        found = find_dataset_version(studio, dataset, project)
        drawn = _of_version(studio, found, pairs)
        if not drawn:
            raise Invalid("plan.no-texts", source=dataset)
        return drawn, ("plan.texts-dataset", {"n": len(drawn), "dataset": found.id})
    if recent is not None:
        return _as_counted(recent, pairs), ("plan.texts-recent", {"n": round(recent.texts)})
    learned = studio.tables.get(DatasetVersion, version.dataset_version) if version.dataset_version else None
    if learned is not None and (drawn := _of_version(studio, learned, pairs)):
        return drawn, ("plan.texts-lineage", {"n": len(drawn), "dataset": learned.id})
    return _assumed(pairs), ("plan.texts-assumed", {})


def _of_version(studio: Studio, version: DatasetVersion, pairs: bool) -> list[tuple[str, str]]:
    return _drawn(asked_of_version(version.manifest, studio.blobs, content_hash=version.content_hash, rows=version.rows, pairs=pairs).rows, pairs)


def _drawn(rows: Iterable[Row], pairs: bool) -> list[tuple[str, str]]:
    """A fair draw of what can be asked, in one pass."""
    rng, kept, seen = random.Random(0), list[tuple[str, str]](), 0
    for row in rows:
        if row.error or (pairs and not row.text_b):
            continue
        seen += 1
        if len(kept) < TEXTS_MAX:
            kept.append((row.text, row.text_b if pairs else ""))
        elif (place := rng.randrange(seen)) < TEXTS_MAX:
            kept[place] = (row.text, row.text_b if pairs else "")
    return kept


def _as_counted(recent: Recent, pairs: bool) -> list[tuple[str, str]]:
    """Texts of the lengths that came, as often; the texts themselves nobody kept."""
    rng = random.Random(0)
    lengths, often = zip(*recent.lengths, strict=True)
    texts = [sample_text(max(2, n - 2), i) for i, n in enumerate(rng.choices(lengths, weights=often, k=500))]
    return [(t[: (len(t) + 1) // 2], t[(len(t) + 1) // 2 :]) if pairs else (t, "") for t in texts]


def _assumed(pairs: bool) -> list[tuple[str, str]]:
    rng = random.Random(0)
    texts = [sample_text(max(1, round(rng.lognormvariate(ASSUMED_LOG_MEAN, ASSUMED_LOG_SIGMA))), i) for i in range(500)]
    return [(t, t[::-1] if pairs else "") for t in texts]
