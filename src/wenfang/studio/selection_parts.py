"""What a selection works with: data and its splits, the plan, where fits run, who writes bundles. Operations call these; nothing here is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from wenfang.core.errors import Denied, Invalid
from wenfang.core.examples import Examples
from wenfang.core.records import DatasetVersion, Selection
from wenfang.guard.roles import require

from .app import Studio
from .datasets import ImportDataset, imported
from .selection_request import RunSelection

__all__ = ["bundle_reader", "bundle_writer", "data_of", "filled", "fitting", "leaks_of", "plan_of", "pretrained_of", "request_hash", "shown_name", "splits_of", "upstreams_of"]

VALID_SHARE = TEST_SHARE = 0.1
EARLIER_MAX = 50
"""Earlier selections whose recipes are looked at."""


def fitting(studio: Studio, parallel: int = 1) -> AbstractContextManager[Any]:
    """Where fits run."""
    from wenfang.select.apart import FitApart
    from wenfang.select.trial import fit_here

    return FitApart(studio.workers, parallel=parallel, logs=studio.home.logs) if studio.workers is not None else nullcontext(fit_here)


def filled(request: RunSelection) -> RunSelection:
    """The request with what its scenario says where the user said nothing.

    Raises:
        NotFound: `select.unknown-preset`.
    """
    from wenfang.select.presets import read_preset

    if request.preset is None:
        return request
    return request.model_copy(update={name: value for name, value in read_preset(request.preset).fills().items() if getattr(request, name) is None})


def plan_of(studio: Studio, request: RunSelection, train: Examples, checks: Any) -> Any:
    """What is asked for, with the recipes that did well on data like these before."""
    from wenfang.select.cost import Price
    from wenfang.select.earlier import describe, earlier_from, nearest_recipes
    from wenfang.select.presets import read_preset
    from wenfang.select.robustness.suite import builtin
    from wenfang.select.selection import Limits, Plan

    documents = [json.loads(studio.blobs.get(s.document)) for s in studio.find(Selection, limit=EARLIER_MAX) if studio.blobs.has(s.document)]
    earlier = [e for d in documents if (e := earlier_from(d)) is not None]
    recipes = nearest_recipes(describe(train), earlier) if len(train) else []
    price = checks.price or Price(**studio.settings.price.model_dump())
    limits = Limits(request.max_latency_ms, request.max_size_bytes, request.max_memory_bytes, request.max_cost_per_million, price)
    wanted = read_preset(request.preset).robustness if request.preset else []
    tests = {name: test for name, test in checks.robustness.items() if not wanted or name in wanted or name not in builtin()}
    looked_at = replace(checks, robustness=tests, price=price, digest=checks.digest + (request.preset or ""))
    return Plan(
        request.budget_s, limits, objectives=tuple(request.objectives), metric=request.metric, seed=request.seed, parallel=request.parallel, earlier=recipes, checks=looked_at
    )


def data_of(studio: Studio, request: RunSelection) -> tuple[DatasetVersion, dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The dataset version to learn from, its card, and the card's warnings."""
    if request.train.startswith("dv_"):
        version = studio.get(DatasetVersion, request.train)
        return version, json.loads(studio.blobs.get(version.card)), []
    fields = {k: getattr(request, k) for k in ImportDataset.model_fields if hasattr(request, k)}
    version, got = imported(studio, ImportDataset(**fields))
    for key, value in got.guessed.items():
        studio.progress.note("run.guessed", what=key, value=value)
    return version, got.card, got.warnings


def splits_of(studio: Studio, version: DatasetVersion, seed: int) -> dict[str, Examples]:
    """Train, valid and test: as given, the missing ones cut from the data with the leak guard."""
    from wenfang.data.split import split_rows
    from wenfang.data.version import load_examples

    studio.progress.stage("split")
    parts = {split: load_examples(version.manifest, studio.blobs, split) for split in version.rows}
    pool = parts.pop("all", None) or parts.pop("train", None)
    if pool is None:
        raise Invalid("data.no-train-split", splits=list(version.rows))
    missing = {"valid": VALID_SHARE, "test": TEST_SHARE}
    shares = {s: share for s, share in missing.items() if s not in parts}
    if shares:
        rows = split_rows(pool, shares={"train": 1 - sum(shares.values()), **shares}, seed=seed)
        parts.update({split: pool.take(rows[split]) for split in ("train", *shares)})
    else:
        parts["train"] = pool
    for split, examples in parts.items():
        if len(examples) == 0:
            raise Invalid("data.split-empty", split=split, rows=len(pool))
    return parts


def upstreams_of(studio: Studio, request: RunSelection) -> list[str]:
    """The servers offered: texts and a key go there, perhaps inside our own network, so only an administrator may name them.

    Raises:
        Denied: `auth.denied`.
    """
    if request.upstreams and studio.actor is not None:
        require(studio.actor, "secret:admin")
    return request.upstreams


def pretrained_of(studio: Studio, reference: str) -> Path:
    """A directory made here, by name; or any path, for the local user. What cannot be used is refused before anything is fitted.

    Raises:
        Denied: `model.pretrained-is-local`.
        Invalid: `neural.pretrained-missing`, `neural.pickled-weights`, `neural.pretrained-incomplete`, `neural.pretrained-unreadable`.
    """
    from wenfang.models.neural.directories import check_directory

    own = studio.home.pretrained / reference
    if "/" not in reference and own.is_dir():
        return own
    if studio.actor is None or not studio.actor.local:
        raise Denied("model.pretrained-is-local")
    check_directory(Path(reference))
    return Path(reference)


def leaks_of(splits: dict[str, Examples]) -> list[int]:
    """Rows of test that stand in train or valid."""
    from wenfang.data.leaks import leaked_rows

    return leaked_rows(splits["train"] + splits["valid"], splits["test"])


def bundle_writer(studio: Studio, version: DatasetVersion) -> Callable[..., Any]:
    """Writes signed bundles that say what they come from."""
    from wenfang.models.bundle import write_bundle

    lineage = {"dataset_version": version.id, "content_hash": version.content_hash, "operation": "selection.run", "request": studio.request_id}

    def write(folder: Path, model: Any, card: dict[str, Any]) -> Any:
        return write_bundle(folder, model, signer=studio.signer, card=card, lineage=lineage)

    return write


def bundle_reader(studio: Studio) -> Callable[[Path], Any]:
    """Opens what was written."""
    from wenfang.models.bundle import open_bundle

    return lambda folder: open_bundle(folder, verifier=studio.verifier)[1]


def request_hash(request: RunSelection, version: DatasetVersion) -> str:
    """Equal for requests that may go on with each other's work."""
    text = request.model_dump_json(exclude={"serve", "name", "promote", "margin"}) + version.content_hash
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown_name(studio: Studio, request: RunSelection) -> str:
    """What the data are called by the person who brought them."""
    from wenfang.core.records import Dataset, Upload

    if request.train.startswith("upload:"):
        return studio.get(Upload, request.train.removeprefix("upload:")).file_name
    if request.train.startswith("dv_"):
        return studio.get(Dataset, studio.get(DatasetVersion, request.train).dataset).name
    return request.train
