"""What a selection needs of a teacher: its opinion in the training examples, and how its student compares. Called by selections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wenfang.core.examples import Examples
from wenfang.core.records import DatasetVersion, ModelVersion

from .app import Studio
from .bundles import unpack_bundle
from .datasets import ImportDataset, imported
from .references import find_version

__all__ = ["compare_with_teacher", "guide_of", "raw_versions", "taught_by"]


def raw_versions(studio: Studio, references: Sequence[str], *, text: str | None, project: str) -> list[DatasetVersion]:
    """Dataset versions of raw texts: those named by id, and files imported as such."""
    found: list[DatasetVersion] = []
    for reference in references:
        if reference.startswith("dv_"):
            found.append(studio.get(DatasetVersion, reference))
            continue
        version, _ = imported(studio, ImportDataset.model_validate({"train": reference, "task": "embedding", "text": text, "project": project}))
        found.append(version)
    return found


def taught_by(studio: Studio, reference: str, train: Examples, *, unlabelled: Sequence[str], share: float, text: str | None, project: str) -> Examples:
    """``train`` with the opinion of a registered model version in it; see ``wenfang.models.distilling``."""
    from wenfang.data.version import iter_examples
    from wenfang.models.bundle import open_bundle
    from wenfang.models.distilling import taught

    texts = [t for v in raw_versions(studio, unlabelled, text=text, project=project) for part in iter_examples(v.manifest, studio.blobs) for t in part.texts]
    version = find_version(studio, reference, project)
    _, teacher = open_bundle(unpack_bundle(version, studio.blobs, studio.home.cache), verifier=studio.verifier)
    return taught(train, teacher, unlabelled=texts, share=share, progress=studio.progress)


def guide_of(studio: Studio, reference: str | None, project: str) -> Path | None:
    """The unpacked bundle of a teacher whose hidden states a student may match; None: it has none."""
    if reference is None:
        return None
    version = find_version(studio, reference, project)
    return unpack_bundle(version, studio.blobs, studio.home.cache) if version.family == "transformer" and version.task != "matching" else None


def compare_with_teacher(studio: Studio, reference: str, test: Examples, final: dict[str, Any], *, project: str, seed: int) -> tuple[str, dict[str, Any]]:
    """A sentence of the verdict: the student's score and latency beside its teacher's, on the same texts and the same machine."""
    from wenfang.select.evaluate import evaluate, predict_all
    from wenfang.select.latency import measure

    version: ModelVersion = find_version(studio, reference, project)
    folder = unpack_bundle(version, studio.blobs, studio.home.cache)
    replica = studio.host.start(folder)
    try:
        score = evaluate(predict_all(replica, test, progress=studio.progress), test, resamples=2, seed=seed).score
    finally:
        replica.close()
    p50_ms = measure(studio.host, folder, test, seed=seed, limit_s=10.0).p50_ms
    own, own_ms = float(final["test"]["score"]), float(final["latency_ms"]["p50"])
    fields = {"share": 100 * own / score if score else 0.0, "score": own, "teacher_score": score, "latency": own_ms / max(p50_ms, 1e-9), "p50_ms": own_ms, "teacher_p50_ms": p50_ms}
    return "verdict.taught", fields
