"""Windows of time, budgets and machines: which bounds hold, what is refused."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Invalid
from wenfang.core.scaling import Scaling
from wenfang.serve.affording import Machine, affordable, check_scaling
from wenfang.serve.windows import DAYS, bounds_at, check_windows

BIG = Machine(64, 1 << 40, core_hour=0.25)
OFFICE = {"name": "office", "days": "mon-fri", "start": "09:00", "end": "18:00", "min": 2, "max": 6}
NIGHT = {"name": "night", "start": "22:00", "end": "06:00", "min": 0, "max": 1}


def scaling(**fields):
    return Scaling.model_validate({"min": 1, "max": 4, **fields})


def refused(code, machine=BIG, **fields):
    with pytest.raises(Invalid) as caught:
        check_scaling(scaling(**fields), machine)
    assert caught.value.code == code
    return caught.value.fields


def test_windows_hold_in_their_time_zone_from_start_until_end():
    spec = scaling(time_zone="Asia/Shanghai", windows=[OFFICE, NIGHT])
    check_scaling(spec, BIG)
    at = lambda text: bounds_at(spec, datetime.fromisoformat(text)).window  # noqa: E731
    assert at("2026-03-02T01:00:00+00:00") == "office"  # Monday, 09:00 in Shanghai
    assert at("2026-03-02T00:59:59+00:00") == "" and at("2026-03-02T10:00:00+00:00") == ""
    assert at("2026-03-01T01:00:00+00:00") == ""  # Sunday
    assert at("2026-03-01T14:00:00+00:00") == "night" and at("2026-03-01T21:59:00+00:00") == "night" and at("2026-03-01T22:00:00+00:00") == ""


def test_a_window_over_the_end_of_the_week_and_a_whole_day():
    spec = scaling(windows=[{**NIGHT, "days": "sun"}, {**OFFICE, "name": "all", "days": "wed", "start": "00:00", "end": "24:00"}])
    check_scaling(spec, BIG)
    at = lambda text: bounds_at(spec, datetime.fromisoformat(text)).window  # noqa: E731
    assert at("2026-03-02T05:00:00+00:00") == "night" and at("2026-03-03T05:00:00+00:00") == ""
    assert at("2026-03-04T00:00:00+00:00") == at("2026-03-04T23:59:00+00:00") == "all" and at("2026-03-05T00:00:00+00:00") == ""


def test_clocks_that_change_follow_the_wall():
    spec = scaling(time_zone="Europe/Berlin", windows=[{**OFFICE, "days": "mon-sun"}])
    assert bounds_at(spec, datetime(2026, 1, 5, 8, 0, tzinfo=UTC)).window == "office" and bounds_at(spec, datetime(2026, 1, 5, 7, 0, tzinfo=UTC)).window == ""
    assert bounds_at(spec, datetime(2026, 7, 6, 7, 0, tzinfo=UTC)).window == "office"


@given(st.lists(st.tuples(st.sampled_from(DAYS), st.integers(0, 1439), st.integers(0, 1440)), min_size=1, max_size=4), st.integers(0, 7 * 24 * 60 - 1))
def test_at_every_time_one_window_holds_or_the_overlap_was_refused(parts, minute):
    windows = [{"name": str(i), "days": d, "start": f"{a // 60:02}:{a % 60:02}", "end": f"{b // 60:02}:{b % 60:02}", "min": i, "max": i + 1} for i, (d, a, b) in enumerate(parts)]
    spec = scaling(windows=windows)

    def holding(spec_, at):
        return [w.name for w in spec_.windows if bounds_at(spec_.model_copy(update={"windows": (w,)}), at).window]

    at = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(minutes=minute)
    try:
        check_windows(spec)
        refusal = ""
    except Invalid as e:
        refusal = e.code
    assert refusal == "scaling.windows-overlap" or (not refusal and len(holding(spec, at)) <= 1)
    assert bounds_at(spec, at).window == (holding(spec, at) or [""])[0]


def test_what_cannot_be_understood_is_refused_by_name():
    assert refused("scaling.unknown-time-zone", time_zone="Asia/Shangai")["near"].startswith("Asia/Shanghai")
    refused("scaling.unknown-time-zone", time_zone="../../etc/passwd")
    for field, value in (("days", "mon-fry"), ("days", ""), ("start", "8"), ("start", "24:00"), ("start", "８:00"), ("end", "24:01"), ("end", "1:60")):
        assert refused("scaling.bad-window", windows=[{**OFFICE, field: value}]) == {"window": "office", "field": field, "value": value}
    assert refused("scaling.windows-overlap", windows=[OFFICE, {**NIGHT, "end": "09:01"}]) == {"window": "night", "other": "office"}
    refused("scaling.window-twice", windows=[OFFICE, {**NIGHT, "name": "office"}])
    refused("scaling.min-over-max", windows=[{**OFFICE, "min": 7}])
    refused("scaling.min-over-max", min=5)


def test_what_the_machine_has_not_is_refused():
    small = Machine(2, 4 << 30)
    assert refused("scaling.machine-cores", small)["fit"] == 2
    refused("scaling.machine-cores", small, max=2, windows=[{**OFFICE, "max": 3}])
    check_scaling(scaling(max=20, resources={"cores": 0.1}), small)
    assert refused("scaling.machine-memory", small, max=2, resources={"memory_bytes": 3 << 30})["fit"] == 1
    assert refused("scaling.never-zero", idle_s=60)["field"] == "idle_s"
    check_scaling(scaling(windows=[NIGHT], idle_s=60), BIG)


def test_a_budget_caps_and_may_not_be_below_the_least():
    assert affordable(scaling(budget={"money_per_hour": 0.6}), BIG) == (2, "money_per_hour")
    assert affordable(scaling(budget={"memory_bytes": 3 << 30}), BIG, memory_bytes=1 << 30) == (3, "memory_bytes")
    assert affordable(scaling(), BIG) == (4, "")
    assert refused("scaling.budget-below-min", min=3, budget={"money_per_hour": 0.6}) == {"where": "min, max", "min": 3, "pays": 2, "part": "budget.money_per_hour"}
    refused("scaling.budget-below-min", min=0, budget={"cores": 0.5})
