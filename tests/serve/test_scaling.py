"""The engine that decides how many replicas there shall be: bounds, cool-downs, monotone in load, and a small world in which it must settle."""

import itertools
import math
import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.scaling import Scaling
from wenfang.serve.figures import WAIT_BOUNDS_MS
from wenfang.serve.observing import Observer
from wenfang.serve.scaling import Load, Scaler, forecast_per_s, needs
from wenfang.serve.windows import Bounds

MANY = (256, "")


def scaling(**fields):
    return Scaling.model_validate({"min": 1, "max": 8, **fields})


def steps(spec, loads, *, present=1, pays=MANY, period_s=0.5, bounds=None, scaler=None, at=1000.0):
    """(seconds, decision) of a service that has what was decided."""
    scaler = scaler or Scaler(at)
    found = []
    for load in loads:
        at += period_s
        decision = scaler.decide(spec, replace(load, period_s=period_s), at, present=present, bounds=bounds or Bounds(spec.min, spec.max), pays=pays)
        assert decision.present == present
        present = decision.wanted
        found.append((at, decision))
    return found


LOADS = st.builds(
    Load,
    period_s=st.just(0.5),
    arrived=st.integers(0, 3000),
    waiting=st.floats(0, 2000),
    in_flight=st.floats(0, 64),
    wait_p95_ms=st.floats(0, 10_000),
    text_s=st.floats(0, 1),
    busy=st.floats(0, 1),
    ready=st.integers(0, 8),
    start_s=st.floats(0, 5),
)
TARGETS = st.sampled_from([{}, {"queue_ms": 50.0}, {"busy": 0.6}, {"in_flight": 3.0}, {"queue_ms": 200.0, "busy": 0.7, "in_flight": 10.0}])
SPECS = st.builds(
    lambda low, more, target, up_s, down_s, idle_s: scaling(min=low, max=max(1, low + more), target=target, cooldown={"up_s": up_s, "down_s": down_s}, idle_s=idle_s),
    st.integers(0, 3),
    st.integers(0, 6),
    TARGETS,
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0.0, 2.0, 10.0]),
    st.sampled_from([1.0, 4.0]),
)


@given(SPECS, st.lists(LOADS, max_size=60), st.integers(0, 12), st.integers(1, 12))
def test_never_above_the_most_nor_below_the_least(spec, loads, present, pays):
    for _, decision in steps(spec, loads, present=present, pays=(pays, "cores")):
        if decision.changes or spec.min <= present <= spec.max:
            assert spec.min <= decision.wanted <= spec.max
        assert not decision.changes or decision.wanted < decision.present or decision.wanted <= max(spec.min, pays)


@given(SPECS, st.lists(LOADS, max_size=60))
def test_nothing_flaps_inside_a_cooldown(spec, loads):
    changes = [(at, d) for at, d in steps(spec, loads, present=spec.max) if d.changes]
    for (before, earlier), (at, later) in itertools.pairwise(changes):
        if later.wanted < later.present:
            assert at - before >= spec.cooldown.down_s
        elif later.present and earlier.wanted > earlier.present:
            assert at - before >= spec.cooldown.up_s
        assert later.reason != "why-woken" or later.present == 0


@given(SPECS, LOADS, LOADS, st.integers(1, 6))
def test_more_load_never_asks_for_fewer(spec, one, other, present):
    worst = [getattr(max((one, other), key=lambda load, name=name: getattr(load, name)), name) for name in ("arrived", "waiting", "in_flight", "wait_p95_ms", "text_s", "busy")]
    more = Load(0.5, *worst, ready=present, start_s=1.0)
    less = replace(one, ready=present, start_s=1.0)
    wanted = [steps(spec, [load], present=present)[0][1].wanted for load in (less, more)]
    assert wanted[0] <= wanted[1]
    high, low = needs(spec.target, more, 90.0, present), needs(spec.target, less, 80.0, present)
    assert all(low[name] <= high[name] for name in low)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20), st.floats(1, 5))
