"""The rate of a queue under light and full load, on a clock of its own."""

import pytest

from wenfang.serve.pressure import Pressure


def seconds(pressure, start, n, per_s, *, full, ready=2, done=0):
    """n seconds in which ``per_s`` texts are answered each; (the time, how many were answered altogether)."""
    for step in range(1, 10 * n + 1):
        now = start + step / 10
        if not full:
            pressure.empty(now - 0.05)
        pressure.tick(now, done + round(per_s * step / 10), waiting=5 if full else 0, ready=ready)
    return start + n, done + per_s * n


def test_light_load_says_nothing_of_what_could_be_done():
    pressure = Pressure(0.0)
    now, done = seconds(pressure, 0.0, 3, 4, full=False)
    assert pressure.rate_per_s == pytest.approx(4, abs=0.5)
    assert pressure.capacity_per_s(2, 900.0) == 900.0
    now, done = seconds(pressure, now, 5, 400, full=True, done=done)
    assert pressure.capacity_per_s(2, 900.0) == pytest.approx(400, rel=0.1)
    seconds(pressure, now, 5, 4, full=False, done=done)
    assert pressure.capacity_per_s(2, 900.0) == pytest.approx(400, rel=0.1)  # light load again: still known
    assert pressure.capacity_per_s(4, 900.0) == pytest.approx(800, rel=0.1)  # twice the replicas


def test_a_queue_stands_when_it_was_not_empty_for_long():
    pressure = Pressure(0.0)
    assert not pressure.stands(0.4)
    assert pressure.stands(0.6)
    pressure.empty(0.7)
    assert not pressure.stands(1.0)


def test_seconds_without_replicas_or_answers_teach_nothing():
    pressure = Pressure(0.0)
    now, done = seconds(pressure, 0.0, 3, 100, full=True, ready=1)
    seconds(pressure, now, 3, 0, full=True, ready=0, done=done)
    assert pressure.capacity_per_s(1) == pytest.approx(100, rel=0.1)
