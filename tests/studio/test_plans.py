"""What a plan says of a real model on this machine, and every way to ask wrongly. The figures are the machine's: here only whether they fit together."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from crash_world import publish, run
from pydantic import ValidationError

from wenfang.core.errors import Conflict, Denied, Invalid, NotFound, Unsupported
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.words import say
from wenfang.guard.roles import Actor, permissions_of
from wenfang.studio import operations
from wenfang.studio.plan_picture import rate_picture
from wenfang.studio.plans import milliseconds
from worlds import separable, write_csv

OP = operations()["service.plan"]
FIELDS = {"service": "desk", "rps": 20, "p99": "5s", "measure_s": 1, "followed": 500}
ENGINEER = Actor(id="ky_x", name="x", role="engineer", permissions=permissions_of("engineer"), project=None, local=False)


@pytest.fixture
def desk(studio):
    """A studio with the service ``desk``."""
    publish(studio)
    run(studio, "service.deploy", service="desk", model_version="tickets", replicas=1)
    return studio


def test_a_plan_of_a_light_model_is_met(desk, tmp_path):
    file = write_csv(tmp_path / "asked.csv", separable(50))
    answer = run(desk, "service.plan", **FIELDS, file=str(file), text="text", plot=str(tmp_path / "plan.svg"))
    assert answer.met and answer.replicas == 1 and answer.threads == 1 and answer.gateways == 1
    assert answer.cores_needed == answer.cores and answer.headroom > 0 and answer.highest_per_s >= 20 and answer.machine_per_s > 0
    e = answer.expected
    assert 0 < e["p50_ms"]["value"] <= e["p95_ms"]["value"] <= e["p99_ms"]["value"] <= 5000
    assert all(span["low"] <= span["value"] <= span["high"] for name, span in e.items() if isinstance(span, dict))
    assert answer.memory_bytes > 1e6 and answer.cost["per_hour"] > 0 and answer.cost["currency"] == "CNY"
    assert len(answer.table) == 7 and answer.table[-1]["rate_per_s"] == pytest.approx(answer.highest_per_s, rel=0.01)
    assert answer.says[0][0] == "plan.met" and ("plan.texts-file", {"n": 50}) in [tuple(s) for s in answer.says]
    assert answer.measured["host"]["request_ms"] > 0
    for lang in ("zh", "en"):
        assert all("{" not in say(key, lang, **fields) for key, fields in answer.says)
    drawn = ET.fromstring((tmp_path / "plan.svg").read_text(encoding="utf-8"))
    assert drawn.tag.endswith("svg") and len(drawn.findall(".//{*}polyline")) == 3
    assert OP.answer.model_validate_json(answer.model_dump_json()).model_dump_json() == answer.model_dump_json()


@pytest.mark.slow
def test_a_rate_beyond_the_machine_says_how_many_cores(desk):
    answer = run(desk, "service.plan", **{**FIELDS, "rps": 900_000, "p99": "300ms"})
    assert not answer.met and answer.expected is None and answer.cores_needed > 10 * answer.cores and answer.gateways > 1
    assert [key for key, _ in answer.says][:2] == ["plan.not-met", "plan.full"]
    assert answer.cost["cores"] == answer.cores_needed
    assert ("plan.texts-assumed", {}) in [tuple(s) for s in answer.says]


def test_a_limit_below_one_text_is_refused(desk):
    with pytest.raises(Invalid, match=r"plan\.limit-too-low"):
        run(desk, "service.plan", **{**FIELDS, "p99": "0.001ms"})


@pytest.mark.parametrize("given,value", [("50ms", 50), ("0.5s", 500), ("20", 20), (12.5, 12.5), (" 7 ms ", 7)])
def test_limits_as_they_are_written(given, value):
    assert milliseconds(given) == value


@pytest.mark.parametrize("given", ["", "ms", "-5ms", "0", "0ms", "5 minutes", "1e3", "nan", "99999999s", "5ms5ms", 0, -1, float("inf"), float("nan")])
def test_what_is_no_limit(desk, given):
    with pytest.raises(Invalid, match=r"plan\.bad-limit"):
        run(desk, "service.plan", **{**FIELDS, "p99": given})


@pytest.mark.parametrize("rps", [0, -1, 1e7, float("nan"), float("inf"), "many"])
def test_absurd_rates(rps):
    with pytest.raises(ValidationError):
        OP.request.model_validate({**FIELDS, "rps": rps})


def test_services_that_cannot_be_planned(desk, tmp_path):
    with pytest.raises(NotFound, match=r"record\.not-found"):
        run(desk, "service.plan", **{**FIELDS, "service": "desc"})
    version = publish(desk, "b")
    writes = version.model_copy(update={"id": new_id("mv"), "task": "generation", "name": "writer", "number": 1})
    desk.tables.commit(Changes(puts=[writes]))
    run(desk, "service.deploy", service="writer", model_version="writer", replicas=1)
    with pytest.raises(Unsupported, match=r"plan\.writes"):
        run(desk, "service.plan", **{**FIELDS, "service": "writer"})
    from wenfang.core.records import Service

    desk.tables.commit(Changes(puts=[Service(id="sv_bare", project="default", name="bare", replicas=1)]))
    with pytest.raises(Conflict, match=r"service\.nothing-deployed"):
        run(desk, "service.plan", **{**FIELDS, "service": "bare"})
    with pytest.raises(Unsupported, match=r"plan\.not-here"):
        run(replace(desk, measuring=None), "service.plan", **FIELDS)


def test_files_that_are_wrong(desk, tmp_path):
    empty = write_csv(tmp_path / "empty.csv", [("", "a"), (" ", "b")])
    for fields, error, code in (
        ({"file": str(tmp_path / "none.csv")}, NotFound, "data.no-file"),
        ({"file": str(empty), "text": "text"}, Invalid, "plan.no-texts"),
        ({"file": str(empty), "dataset": "x"}, Invalid, "plan.one-source"),
        ({"dataset": "nobody"}, NotFound, "record.not-found"),
        ({"plot": str(tmp_path / "plan.png")}, Invalid, "plan.plot-name"),
    ):
        with pytest.raises(error) as e:
            run(desk, "service.plan", **FIELDS, **fields)
        assert e.value.code == code


def test_who_is_not_here_gets_no_files(desk, tmp_path):
    for fields in ({"plot": str(tmp_path / "x.svg")}, {"file": "/etc/hostname"}):
        with pytest.raises(Denied):
            desk.run(OP, ENGINEER, OP.request.model_validate(FIELDS | fields))


def test_a_picture_of_one_rate():
    row = {"rate_per_s": 10.0, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "p99_low_ms": 2.5, "p99_high_ms": 4.0}
    drawn = rate_picture([row], title="<客服> & co", limit_ms=50, rate_per_s=30)
    assert "&lt;客服&gt; &amp; co" in drawn
    ET.fromstring(drawn)
