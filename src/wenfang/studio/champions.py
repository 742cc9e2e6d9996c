"""The champion of a name: compared with each new model on the same test examples, and replaced when the new one is better or shown to be no worse.

Knows nothing of how two models are compared.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from wenfang.core.errors import Conflict
from wenfang.core.examples import Examples
from wenfang.core.records import DatasetVersion, ModelVersion, Selection

from .app import Studio
from .bundles import unpack_bundle
from .selection_parts import splits_of
from .services import deploy_version

__all__ = ["champion_key", "champion_of", "duel_with_champion", "promote", "served"]

Said = list[tuple[str, dict[str, Any]]]


def champion_key(project: str, name: str) -> str:
    """Key of the pointer to the champion of a name."""
    return f"{project}/{name}/champion"


def champion_of(studio: Studio, project: str, name: str) -> ModelVersion | None:
    """The present champion, if there is one."""
    pointer = studio.tables.pointer("model", champion_key(project, name))
    return None if pointer is None else studio.tables.get(ModelVersion, pointer.target)


def duel_with_champion(studio: Studio, version: DatasetVersion, name: str, test: Examples, counts: Any, *, seed: int) -> Any:
    """The new model against the champion of its name on the same test examples; None without a champion."""
    from wenfang.select.champion import Duel, duel

    champion = champion_of(studio, version.project, name)
    if champion is None:
        return None
    shown = f"{champion.name}:{champion.number}"
    if champion.task != version.task:
        return Duel(shown, "incomparable", reason=champion.task)
    bundle = unpack_bundle(champion, studio.blobs, studio.home.cache)
    learned = _learned_rows(studio, champion, test)
    return duel(studio.host, bundle, test, counts, name=shown, learned_rows=learned, seed=seed, progress=studio.progress)


def _learned_rows(studio: Studio, champion: ModelVersion, test: Examples) -> list[int]:
    """Rows of test that stand in what the champion learned from."""
    from wenfang.data.leaks import leaked_rows

    selection = studio.tables.get(Selection, champion.selection) if champion.selection else None
    data = studio.tables.get(DatasetVersion, champion.dataset_version) if champion.dataset_version else None
    if selection is None or data is None or not studio.blobs.has(selection.document):
        return []
    parts = splits_of(studio, data, int(json.loads(studio.blobs.get(selection.document))["seed"]))
    return leaked_rows(parts["train"] + parts["valid"], test)


def promote(studio: Studio, model: ModelVersion, duel: Any, policy: Literal["auto", "always", "never"], margin: float) -> tuple[bool, Said]:
    """Have the champion's pointer follow the policy; whether it did, and the sentences that say so and why not.

    Without a champion the new model becomes it, unless the policy is ``never``. With ``auto`` it must be better, or shown to be worse by no more than ``margin``.
    """
    shown = f"{model.name}:{model.number}"
    lacking = None if duel is None or policy != "auto" else duel.short_of(margin)
    wanted = policy != "never" and lacking is None
    if wanted:
        studio.point("model", champion_key(model.project, model.name), model.id)
        studio.tell("model.promoted", model.id, policy=policy, margin=margin, duel=duel.document() if duel else None)
    if duel is None:
        return wanted, []
    return wanted, [
        *duel.sentences(),
        *([lacking] if lacking else []),
        ("verdict.promoted", {"model": shown}) if wanted else ("verdict.not-promoted", {"model": shown, "champion": duel.champion}),
    ]


def served(studio: Studio, service: str, model: ModelVersion) -> Said:
    """Have a service answer with the model; where that would break its callers it stays as it is, and a sentence says so: long work is not lost for it."""
    try:
        deploy_version(studio, service, model)
    except Conflict as e:
        if e.code != "service.breaks-callers":
            raise
        return [("verdict.not-served", e.fields)]
    return []
