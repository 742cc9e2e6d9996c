"""Waiting by formula, against tables and by counting."""

import math
import random

import pytest

from wenfang.stats.queueing import erlang_c, wait_mean, wait_quantile


@pytest.mark.parametrize("servers,load,waiting", [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092), (100, 90.0, 0.2169)])
def test_erlang_c_of_the_tables(servers, load, waiting):
    assert erlang_c(servers, load) == pytest.approx(waiting, abs=5e-4)


def test_more_than_goes_out_waits_for_ever():
    assert erlang_c(2, 2.0) == 1.0
    assert math.isinf(wait_mean(1.0, 2.0, 1.0, 2)) and math.isinf(wait_quantile(0.5, 1.0, 2.0, cv2=1.0, servers=2))


def test_who_rarely_waits_has_a_quantile_of_nothing():
    assert wait_quantile(0.5, 0.1, 1.0, cv2=1.0, servers=1) == 0.0


def test_one_server_of_constant_time_counted():
    """Lindley's recursion of M/D/1, a hundred thousand arrivals."""
    rng, wait, waits = random.Random(3), 0.0, []
    for _ in range(100_000):
        wait = max(0.0, wait + 1.0 - rng.expovariate(0.7))
        waits.append(wait)
    assert wait_mean(0.7, 1.0, 0.0, 1) == pytest.approx(sum(waits) / len(waits), rel=0.05)
