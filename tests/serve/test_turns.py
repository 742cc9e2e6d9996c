"""Whose turn it is: classes, askers that take turns, refusals that hit whoever asks most."""

import asyncio
import itertools
import random

import pytest
from test_pool import Replicas, run

from wenfang.core.errors import Busy
from wenfang.serve.batching import Item, Ticket
from wenfang.serve.pool import Limits, Pool
from wenfang.serve.turns import KNOWN_MAX, RANKS, Turns


def items(n, text="x"):
    ticket = Ticket(n, 1, 0.0, 1e9, lambda _: None)
    return [Item(f"{text}{i}", i, ticket) for i in range(n)]


def served(turns, waiting):
    item = waiting.pop(0)
    turns.served([item])
    return item


def test_askers_of_one_class_take_turns_however_much_one_asks():
    turns, waiting = Turns(), []
    turns.line_up(waiting, items(100), "greedy", 1)
    turns.line_up(waiting, items(3), "modest", 1)
    turns.line_up(waiting, items(2), "late", 1)
    first = [served(turns, waiting).owner for _ in range(8)]
    assert (first.count("modest"), first.count("late")) == (3, 2)
    turns.line_up(waiting, items(1), "modest", 1)  # it does not pay for what it had, nor does waiting earn it more than a turn
    assert "modest" in [served(turns, waiting).owner for _ in range(3)]
    assert {i.owner for i in waiting} == {"greedy"}


def test_a_higher_class_goes_first():
    turns, waiting = Turns(), []
    for owner, rank in (("b", "batch"), ("o", "online"), ("i", "interactive"), ("b", "batch"), ("o", "online")):
        turns.line_up(waiting, items(2), owner, RANKS[rank])
    assert [i.owner for i in waiting] == ["i"] * 2 + ["o"] * 4 + ["b"] * 4
    assert [Turns.ahead(waiting, rank) for rank in range(3)] == [2, 6, 10]


def test_the_list_stays_in_order_over_any_history_and_remembers_few():
    rng, turns, waiting = random.Random(3), Turns(), []
    for step in range(20_000):
        if rng.random() < 0.55:
            turns.line_up(waiting, items(rng.randrange(1, 4)), f"o{rng.randrange(9 if step < 10_000 else 10_000)}", rng.randrange(3))
        while waiting and rng.random() < 0.6:
            served(turns, waiting)
        del waiting[400:]
        assert all(a.turn <= b.turn for a, b in itertools.pairwise(waiting))
    assert len(turns._last) <= KNOWN_MAX + 1000


def test_who_asks_most_is_refused_first(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=200, batch_max=1)], Limits(batch_max=1, queue_max=20, deadline_s=60))
            assert await pool.until_ready(30)
            order = []

            def submit(name, n, **more):
                pool.submit([name] * n, 1, lambda _: order.append(name), owner=name, **more)

            submit("greedy", 20)
            with pytest.raises(Busy):
                submit("greedy", 1)
            submit("modest", 1)
            submit("third", 2)
            with pytest.raises(Busy):
                submit("greedy", 1)
            submit("urgent", 1, rank=RANKS["interactive"])
            while len(order) < 3:
                await asyncio.sleep(0.05)
            assert order == ["urgent", "modest", "third"]
            pool.close()

    run(scenario())
