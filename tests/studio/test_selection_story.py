"""A selection through the studio: scenario, champion, explanation, the same again."""

import pytest

from wenfang.core.errors import NotFound
from wenfang.core.records import ModelVersion
from wenfang.data.corpus import write_corpus
from wenfang.guard.roles import LOCAL
from wenfang.studio import operations
from wenfang.studio.champions import champion_of

OPS = operations()


def run(studio, operation, **fields):
    op = OPS[operation]
    return studio.run(op, LOCAL, op.request.model_validate(fields))


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    return str(write_corpus(tmp_path_factory.mktemp("corpus"), rows=900)["tickets"])


def test_champion_explanation_and_the_same_again(studio, tickets):
    wanted = {"train": tickets, "name": "t", "families": ["majority", "linear"], "budget_s": 25}
    first = run(studio, "selection.run", **wanted, preset="customer-service", max_latency_ms=200.0)
    assert (first.promoted, first.champion, first.metric) == (True, None, "accuracy")
    told = run(studio, "selection.show", id=first.id).document
    assert told["limits"]["max_latency_ms"] == 200.0
    assert "homophones" in {t["name"] for t in told["final"]["robustness"]}
    story = run(studio, "selection.explain", id=first.id, lang="zh")
    assert "为什么选它" in story.text
    assert set(story.sections) == {"why", "limits", "tried", "given-up", "more-time"}
    again = run(studio, "selection.rerun", id=first.id)
    assert again.same or again.note == "select.rerun-was-cut", again.figures

    worse = run(studio, "selection.run", **{**wanted, "families": ["majority"]})
    assert worse.champion["verdict"] == "worse"
    assert not worse.promoted
    assert champion_of(studio, "default", "t").id == first.model_version
    assert {"verdict.not-promoted", "verdict.champion-kept"} <= set(dict(worse.verdict))
    forced = run(studio, "selection.run", **{**wanted, "families": ["majority"], "promote": "always", "seed": 1})
    assert forced.promoted
    assert champion_of(studio, "default", "t").id == forced.model_version
    assert len(studio.find(ModelVersion, name="t")) == 3


def test_scenarios_are_listed_and_unknown_ones_refused(studio, tickets):
    assert run(studio, "selection.presets", lang="zh").presets[0].name == "customer-service"
    with pytest.raises(NotFound, match="unknown-preset"):
        run(studio, "selection.run", train=tickets, preset="weather")
