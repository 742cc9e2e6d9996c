"""Limits of keys, services and projects: the rate holds over time, a big request passes and pays, nobody pays for another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Busy
from wenfang.serve.flow import BURST_S, Flow, Rate


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(st.floats(0.5, 500), st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 40)), min_size=1, max_size=300))
def test_over_any_arrivals_no_more_passes_than_rate_and_burst_allow(rate, arrivals):
    clock = Clock()
    flow = Flow(clock=clock)
    owner = ("key", "k", Rate(texts_per_s=rate))
    passed, last, refused = 0, 0, 0
    for wait_s, texts in arrivals:
        clock.now += wait_s
        try:
            flow.admit([owner], texts)
            passed += texts
            last = texts
        except Busy:
            refused += 1
    assert refused == sum(flow.refused.values())
    assert passed - last <= clock.now * rate + max(1.0, rate * BURST_S) + 1e-6


def test_who_comes_back_when_told_is_let_in():
    clock = Clock()
    flow = Flow(clock=clock)
    owner = ("key", "k", Rate(requests_per_s=3.0))
    passed = 0
    for _ in range(200):
        try:
            flow.admit([owner], 1)
            passed += 1
        except Busy as e:
            clock.now += e.fields["retry_after_s"]
            flow.admit([owner], 1)
            passed += 1
    assert passed == 200
    assert 200 / 3.0 - BURST_S - 1 < clock.now < 200 / 3.0 + 1


def test_one_large_request_passes_and_its_sender_waits():
    clock = Clock()
    flow = Flow(clock=clock)
    owner = ("service", "s", Rate(texts_per_s=10.0))
    flow.admit([owner], 1000)
    with pytest.raises(Busy) as refused:
        flow.admit([owner], 1)
    assert refused.value.fields["retry_after_s"] == pytest.approx(98.0, abs=0.1)
    assert flow.refused == {("service", "texts"): 1}


def test_a_refused_request_costs_its_other_owners_nothing():
    clock = Clock()
    flow = Flow(clock=clock)
    generous, poor, other = ("project", "p", Rate(requests_per_s=1.0)), ("key", "k", Rate(requests_per_s=0.1)), ("key", "l", Rate(requests_per_s=10.0))
    flow.admit([generous, poor], 1)
    for _ in range(10):
        with pytest.raises(Busy):
            flow.admit([generous, poor], 1)
    flow.admit([generous, other], 1)  # the project's second request: the refused ones took nothing


def test_tokens_are_paid_when_they_are_known():
    clock = Clock()
    flow = Flow(clock=clock)
    owner = ("key", "k", Rate(tokens_per_s=50.0))
    flow.admit([owner], 1)
    flow.admit([owner], 1)
    flow.charge([owner], 600)
    with pytest.raises(Busy):
        flow.admit([owner], 1)
    clock.now = 10.1
    flow.admit([owner], 1)


def test_gateways_share_a_limit_and_a_new_limit_holds_at_once():
    clock = Clock()
    flow = Flow(2, clock)
    for _ in range(10):
        flow.admit([("key", "k", Rate(requests_per_s=10.0))], 1)
    with pytest.raises(Busy):
        flow.admit([("key", "k", Rate(requests_per_s=10.0))], 1)
    clock.now += 0.05
    flow.admit([("key", "k", Rate(requests_per_s=1000.0))], 1)


@pytest.mark.parametrize("rate", [1e-6, 1e-308, 5e-324])
def test_a_rate_next_to_nothing_is_a_refusal_and_no_fault(rate):
    clock = Clock()
    flow = Flow(share=4, clock=clock)
    owner = ("key", "k", Rate(requests_per_s=rate))
    flow.admit([owner], 1)
    clock.now = 1.0
    with pytest.raises(Busy) as refused:
        for _ in range(3):
            flow.admit([owner], 1)
    assert 0 < refused.value.fields["retry_after_s"] <= 86_401


def test_buckets_of_those_who_ask_no_more_are_forgotten_and_debts_are_not():
    clock = Clock()
    flow = Flow(clock=clock)
    debtor = ("key", "debtor", Rate(texts_per_s=1.0))
    flow.admit([debtor], 100_000)
    for n in range(10_000):
        clock.now += 0.5
        flow.admit([("key", f"k{n}", Rate(requests_per_s=10.0))], 1)
    assert len(flow._buckets) <= 1025
    with pytest.raises(Busy):
        flow.admit([debtor], 1)