def test_a_forecast_grows_with_what_was_seen_and_is_never_below_it(counts, times):
    samples = [(0.5 * i, 0.5, n) for i, n in enumerate(counts)]
    grown = [(end, seconds, math.ceil(times * n)) for end, seconds, n in samples]
    now = samples[-1][0]
    assert forecast_per_s(samples, now, 2.0) <= forecast_per_s(grown, now, 2.0) * (1 + 1e-6) + 2.0  # rounded up to whole texts
    assert forecast_per_s(samples, now, 2.0) <= 1.5 * max(counts) / 0.5 + 1e-9


def test_a_steady_rate_of_chance_arrivals_is_no_trend():
    rng = random.Random(3)
    samples = [(0.5 * i, 0.5, sum(rng.random() < 0.05 for _ in range(1000))) for i in range(400)]
    leaps = sum(forecast_per_s(samples[: i + 1], samples[i][0], 2.0) > 1.4 * 100 for i in range(20, 400))
    assert leaps <= 8


def test_none_while_nobody_asks_one_at_once_when_somebody_does():
    spec = scaling(min=0, idle_s=10, cooldown={"down_s": 0})
    quiet = steps(spec, [Load(0.5)] * 30)
    assert [(at - 1000, d.wanted, d.reason) for at, d in quiet if d.changes] == [(10.0, 0, "why-idle")]
    woken = steps(spec, [Load(0.5, arrived=1, waiting=1)], present=0)[0][1]
    assert (woken.wanted, woken.reason) == (1, "why-woken")
    assert steps(spec, [Load(0.5)] * 3, present=0)[-1][1].wanted == 0  # a control process that starts again wakes nobody
    stays = steps(scaling(min=0, idle_s=10, cold_start_s=2, cooldown={"down_s": 0}), [Load(0.5, start_s=2.5)] * 30)
    assert {d.wanted for _, d in stays} == {1} and stays[-1][1].reason == "why-slow-start"
    held = Scaler(0.0).decide(spec, Load(0.5), 100.0, present=0, bounds=Bounds(0, 8), pays=MANY, held=True)
    assert held.wanted == 1


def test_windows_and_budgets_say_so():
    spec = scaling(cooldown={"down_s": 60})
    up = steps(spec, [Load(0.5)], bounds=Bounds(3, 6, "office"))[0][1]
    assert (up.wanted, up.reason) == (3, "why-window")
    down = steps(spec, [Load(0.5, arrived=100, text_s=0.1)], present=8, bounds=Bounds(0, 2, "night"))[0][1]
    assert (down.wanted, down.reason) == (2, "why-window-max")
    poor = steps(spec, [Load(0.5, arrived=100, text_s=0.1)], pays=(3, "money_per_hour"))[0][1]
    assert (poor.wanted, poor.reason, poor.fields["part"]) == (3, "why-budget", "budget.money_per_hour")


