"""Operations that make models without a race: pre-training on raw texts, distillation, ensembles of registered versions."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from wenfang.core.errors import Conflict, Invalid
from wenfang.core.ids import new_id
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import DatasetVersion, ModelVersion

from .app import Studio
from .bundles import store_bundle, unpack_bundle
from .datasets import FILE, ImportDataset, imported
from .names import Name, ProjectName
from .references import find_version
from .selections import RunSelection, Verdict, run_selection
from .teaching import raw_versions

__all__: list[str] = []


class Pretrain(Request):
    """Raw texts, and the size of what is made of them."""

    texts: list[str] = Field(min_length=1, description="files or dv_… of raw texts", json_schema_extra={**FILE, "positional": True})
    name: Name
    text: str | None = Field(None, description="column of the text; guessed unless given")
    layers: int = Field(4, ge=1, le=24)
    hidden: int = Field(256, ge=8, le=2048)
    heads: int = Field(4, ge=1, le=32)
    epochs: float = Field(1.0, gt=0, le=1000)
    max_length: int = Field(128, ge=8, le=8192, description="characters read at once")
    batch_tokens: int = Field(2048, ge=8)
    budget_s: float | None = Field(None, gt=0, description="stop after so many seconds and keep what was learned")
    seed: int = Field(0, ge=0, lt=2**31)
    project: ProjectName = "default"


class Pretrained(Answer):
    """A local directory that families may start from."""

    name: str = Field(description="give it to selection run as --pretrained")
    path: str
    dataset_versions: list[str]
    figures: dict[str, Any]


class Distil(RunSelection):
    """Data, a teacher, and the limits a student must keep."""

    teacher: str | None = Field(description="mv_… or name:number or name")


class Combine(Request):
    """Versions that should answer together."""

    members: list[str] = Field(min_length=2, max_length=16, description="mv_… or name:number", json_schema_extra={"positional": True})
    valid: str = Field(description="file or dv_… of labelled examples none of them learned from", json_schema_extra=FILE)
    name: Name
    stacking: bool = Field(True, description="learn a weight for each member and a bias for each label; otherwise weights of a mean")
    text: str | None = None
    label: str | None = None
    project: ProjectName = "default"


class Combined(Answer):
    """The version that stands now."""

    id: str
    model: str
    weights: list[float]
    valid: dict[str, float] = Field(description="score on the examples it was weighed on: a little too good")
    latency_ms: dict[str, float]
    size_bytes: int


@operation("model.pretrain", permission="model:write", http="POST /api/v1/models/pretrain", long=True)
def pretrain_model(studio: Studio, request: Pretrain) -> Pretrained:
    """Pre-train an encoder on raw texts: a local directory that model families may start from."""
    from wenfang.models.base import Curve
    from wenfang.models.neural.pretraining import PretrainHyper, pretrain

    folder = studio.home.pretrained / request.name
    if folder.exists():
        raise Conflict("model.pretrained-there", name=request.name)
    versions = raw_versions(studio, request.texts, text=request.text, project=request.project)
    hyper = PretrainHyper.model_validate(
        {**request.model_dump(include={"layers", "hidden", "heads", "epochs", "max_length", "batch_tokens", "seed"}), "ff": 4 * request.hidden}
    )  # fmt: skip
    work = studio.home.jobs / f"pretrain-{request.name}"
    studio.progress.stage("pretrain")
    until = None if request.budget_s is None else time.monotonic() + request.budget_s
    figures = pretrain(_Texts(studio, versions), work / "made", hyper, Curve(studio.progress, until, checkpoints=work / "checkpoints"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    (work / "made").rename(folder)
    shutil.rmtree(work, ignore_errors=True)
    studio.tell("model.pretrained", request.name, dataset_versions=[v.id for v in versions], figures=figures)
    return Pretrained(name=request.name, path=str(folder), dataset_versions=[v.id for v in versions], figures=figures)


class _Texts:
    """The texts of some versions, read anew by every loop, a part in memory at a time."""

    def __init__(self, studio: Studio, versions: list[DatasetVersion]) -> None:
        self.studio = studio
        self.versions = versions

    def __iter__(self) -> Iterator[str]:
        from wenfang.data.version import iter_examples

        for version in self.versions:
            for part in iter_examples(version.manifest, self.studio.blobs):
                yield from part.texts


@operation("model.distil", permission="selection:write", http="POST /api/v1/models/distil", long=True)
def distil_model(studio: Studio, request: Distil) -> Verdict:
    """Have smaller families learn from a registered teacher; the best student inside the limits is chosen, tested and registered."""
    if request.teacher is None:
        raise Invalid("model.no-teacher")
    return run_selection(studio, request)


@operation("model.ensemble", permission="model:write", http="POST /api/v1/models/ensemble", long=True)
def combine_models(studio: Studio, request: Combine) -> Combined:
    """Make one version of several that answers as they do together, weighed on labelled examples."""
    from wenfang.models import families
    from wenfang.models.bundle import open_bundle, write_bundle
    from wenfang.models.families.ensemble import Ensemble, Member
    from wenfang.select.evaluate import evaluate
    from wenfang.select.latency import measure, size_of

    versions = [find_version(studio, m, request.project) for m in request.members]
    family = families.get("ensemble")
    assert family is Ensemble, "asked by name, so that it knows its own"
    opened = [open_bundle(unpack_bundle(v, studio.blobs, studio.home.cache), verifier=studio.verifier) for v in versions]
    valid = _labelled(studio, request, versions[0])
    hypers = [Member(family=manifest.family, hyper=manifest.hyper, seed=manifest.seed) for manifest, _ in opened]
    model = Ensemble.of([m for _, m in opened], hypers, valid, combine="stacking" if request.stacking else "average")
    told = evaluate(model.predict(valid.texts) if not valid.texts_b else model.match(valid.texts, valid.texts_b), valid)
    folder = studio.home.jobs / new_id("work")
    try:
        lineage = {"members": [v.id for v in versions], "operation": "model.ensemble", "request": studio.request_id}
        write_bundle(folder, model, signer=studio.signer, card={"family": "ensemble", "members": request.members, "valid": told.headline()}, lineage=lineage)
        latency, size_bytes = measure(studio.host, folder, valid, limit_s=10.0), size_of(folder)
        manifest, signature = store_bundle(folder, studio.blobs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    number = 1 + max((m.number for m in studio.find(ModelVersion, project=request.project, name=request.name)), default=0)
    latency_ms = {"p50": latency.p50_ms, "p99": latency.p99_ms}
    version = ModelVersion(
        id=new_id("mv"), project=request.project, name=request.name, number=number, family="ensemble", task=model.task, labels=model.labels_, bundle=manifest, signature=signature,
        size_bytes=size_bytes, dataset_version=versions[0].dataset_version, metrics={"metric": told.metric, "valid": told.headline(), "latency_ms": latency_ms},
    )  # fmt: skip
    studio.put(version)
    studio.tell("model.registered", version.id, family="ensemble", members=[v.id for v in versions])
    return Combined(
        id=version.id, model=f"{version.name}:{version.number}", weights=list(model.pool_.weights), valid=told.headline(), latency_ms=latency_ms, size_bytes=size_bytes
    )  # fmt: skip


def _labelled(studio: Studio, request: Combine, like: ModelVersion) -> Any:
    """The examples to weigh on."""
    from wenfang.data.version import load_examples

    if request.valid.startswith("dv_"):
        version = studio.get(DatasetVersion, request.valid)
        return load_examples(version.manifest, studio.blobs, "valid" if "valid" in version.rows else None)
    version, _ = imported(
        studio, ImportDataset.model_validate({"train": request.valid, "task": like.task, "text": request.text, "label": request.label, "project": request.project})
    )
    return load_examples(version.manifest, studio.blobs)
