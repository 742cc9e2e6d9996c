"""Pre-training, distillation and ensembles as operations."""

import random

import pytest

import wenfang as wf
from wenfang.core.errors import Conflict, Invalid
from worlds import separable, write_csv


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("making")
    with wf.open(folder / "home") as opened:
        opened.folder = folder
        yield opened


@pytest.fixture(scope="module")
def verdicts(studio):
    rows = separable(400)
    random.Random(1).shuffle(rows)
    file = write_csv(studio.folder / "rows.csv", [(t, y if random.Random(t).random() > 0.15 else "物流") for t, y in rows])
    return file, [studio.selection.run(train=str(file), name=name, budget_s=6, families=["linear"], seed=seed) for seed, name in enumerate(("one", "two"))]


def test_a_student_is_compared_with_its_teacher(studio, verdicts):
    file, (first, _) = verdicts
    (studio.folder / "raw.txt").write_text("\n".join(t for t, _ in separable(100, seed=9)), encoding="utf-8")
    student = studio.model.distil(train=str(file), teacher="one", unlabelled=[str(studio.folder / "raw.txt")], name="student", budget_s=6, families=["linear"])
    told = dict(student.verdict)["verdict.taught"]
    assert told["share"] > 80
    assert told["teacher_score"] == pytest.approx(first.test["score"], abs=0.2)
    assert student.model == "student:1"
    with pytest.raises(Invalid, match=r"model\.no-teacher"):
        studio.model.distil(train=str(file), teacher=None, name="x", budget_s=5)


def test_versions_become_an_ensemble_that_serves(studio, verdicts):
    file, _ = verdicts
    made = studio.model.ensemble(members=["one", "two"], valid=str(file), name="both")
    assert made.model == "both:1"
    assert len(made.weights) == 2
    studio.service.deploy(service="both", model_version="both")
    assert studio.service.predict(service="both", inputs=["怎么开发票"]).outputs[0]["label"] == "发票"
    assert studio.model.show(id=made.id).manifest["lineage"]["members"]


@pytest.mark.slow
def test_a_pretrained_directory_has_a_name(studio):
    (studio.folder / "raw.txt").write_text("\n".join(t for t, _ in separable(200, seed=3)), encoding="utf-8")
    made = studio.model.pretrain(texts=[str(studio.folder / "raw.txt")], name="tiny", layers=1, hidden=16, heads=2, epochs=1, max_length=32)
    assert made.figures["texts"] == 200
    with pytest.raises(Conflict, match=r"model\.pretrained-there"):
        studio.model.pretrain(texts=[str(studio.folder / "raw.txt")], name="tiny")
    file = write_csv(studio.folder / "few.csv", separable(150))
    verdict = studio.selection.run(train=str(file), name="from-tiny", budget_s=12, families=["transformer"], pretrained=["tiny"])
    assert verdict.family == "transformer"
