"""When a replica asks for a successor: after so many texts or when it has grown, once, and again only after a while."""

import os

from wenfang.serve.recycling import GROWN_BYTES, LOOK_EVERY, SETTLED_LOOKS, Recycling

MB = 1 << 20


class World:
    now, held, heard = 0.0, 100 * MB, True

    def __init__(self, **more):
        self.asked = []
        self.recycling = Recycling(self.ask, held=lambda: self.held, clock=lambda: self.now, **more)

    def ask(self):
        self.asked.append(self.now)
        return self.heard

    def work(self, batches, texts=1):
        for _ in range(batches):
            self.recycling.worked(texts)


def test_after_so_many_texts_a_successor_is_asked_for_once():
    world = World(texts=960)
    most = 960 + 960 * (os.getpid() % 16) // 96
    world.work(most - 1)
    assert world.asked == []
    world.work(1000, 3)
    assert len(world.asked) == 1


def test_one_who_was_not_heard_asks_again_after_a_while():
    world = World(texts=10)
    world.heard = False
    world.work(1000)
    assert world.asked == [0.0]
    world.now = 11.0
    world.heard = True
    world.work(1000)
    assert world.asked == [0.0, 11.0]


def test_growth_counts_from_what_is_held_when_it_has_settled():
    world = World(growth=2.0)
    world.held = 10 * MB
    world.work(LOOK_EVERY * (SETTLED_LOOKS - 1))
    world.held = 100 * MB  # loading went on
    world.work(LOOK_EVERY)
    world.held = 199 * MB
    world.work(LOOK_EVERY * 50)
    assert world.asked == []
    world.held = 201 * MB
    world.work(LOOK_EVERY)
    assert len(world.asked) == 1


def test_little_is_no_growth_and_off_is_off():
    small, off = World(growth=2.0), World()
    small.held = 5 * MB
    small.work(LOOK_EVERY * SETTLED_LOOKS)
    small.held = 5 * MB + GROWN_BYTES
    small.work(LOOK_EVERY * 3)
    off.work(10_000, 8)
    assert small.asked == off.asked == []
