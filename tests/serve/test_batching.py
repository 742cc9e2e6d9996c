"""Which texts share a batch: properties of the greedy choice, and the cost curve it stands on."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.serve.batching import Item, Ticket, choose
from wenfang.serve.costs import CostCurve, fit, measure


def ticket(n=1):
    return Ticket(n, 1, 0.0, 1.0, lambda t: None)


def items(lengths):
    return [Item("x" * n, 0, ticket()) for n in lengths]


HEAVY = CostCurve(item_ms=0.1, fixed_ms=0.8, batch_max=8)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60), st.integers(1, 16), st.floats(0, 1), st.floats(0, 50))
def test_every_text_is_answered_once_and_the_oldest_leads(lengths, limit, item_ms, fixed_ms):
    waiting = items(lengths)
    everything, seen = list(waiting), []
    curve = CostCurve(item_ms, fixed_ms, 8)
    while waiting:
        oldest = waiting[0]
        batch = choose(waiting, curve, limit)
        assert batch[0] is oldest
        assert 1 <= len(batch) <= min(limit, 8)
        seen += batch
    assert len(seen) == len(everything)
    assert set(map(id, seen)) == set(map(id, everything))


def test_near_lengths_share_and_far_ones_do_not():
    waiting = items([10, 300, 11, 9, 290, 10])
    assert sorted(len(i.text) for i in choose(waiting, HEAVY, 8)) == [9, 10, 10, 11]
    assert [len(i.text) for i in waiting] == [300, 290]


def test_padding_is_bought_only_when_a_batch_of_its_own_costs_more():
    free_batches = CostCurve(item_ms=0.1, fixed_ms=0.0, batch_max=8)
    waiting = items([10, 20, 10])
    assert [len(i.text) for i in choose(waiting, free_batches, 8)] == [10, 10]
    flat = CostCurve(item_ms=0.0, fixed_ms=1.0, batch_max=8)
    assert len(choose(items([1, 1000, 5]), flat, 8)) == 3


def test_length_groups_save_padding():
    rng = random.Random(1)
    lengths = [max(1, int(rng.lognormvariate(3.4, 0.5))) for _ in range(64)]
    waiting, padded = items(lengths), 0
    while waiting:
        batch = choose(waiting, HEAVY, 8)
        padded += max(i.length for i in batch) * len(batch)
    own = sum(n + 2 for n in lengths)
    in_order = sum(max(lengths[i : i + 8]) * 8 + 16 for i in range(0, 64, 8))
    assert padded < 1.15 * own
    assert in_order > 1.4 * own


def test_a_text_from_a_dead_replica_goes_alone():
    waiting = items([5, 5, 5])
    waiting[0].attempts = 1
    assert len(choose(waiting, HEAVY, 8)) == 1
    assert len(choose(waiting, HEAVY, 8)) == 2


def test_what_nobody_wants_is_dropped():
    waiting = items([5, 5, 5])
    waiting[1].ticket.cancel()
    assert len(choose(waiting, HEAVY, 8)) == 2
    assert waiting == []
    gone = items([5])
    gone[0].ticket.cancel()
    assert choose(gone, HEAVY, 8) == []


def test_a_ticket_is_done_once():
    done = []
    t = Ticket(2, 1, 0.0, 1.0, done.append)
    t.answer(0, "a")
    assert not done
    t.answer(1, "b")
    t.fail(ValueError())
    t.answer(1, "c")
    assert done == [t]
    assert t.outputs == ["a", "b"]
    assert t.error is None


class Machine:
    """A clock that a made-up model moves on: ``ms = a·(texts × longest) + b``, and beyond ``knee`` texts nothing gets cheaper."""

    def __init__(self, a, b, knee=10**9):
        self.a, self.b, self.knee, self.now, self.calls = a, b, knee, 0.0, 0

    def predict(self, texts):
        self.calls += 1
        n = len(texts)
        self.now += (self.a * n * max(map(len, texts)) * (1 + 0.02 * max(0, n - self.knee)) + self.b) / 1000

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("a", "b", "knee", "best"), [(0.1, 0.8, 8, 8), (0.1, 0.0, 10**9, 1), (0.001, 5.0, 10**9, 32), (0.1, 0.0, 2, 1)])
def test_the_batch_that_pays_is_measured(a, b, knee, best):
    machine = Machine(a, b, knee)
    curve = measure(machine.predict, batch_max=32, budget_s=1e9, clock=machine)
    assert curve.batch_max == best
    if knee > 32:
        assert (curve.item_ms, curve.fixed_ms) == (pytest.approx(a, rel=1e-3), pytest.approx(b, abs=1e-3))


def test_measuring_keeps_to_its_budget():
    slow = Machine(10.0, 0.0)
    curve = measure(slow.predict, batch_max=64, budget_s=0.1, clock=slow)
    assert curve.batch_max == 1
    assert slow.calls <= 6


def test_fit_never_says_less_than_nothing():
    assert fit([(10, 5.0), (20, 4.0)])[0] == 0.0
    assert fit([(8, 1.0)]) == (0.0, 1.0)
