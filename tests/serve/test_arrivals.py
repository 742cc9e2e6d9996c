"""What a pool remembers of what came: lengths, texts in a request, bursts; never a text, and old counts fade."""

import random

import pytest

from wenfang.serve.arrivals import FADE_TICKS, Arrivals
from wenfang.serve.batching import Item, Ticket

TICKET = Ticket(1, 1, 0.0, 1e9, lambda _: None)


def items(*lengths):
    return [Item("字" * (n - 2), 0, TICKET) for n in lengths]


def test_lengths_are_kept_to_a_step():
    arrivals = Arrivals()
    for n in (3, 10, 10, 100, 5000):
        arrivals.came(items(n))
    told = arrivals.document()
    assert told["texts"] == told["requests"] == 5
    assert [n for _, n in told["lengths"]] == [1, 2, 1, 1]
    assert [length for length, _ in told["lengths"]] == [pytest.approx(n, rel=0.1, abs=1) for n in (3, 10, 100, 5000)]
    assert "字" not in str(told)


def told_of(counts):
    arrivals = Arrivals()
    for n in counts:
        for _ in range(n):
            arrivals.came(items(10))
        arrivals.tick()
    return arrivals.document()["dispersion"]


def poisson(rng, mean):
    n, at = 0, rng.expovariate(mean)
    while at < 1:
        n, at = n + 1, at + rng.expovariate(mean)
    return n


def test_dispersion_tells_chance_from_bursts_and_from_even_times():
    rng = random.Random(1)
    assert told_of([5] * 1000) == pytest.approx(0.0, abs=0.05)
    assert told_of([poisson(rng, 5) for _ in range(4000)]) == pytest.approx(1.0, abs=0.15)
    assert told_of([10 * poisson(rng, 0.5) for _ in range(4000)]) == pytest.approx(10.0, rel=0.2)
    drifting = [poisson(rng, 1 + i / 400) for i in range(4000)]  # a rate that grows is no burst
    assert told_of(drifting) == pytest.approx(1.0, abs=0.15)


def test_nothing_came():
    arrivals = Arrivals()
    for _ in range(50):
        arrivals.tick()
    assert arrivals.document() == {"requests": 0.0, "texts": 0.0, "lengths": [], "dispersion": 1.0}


def test_old_counts_fade():
    arrivals = Arrivals()
    arrivals.came(items(10, 10))
    for _ in range(FADE_TICKS):
        arrivals.tick()
    assert arrivals.document()["lengths"] == [[10, 1.0]] and arrivals.document()["requests"] == 0.5
    for _ in range(4 * FADE_TICKS):
        arrivals.tick()
    assert arrivals.document()["lengths"] == []