class World:
    """Replicas that serve texts one after another, and an observer as the control process has one."""

    def __init__(self, spec, text_s, start_s=1.5, seed=0):
        self.spec, self.text_s, self.start_s = spec, text_s, start_s
        self.scaler, self.observer, self.rng = Scaler(0.0), Observer(), random.Random(seed)
        self.at, self.count, self.starting = 0.0, spec.min, []
        self.waiting, self.free = [], [0.0] * spec.min
        self.figures = {"asked": 0, "texts": 0, "busy_s": 0.0, "waits": [0] * (len(WAIT_BOUNDS_MS) + 1)}
        self.changes, self.waits_ms = [], []

    def run(self, seconds, per_s):
        end = self.at + seconds
        while self.at < end - 1e-9:
            until = self.at + 0.5
            t = self.at
            while per_s and (t := t + self.rng.expovariate(per_s)) < until:
                self.waiting.append(t)
                self.figures["asked"] += 1
            self.free += [up for up in self.starting if up <= until]
            self.starting = [up for up in self.starting if up > until]
            self._serve(until)
            self.at = until
            self._decide()

    def _serve(self, until):
        while self.waiting and self.free:
            i = min(range(len(self.free)), key=self.free.__getitem__)
            begin = max(self.free[i], self.waiting[0])
            if begin >= until:
                break
            wait_ms = 1000 * (begin - self.waiting.pop(0))
            self.free[i] = begin + self.text_s
            self.figures["texts"] += 1
            self.figures["busy_s"] += self.text_s
            self.figures["waits"][next((k for k, bound in enumerate(WAIT_BOUNDS_MS) if wait_ms <= bound), len(WAIT_BOUNDS_MS))] += 1
            self.waits_ms.append((self.at, wait_ms))

    def _decide(self):
        oldest = 1000 * (self.at - self.waiting[0]) if self.waiting else 0.0
        said = {**self.figures, "waits": list(self.figures["waits"]), "waiting": len(self.waiting), "oldest_ms": oldest, "in_flight": sum(f > self.at for f in self.free)}
        load = self.observer.see({"gateway-0": {**said, "ready": len(self.free)}}, self.at, self.start_s)
        decision = self.scaler.decide(self.spec, load, self.at, present=self.count, bounds=Bounds(self.spec.min, self.spec.max), pays=MANY)
        if decision.changes:
            self.changes.append((self.at, decision.wanted, decision.reason))
            if decision.wanted > self.count:
                self.starting += [self.at + self.start_s] * (decision.wanted - self.count)
            else:
                gone = self.count - decision.wanted
                self.starting, gone = self.starting[: len(self.starting) - gone], max(0, gone - len(self.starting))
                self.free = sorted(self.free)[: len(self.free) - gone]
            self.count = decision.wanted


def test_a_step_of_load_is_met_at_once_and_left_again_without_swinging():
    world = World(scaling(target={"queue_ms": 100}, cooldown={"down_s": 20}), text_s=0.02)
    world.run(20, 20)
    assert world.count == 1
    world.run(60, 200)  # four replicas' work
    up = [at for at, count, _ in world.changes if count >= 5]
    assert up and up[0] <= 23 and 5 <= world.count <= 8
    late = sorted(ms for at, ms in world.waits_ms if at > 30)
    assert late[int(0.95 * len(late))] <= 100
    late_counts = [count for at, count, _ in world.changes if at > 25]
    assert late_counts == sorted(late_counts, reverse=True)  # what the backlog needed beyond the load goes again; nothing swings
    world.run(120, 20)
    assert world.count == 1
    counts = [count for at, count, _ in world.changes if at > 80]
    assert counts == sorted(counts, reverse=True)


def test_a_slow_rise_is_seen_coming_and_a_count_that_was_short_is_not_tried_again():
    world = World(scaling(target={"queue_ms": 30}, cooldown={"down_s": 5}), text_s=0.02, seed=1)
    world.run(10, 30)
    for rate in range(30, 150, 10):
        world.run(5, rate)
    reached = world.count
    assert reached >= 3
    world.run(300, 140)
    assert len([c for c in world.changes if c[0] > 100]) <= 12


def test_counters_that_begin_again_and_histories_of_before_are_no_load():
    observer, said = Observer(), {"asked": 10_000, "texts": 10_000, "busy_s": 50.0, "waits": [0] * 49, "waiting": 0, "oldest_ms": 0.0, "in_flight": 0, "ready": 1}
    assert observer.see({"a": said}, 0.0).arrived == 0
    assert observer.see({"a": {**said, "asked": 10_005, "texts": 10_004, "busy_s": 50.2}}, 1.0).arrived == 5
    assert observer.see({"a": {**said, "asked": 3, "texts": 2, "busy_s": 0.1}}, 2.0).arrived == 3
    assert observer.see({}, 3.0).arrived == 0
