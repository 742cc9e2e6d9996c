"""Fits in child processes: equal models, deadlines that hold, deaths that stay where they are."""

import os
import signal
import time
from pathlib import Path

import pytest
from selection_world import InProcess, Oracle, OracleHyper, Watcher, examples

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples, Span
from wenfang.core.ports import Cancelled
from wenfang.models import families
from wenfang.models.base import Curve
from wenfang.runtimes.worker import LocalWorkers
from wenfang.select import apart
from wenfang.select.apart import FitApart, deal_cores, read_examples, write_examples
from wenfang.select.selection import Plan, Ports, select


class Far(Oracle):
    """Dear enough to be fitted apart."""

    name = "far"
    cost_rank = 20


class Deaf(Far):
    name = "deaf"

    def fit(self, train, valid=None, curve=None):
        time.sleep(60)
        return self


class Dead(Far):
    name = "dead"

    def fit(self, train, valid=None, curve=None):
        os.kill(os.getpid(), signal.SIGKILL)
        return self


class Loud(Far):
    name = "loud"

    def fit(self, train, valid=None, curve=None):
        raise ValueError(f"could not read {train.texts[0]}")


class Proud(Far):
    name = "proud"

    def fit(self, train, valid=None, curve=None):
        raise Invalid("model.too-few-labels", found=1, needed=2)


TRAIN, VALID = examples(200), examples(100, start=200)


@pytest.fixture
def fit(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    made = FitApart(LocalWorkers())
    yield made
    made.close()


def test_examples_travel_whole(tmp_path):
    for data in (
        Examples("classification", ["好\ud800", ""], labels=["a", "b"], ids=["1", "2"], groups=["g", "g"], weights=[0.5, 1.0]),
        Examples("tagging", ["上海好"], spans=[(Span(0, 2, "LOC"),)]),
        Examples("multilabel", ["a", "b"], label_sets=[("x", "y"), ()]),
        Examples("matching", ["a"], texts_b=["b"], grades=[0.25]),
        Examples("generation", ["a"], targets=["b"]),
    ):
        write_examples(tmp_path / "x", data)
        assert read_examples(tmp_path / "x") == data


@pytest.mark.parametrize("name", ["linear", "majority", "crf"])
def test_a_model_fitted_apart_is_the_model_fitted_here(name, tmp_path):
    task = "tagging" if name == "crf" else "classification"
    train, valid = examples(120, task=task), examples(40, start=120, task=task)
    cls = families.get(name)
    here = cls(task=task, seed=3).fit(train, valid)
    fit, curve = FitApart(LocalWorkers(), parallel=2), Curve(Watcher())
    learned = fit(cls(task=task, seed=3), train, valid, curve)
    assert learned.model.predict(valid.texts) == here.predict(valid.texts)
    assert learned.refit_params == here.refit_hyper().model_dump(mode="json")
    assert not learned.cut
    assert name == "majority" or curve.steps
    learned.model.save(folder := tmp_path / "again")
    assert sorted(p.name for p in folder.iterdir())
    fit.close()


def test_the_curve_is_heard_and_light_families_stay_here(fit):
    curve = Curve(Watcher())
    learned = fit(Far(OracleHyper(steps=4), task="classification"), TRAIN, VALID, curve)
    assert [s.step for s in curve.steps] == [1, 2, 3, 4]
    assert Far.fits == [], "it learned elsewhere"
    assert learned.model.predict(["x 投诉"])[0].label == "投诉"
    near = type("Near", (Oracle,), {"name": "near", "fits": []})
    fit(near(task="classification"), TRAIN, VALID, Curve())
    assert near.fits, "it learned here"


def test_a_fit_that_does_not_heed_its_deadline_is_ended(fit, monkeypatch):
    monkeypatch.setattr(apart, "WORTH_S", 0.0)
    monkeypatch.setattr(apart, "GRACE_S", 0.2)
    began = time.monotonic()
    with pytest.raises(Broken, match=r"runtime\.worker-overran"):
        fit(Deaf(task="classification"), TRAIN, None, Curve(deadline=time.monotonic() + 2.0))
    assert time.monotonic() - began < 20


def test_deaths_and_refusals_come_back_as_errors_without_texts(fit):
    with pytest.raises(Broken, match=r"runtime\.worker-died") as died:
        fit(Dead(task="classification"), TRAIN, None, Curve())
    assert died.value.fields["code"] == -9
    with pytest.raises(Broken, match=r"runtime\.worker-died") as loud:
        fit(Loud(task="classification"), TRAIN, None, Curve())
    assert loud.value.fields["reason"] == "ValueError"
    assert TRAIN.texts[0] not in str(loud.value)
    with pytest.raises(Invalid, match=r"model\.too-few-labels"):
        fit(Proud(task="classification"), TRAIN, None, Curve())


def test_cancelling_ends_the_process(fit):
    class Stop(Watcher):
        def advance(self, n=1, **figures):
            raise Cancelled

    with pytest.raises(Cancelled):
        fit(Far(OracleHyper(fit_s=30.0), task="classification"), TRAIN, None, Curve(Stop()))


def test_cores_are_dealt_out():
    dealt = deal_cores(2)
    assert len(dealt) == 2
    assert set(dealt[0]) | set(dealt[1]) == set(os.sched_getaffinity(0))


@pytest.mark.slow
def test_a_parallel_selection_chooses_as_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    far = [OracleHyper(error=e, salt=str(e)) for e in (0.1, 0.05)]
    monkeypatch.setattr(apart, "WORTH_S", 0.0)
    monkeypatch.setattr(Far, "tried", far)
    monkeypatch.setattr(Dead, "tried", [OracleHyper(salt="dead")])
    found = []
    for n in (1, 2):
        fit = FitApart(LocalWorkers(), parallel=n)
        host = InProcess(Far, Dead)
        outcome = select(
            TRAIN, VALID, examples(100, start=300), families={"far": Far, "dead": Dead}, ports=Ports(host, host.write, fit=fit),
            plan=Plan(120.0, parallel=n), work=tmp_path / str(n),
        )  # fmt: skip
        fit.close()
        found.append((outcome.verdict["valid"], outcome.verdict["test"], sorted((r["name"], r["state"], r["metrics"].get("score")) for r in outcome.document["runs"])))
    assert found[0] == found[1]
    assert ("dead-1", "failed", None) in found[0][2]
