"""Measuring real replica and gateway processes whose times are known. Sleeps never end early, and a busy machine only adds: bounds are wide above."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from planned import CHARACTER_MS, FIXED_MS
from wenfang.core.settings import Serve
from wenfang.runtimes.host import LocalReplicaHost
from wenfang.serve.planning.client import ask_at_random
from wenfang.serve.planning.gateway import MeasuredGateway
from wenfang.serve.planning.machine import free_bytes, measure_machine
from wenfang.serve.planning.measure import _fit, length_of, measure_times, said_curve
from wenfang.serve.planning.times import ServiceTimes
from wenfang.serve.planning.way import ask_bodies

GATEWAY = "wenfang.doors.gateway:main"
TEXTS = [("字" * n, "") for n in (8, 12, 16, 20, 24, 28, 32, 36, 40, 60)]


@pytest.fixture
def host(folder):
    return LocalReplicaHost(folder / "keys", entry="planned:main")


def test_times_are_those_of_the_model(host):
    replica = host.start(Path("known"), batch_max=4)
    try:
        curve = said_curve(replica, 4)
        timed = measure_times(replica, TEXTS, curve=curve, budget_s=0.5)
    finally:
        replica.close()
    times = timed.times
    assert times.sizes[0] == 1 and times.sizes[-1] == curve.batch_max
    assert times.lengths == tuple(sorted(times.lengths)) and times.lengths[-1] == 62
    for size, row in zip(times.sizes, times.ms, strict=True):
        for length, ms in zip(times.lengths, row, strict=True):
            true = FIXED_MS + CHARACTER_MS * size * (length - 2)
            assert true <= ms
    assert times.cpu_share < 0.6
    assert 0.0 <= times.padded <= 1.0
    assert len(times.spread) >= 30 and len(timed.rounds) >= 3 and timed.single_ms


@pytest.mark.parametrize("padded", [0.0, 0.5, 1.0])
def test_what_padding_costs_is_found_however_slow_a_round_was(padded):
    times = ServiceTimes((1, 8), (10, 50), ((2.0, 6.0), (10.0, 42.0)))
    true, rng, slow = replace(times, padded=padded), random.Random(2), (0.8, 1.0, 3.0)
    drawn = [([rng.randint(10, 50) for _ in range(rng.randint(1, 8))], r) for r in range(3) for _ in range(20)]
    timed = _fit(times, [(lengths, slow[r] * true.batch_ms(lengths) * rng.uniform(0.97, 1.03), r) for lengths, r in drawn], slow)
    assert timed.times.padded == pytest.approx(padded, abs=0.1)
    assert timed.error < 0.05 and timed.rounds == slow


def test_pairs_are_asked_as_pairs(host):
    replica = host.start(Path("known"), batch_max=2, task="matching")
    try:
        timed = measure_times(replica, [("问题", "答案" * 5), ("短", "更短")], curve=said_curve(replica, 2), budget_s=0.1)
    finally:
        replica.close()
    assert timed.times.lengths == (5, 14)


def test_a_whole_machine_with_a_gateway_of_its_own(host):
    told = []
    found = measure_machine(host, Path("known"), texts=TEXTS, serve=Serve(batch_max=4), task="classification", gateway_entry=GATEWAY, budget_s=0.5, told=lambda: told.append(1))
    machine, way = found.machine, found.way
    assert machine.host.request_ms > 0 and machine.host.batch_ms >= 0 and machine.host.path_ms >= 0
    assert machine.host.speeds[0] == 1.0 and len(machine.host.speeds) <= machine.host.cores
    assert way.lone_ms[0] >= FIXED_MS and way.full_per_s > 0 and way.client_ms > 0
    assert found.replica_bytes > 1e6 and way.gateway_bytes > 1e6 and machine.replicas_max >= 1
    assert free_bytes() > 0 and len(told) >= 5


def test_requests_at_random_times_are_all_answered(host):
    replica = host.start(Path("known"), batch_max=4)
    try:
        with MeasuredGateway(host, GATEWAY, sockets=[replica.path], serve=Serve(wait_s=0.0), task="classification") as gateway:
            heard = ask_at_random(gateway.port, ask_bodies(TEXTS, gateway.key), 60, seconds=1.0, warm_s=0.2)
            assert set(heard.statuses) == {200} and len(heard.latencies_ms) == heard.statuses[200]
            assert 20 <= heard.statuses[200] <= 120
            assert gateway.batches()[1] >= heard.statuses[200]
            assert gateway.cpu_s() > 0
    finally:
        replica.close()


def test_lengths_are_the_gateways():
    assert length_of(("四个汉字", "")) == 6 and length_of(("四个汉字", "两个")) == 8
