"""The model of the queue: known answers of queueing theory, the pool's own policy, shared cores, and what a plan makes of it. No clock, no process."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenfang.serve.costs import CostCurve
from wenfang.serve.planning.formula import by_formula
from wenfang.serve.planning.search import Machine, Wanted, expect, find, highest_rate, needed_cores
from wenfang.serve.planning.simulate import Policy, Traffic, simulate
from wenfang.serve.planning.times import HostModel, ServiceTimes
from wenfang.stats.queueing import wait_mean, wait_quantile

ALONE = CostCurve(0.0, 0.0, 1)
"""Every text goes by itself."""
PLENTY = HostModel(64)
EXPONENTIAL = tuple(-math.log(1 - (i + 0.5) / 2000) for i in range(2000))
CONSTANT = ServiceTimes((1,), (1,), ((10.0,),))
RANDOM = ServiceTimes((1,), (1,), ((10.0,),), spread=EXPONENTIAL)
BERT = ServiceTimes((1, 8), (8, 32, 64), ((2.0, 5.0, 9.0), (10.0, 30.0, 60.0)), spread=(0.95, 1.0, 1.0, 1.05, 1.2))
BERT_CURVE = CostCurve(0.12, 1.0, 8)
LENGTHS = (10, 20, 30, 40, 50)
TWO_CORES = HostModel(2, (1.0, 0.95), request_ms=0.2, batch_ms=0.1, path_ms=0.2)


def queue(times, rate_per_s, servers, *, host=PLENTY, requests=25_000, seed=1, curve=ALONE, **traffic):
    return simulate(times, host, Traffic(traffic.pop("lengths", (1,)), rate_per_s=rate_per_s, **traffic), policy=Policy(servers, curve, 10**9), requests=requests, seed=seed)


# ------------------------------------------------------------ known answers
@pytest.mark.parametrize("load,servers", [(0.5, 1), (0.7, 1), (0.5, 2), (0.8, 2), (0.8, 4)])
def test_exponential_times_are_m_m_k(load, servers):
    found = queue(RANDOM, load * servers * 100, servers)
    assert found.mean_ms == pytest.approx(10 + wait_mean(load * servers / 10, 10, 1.0, servers), rel=0.12)
    assert found.replica_busy == pytest.approx(load, rel=0.03)
    if servers == 1:  # the whole time of M/M/1 is exponential
        assert found.p95_ms == pytest.approx(10 * math.log(20) / (1 - load), rel=0.1)
        assert found.p99_ms == pytest.approx(10 * math.log(100) / (1 - load), rel=0.15)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_times_are_m_d_1(load):
    assert queue(CONSTANT, load * 100, 1).mean_ms == pytest.approx(10 + 10 * load / (2 * (1 - load)), rel=0.06)


def test_even_arrivals_do_not_wait_and_bursts_wait_longer():
    even = queue(CONSTANT, 80, 1, requests=4000, dispersion=0.0)
    assert even.p99_ms == pytest.approx(10.0)
    by_chance, bursts = queue(CONSTANT, 50, 1), queue(CONSTANT, 50, 1, dispersion=4.0)
    # Kingman's bound of G/G/1 in heavy traffic; at half load it is near
    assert bursts.mean_ms - 10 > 2 * (by_chance.mean_ms - 10)
    assert bursts.answered_per_s == pytest.approx(50, rel=0.05)


def test_a_closed_loop_of_one_is_the_way_there_and_back():
    host = HostModel(4, request_ms=1.0, batch_ms=0.5, client_ms=2.0, path_ms=3.0)
    found = simulate(CONSTANT, host, Traffic((1,), at_once=1), policy=Policy(2, ALONE), requests=200)
    assert found.p50_ms == found.p99_ms == pytest.approx(16.5)
    assert found.answered_per_s == pytest.approx(1000 / 16.5, rel=0.01)
    assert found.replica_busy == pytest.approx(10 / 16.5 / 2, rel=0.01)


# ------------------------------------------------------------ cores
def test_two_replicas_on_one_core_are_one():
    one, two = (queue(CONSTANT, 0.0, n, host=HostModel(1), requests=2000, at_once=8) for n in (1, 2))
    assert two.answered_per_s == pytest.approx(one.answered_per_s, rel=0.01)
    assert two.cores_busy == pytest.approx(1.0, rel=0.01)


def test_replicas_that_wait_for_somebody_else_do_not_want_a_core():
    afar = ServiceTimes((1,), (1,), ((10.0,),), cpu_share=0.0)
    assert queue(afar, 0.0, 8, host=HostModel(1), requests=2000, at_once=16).answered_per_s == pytest.approx(800, rel=0.01)


def test_the_gateway_and_the_client_take_from_the_same_cores():
    rates = [queue(CONSTANT, 0.0, 2, host=HostModel(2, (1.0, 1.0), request_ms=g, client_ms=c), requests=3000, at_once=32).answered_per_s for g, c in ((0, 0), (1.0, 0), (1.0, 1.0))]
    assert rates[0] == pytest.approx(200, rel=0.01)
    # 10 ms of the model and 1 or 2 ms beside it on two cores
    assert rates[1] == pytest.approx(2000 / 11, rel=0.03)
    assert rates[2] == pytest.approx(2000 / 12, rel=0.03)


def test_a_gateway_that_is_full_is_the_limit():
    assert queue(CONSTANT, 0.0, 40, host=HostModel(64, request_ms=2.0), requests=4000, at_once=400).answered_per_s == pytest.approx(500, rel=0.02)


def test_cores_that_slow_each_other_down():
    host = HostModel(4, (1.0, 0.8, 0.7))
    assert [host.speed(n) for n in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)] == [1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.35]


# ------------------------------------------------------------ batches
def test_batches_are_the_pools_own():
    """With constant lengths a batch costs its fixed part once: the closed loop runs as fast as full batches do."""
    times = ServiceTimes((1, 8), (20,), ((10.0,), (24.0,)))
    found = queue(times, 0.0, 1, lengths=(20,), curve=CostCurve(0.1, 8.0, 8), requests=4000, at_once=64)
    assert found.batch_mean == pytest.approx(8.0)
    assert found.answered_per_s == pytest.approx(8000 / 24, rel=0.01)


def test_texts_of_one_request_go_to_all_that_are_free():
    found = queue(CONSTANT, 0.0, 4, requests=400, at_once=1, texts_each=4)
    assert found.p50_ms == pytest.approx(10.0)
    assert queue(CONSTANT, 0.0, 2, requests=400, at_once=1, texts_each=4).p50_ms == pytest.approx(20.0)


def test_padding_counts_as_measured():
    lengths = [10, 30]
    table = ((2.0, 4.0), (4.0, 8.0))
    assert [ServiceTimes((1, 2), (10, 30), table, padded=p).batch_ms(lengths) for p in (1.0, 0.0, 0.5)] == [8.0, 6.0, 7.0]


def test_beyond_what_was_measured_the_line_goes_on():
    times = ServiceTimes((1, 4), (10, 30), ((2.0, 4.0), (5.0, 11.0)))
    assert times.batch_ms([50]) == pytest.approx(6.0)
    assert times.batch_ms([10] * 7) == pytest.approx(8.0)
    assert ServiceTimes((1,), (5,), ((3.0,),)).batch_ms([100] * 9) == 3.0


def test_a_full_queue_refuses():
    found = simulate(CONSTANT, PLENTY, Traffic((1,), rate_per_s=200), policy=Policy(1, ALONE, queue_max=10), requests=5000)
    assert found.refused == pytest.approx(0.5, abs=0.03)
    assert found.p99_ms <= 120


def test_askers_take_turns_and_nothing_is_lost():
    assert queue(CONSTANT, 50, 1, requests=5000, askers=5).answered_per_s == pytest.approx(50, rel=0.06)


def test_equal_seed_equal_outcome():
    assert queue(BERT, 200, 2, host=TWO_CORES, lengths=LENGTHS, curve=BERT_CURVE, requests=2000) == queue(
        BERT, 200, 2, host=TWO_CORES, lengths=LENGTHS, curve=BERT_CURVE, requests=2000
    )


rates = st.floats(20, 300)


@settings(max_examples=5, deadline=None)
@given(rate=rates, more=st.floats(1.2, 2.0), replicas=st.integers(1, 3))
def test_more_comes_in_nothing_gets_faster(rate, more, replicas):
    less, much = (queue(BERT, r, replicas, lengths=LENGTHS, curve=BERT_CURVE, requests=3000) for r in (rate, rate * more))
    assert much.p95_ms >= 0.93 * less.p95_ms
    assert much.replica_busy >= 0.95 * less.replica_busy


@settings(max_examples=5, deadline=None)
@given(rate=rates, replicas=st.integers(1, 4))
def test_another_replica_with_a_core_of_its_own_makes_nothing_slower(rate, replicas):
    few, many = (queue(BERT, rate, n, lengths=LENGTHS, curve=BERT_CURVE, requests=3000) for n in (replicas, replicas + 1))
    assert many.p95_ms <= 1.07 * few.p95_ms
    assert many.mean_ms <= 1.05 * few.mean_ms


# ------------------------------------------------------------ the formula
@pytest.mark.parametrize("load", [0.3, 0.6])
def test_the_formula_agrees_where_it_is_exact(load):
    rate = load * 200
    found = by_formula(RANDOM, PLENTY, Traffic((1,), rate_per_s=rate), policy=Policy(2, ALONE), share=0.99)
    assert found >= wait_quantile(0.99, rate / 1000, 10.0, cv2=1.0, servers=2)
    assert found == pytest.approx(queue(RANDOM, rate, 2).p99_ms, rel=0.35)


def test_the_formula_sees_no_end_where_there_is_none():
    assert math.isinf(by_formula(CONSTANT, PLENTY, Traffic((1,), rate_per_s=150), policy=Policy(1, ALONE), share=0.9))


# ------------------------------------------------------------ the plan
MACHINE = Machine(BERT, TWO_CORES, BERT_CURVE, rounds=(0.97, 1.0, 1.03), requests=800)


def test_the_highest_rate_is_where_the_limit_is():
    wanted = Wanted(Traffic(LENGTHS, rate_per_s=1), 50.0)
    rate = highest_rate(MACHINE, wanted, MACHINE.policy(2))
    below, above = (MACHINE.outcome(Traffic(LENGTHS, rate_per_s=r * rate), MACHINE.policy(2)).p99_ms for r in (0.9, 1.1))
    assert below <= 55 and above > 45
    assert highest_rate(MACHINE, Wanted(Traffic(LENGTHS, rate_per_s=1), 100.0), MACHINE.policy(2)) > rate
    assert highest_rate(MACHINE, Wanted(Traffic(LENGTHS, rate_per_s=1), 5.0), MACHINE.policy(2)) == 0.0


def test_a_plan_that_holds_has_the_fewest_replicas_that_do():
    found = find(MACHINE, Wanted(Traffic(LENGTHS, rate_per_s=90), 40.0), shares=(0.5, 1.0))
    assert found.met and found.replicas == 1 and found.cores == 2 and found.gateways == 1
    assert found.expected is not None and found.expected.p99_ms.low <= found.expected.p99_ms.value <= found.expected.p99_ms.high
    assert found.expected.p99_ms.value <= 40.0
    assert found.highest_per_s >= 85 and found.machine_per_s[0] > found.highest_per_s and found.machine_per_s[1] == 2
    assert [e.rate_per_s for e in found.table] == [pytest.approx(found.highest_per_s / 2, abs=0.01), pytest.approx(found.highest_per_s, abs=0.01)]


def test_a_plan_that_cannot_hold_says_how_many_cores_would():
    wanted = Wanted(Traffic(LENGTHS, rate_per_s=900), 50.0)
    found = find(MACHINE, wanted, shares=())
    assert not found.met and found.expected is None and found.machine_per_s[0] < 500
    assert 5 <= found.cores <= 9
    assert needed_cores(MACHINE, Wanted(Traffic(LENGTHS, rate_per_s=9e5), 50.0)) == pytest.approx(found.cores * 1000, rel=0.5)
    assert needed_cores(MACHINE, Wanted(Traffic(LENGTHS, rate_per_s=900), 5.0)) == 0


def test_little_memory_allows_few_replicas():
    cramped = Machine(BERT, TWO_CORES, BERT_CURVE, replicas_max=1, requests=500)
    assert find(cramped, Wanted(Traffic(LENGTHS, rate_per_s=250), 60.0), shares=()).replicas == 1


def test_a_model_elsewhere_may_have_more_replicas_than_cores():
    afar = Machine(ServiceTimes((1,), (1,), ((100.0,),), cpu_share=0.02), TWO_CORES, ALONE, requests=500)
    found = find(afar, Wanted(Traffic((1,), rate_per_s=100), 150.0), shares=())
    assert found.met and 10 < found.replicas < 25


def test_slow_rounds_widen_what_is_expected():
    steady, shaky = (expect(Machine(BERT, TWO_CORES, BERT_CURVE, rounds=r), Traffic(LENGTHS, rate_per_s=200), MACHINE.policy(2), requests=3000) for r in ((1.0,), (0.8, 1.0, 1.3)))
    assert shaky.p99_ms.high - shaky.p99_ms.low > steady.p99_ms.high - steady.p99_ms.low
