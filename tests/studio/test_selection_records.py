"""What a selection leaves behind when it ends without a verdict, and what its record tells when it has one."""

import pytest

from wenfang.core.errors import Conflict, Invalid, NotFound
from wenfang.core.records import DatasetVersion, ModelVersion, Run, Selection
from wenfang.guard.roles import LOCAL
from wenfang.studio import operations
from worlds import separable, write_csv

OPS = operations()


def run(studio, operation, **fields):
    op = OPS[operation]
    return studio.run(op, LOCAL, op.request.model_validate(fields))


def test_a_selection_without_a_verdict_can_be_looked_at(studio, tmp_path):
    one = str(write_csv(tmp_path / "one.csv", [(f"{text}{i}", "only") for i, (text, _) in enumerate(separable(80))]))
    wanted = {"train": one, "families": ["linear"], "budget_s": 20}
    with pytest.raises(Invalid, match="no-run-succeeded"):
        run(studio, "selection.run", **wanted)
    (kept,) = studio.find(Selection)
    assert (kept.state, kept.report, kept.verdict) == ("failed", "", {"error": "select.no-run-succeeded"})
    assert studio.find(ModelVersion) == []
    assert studio.get(DatasetVersion, kept.dataset_version).rows
    runs = run(studio, "selection.runs", id=kept.id).runs
    assert {(r.family, r.state, r.note) for r in runs} == {("linear", "failed", "model.too-few-labels")}
    shown = run(studio, "selection.show", id=kept.id)
    assert [r["reason"][0] for r in shown.document["runs"]] == ["model.too-few-labels"] * len(runs)
    for operation in ("selection.explain", "selection.errors", "selection.report", "selection.rerun"):
        with pytest.raises(Conflict, match=r"selection\.failed"):
            run(studio, operation, id=kept.id)
    with pytest.raises(Invalid, match="no-run-succeeded"):
        run(studio, "selection.run", **wanted)
    assert len(studio.find(Run)) == 2 * len(runs), "the same request was tried again, not answered from its journal"


def test_runs_outside_the_limits_stay_and_a_verdict_names_what_it_is_about(studio, tmp_path):
    tickets = str(write_csv(tmp_path / "tickets.csv", separable(240)))
    wanted = {"train": tickets, "families": ["majority"], "budget_s": 20, "name": "t"}
    with pytest.raises(Invalid, match="no-candidate-meets-limits"):
        run(studio, "selection.run", **wanted, max_size_bytes=1)
    (failed,) = studio.find(Selection)
    assert [r.state for r in run(studio, "selection.runs", id=failed.id).runs] == ["done"]
    answer = run(studio, "selection.run", **wanted)
    verdict = run(studio, "selection.show", id=answer.id).selection.verdict
    assert (verdict["dataset_version"], verdict["model_version"], verdict["report"]) == (answer.dataset_version, answer.model_version, answer.report)
    assert len(studio.find(Selection)) == 2
    for reference in (answer.model_version, "t:1", "t"):
        assert run(studio, "model.show", id=reference).version.id == answer.model_version
    for reference in (answer.dataset_version, "t:1", "t"):
        assert run(studio, "dataset.show", id=reference).version.id == answer.dataset_version
    for operation in ("model.show", "dataset.show"):
        for reference in ("t:9", "t:", "u", "t:x", "t:99999999999999999999999"):
            with pytest.raises(NotFound, match=r"record\.not-found"):
                run(studio, operation, id=reference)
