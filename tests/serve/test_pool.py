"""A pool over real replica processes: batches, retries, deadlines, bounds, drain."""

import asyncio
import os
import signal
import time

import pytest

from dataplane import spawn
from wenfang.core.errors import Broken, Busy, NotFound
from wenfang.serve.pool import Limits, Pool
from wenfang.serve.router import Router
from wenfang.serve.routing import RoutedModel, RoutedService, RoutingTable, write_table


class Replicas:
    """Processes on sockets ``folder/<name>``; closed at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.children = {}

    def start(self, name, **more):
        self.children[name] = spawn("dataplane:replica", {"socket": str(self.folder / name), "name": name, **more}, self.folder / f"{name}.log")
        return str(self.folder / name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children.values():
            child.signal(signal.SIGCONT)
            child.close(2.0)


def ask(pool, texts, top_k=1):
    future = asyncio.get_running_loop().create_future()

    def done(ticket):
        if ticket.error is not None:
            future.set_exception(ticket.error)
        else:
            future.set_result(ticket.outputs)

    pool.submit(texts, top_k, done)
    return future


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_answers_keep_their_order_whatever_shares_a_batch(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a"), replicas.start("b")], Limits())
            assert await pool.until_ready(20)
            requests = [[f"{chr(97 + i % 26)}{'x' * (i * 7 % 90)}" for i in range(n)] for n in (1, 3, 30, 1, 100, 2)]
            for texts, outputs in zip(requests, await asyncio.gather(*(ask(pool, t) for t in requests)), strict=True):
                assert [(o.label, o.score) for o in outputs] == [(t[0], 1 / (1 + len(t))) for t in texts]
            assert pool.figures.texts == sum(map(len, requests))
            assert max(pool.figures.batch_sizes) <= 8
            assert pool.figures.batches < pool.figures.texts
            pool.close()

    run(scenario())


def test_one_bad_text_spoils_nobody_elses_answer(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a")], Limits())
            good, bad, other = await asyncio.gather(ask(pool, ["one"]), ask(pool, ["RAISE"]), ask(pool, ["two", "three"]), return_exceptions=True)
            assert good[0].label == "o"
            assert [o.label for o in other] == ["t", "t"]
            assert isinstance(bad, Broken)
            assert bad.code == "serve.model-failed"
            pool.close()

    run(scenario())


def test_a_text_that_kills_replicas_is_given_up_after_two_and_takes_nobody_along(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=30)], Limits(deadline_s=20))
            await pool.until_ready(20)
            first = ask(pool, ["warm"])
            await asyncio.sleep(0.01)
            asked = [ask(pool, ["one"]), ask(pool, ["KILL"]), ask(pool, ["two"])]
            await first
            for _ in range(2):
                while replicas.children["a"].popen.poll() is None:
                    await asyncio.sleep(0.02)
                replicas.start("a", wait_ms=30)
            good, bad, other = await asyncio.gather(*asked, return_exceptions=True)
            assert (good[0].label, other[0].label) == ("o", "t")
            assert bad.code == "serve.replica-died"
            assert pool.figures.lost == 2
            pool.close()

    run(scenario())


def test_deadline_and_hung_replica(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a"), replicas.start("b")], Limits(deadline_s=2.0))
            while pool.ready < 2:
                await asyncio.sleep(0.02)
            os.kill(replicas.children["a"].pid, signal.SIGSTOP)
            outputs = await asyncio.gather(*(ask(pool, [f"{i}"]) for i in range(6)))  # those sent to the hung one are answered by the other
            assert len(outputs) == 6
            os.kill(replicas.children["b"].pid, signal.SIGSTOP)
            start = time.monotonic()
            with pytest.raises(Busy) as caught:
                await ask(pool, ["late"])
            assert caught.value.code == "serve.deadline-passed"
            assert 1.9 < time.monotonic() - start < 3.0
            pool.close()

    run(scenario())


def test_the_queue_is_bounded_and_says_when_to_come_back(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=100)], Limits(batch_max=1, queue_max=8, deadline_s=20))
            await pool.until_ready(20)
            await ask(pool, ["x"] * 8)
            await asyncio.sleep(1.2)
            full = [ask(pool, ["x"] * 8)]
            await asyncio.sleep(0)
            with pytest.raises(Busy) as caught:
                pool.submit(["y", "z"], 1, lambda t: None)
            assert caught.value.code == "serve.queue-full"
            assert 0.1 <= caught.value.fields["retry_after_s"] < 10
            assert pool.figures.refused == 1
            await asyncio.gather(*full)
            pool.close()

    run(scenario())


def test_the_cancelled_are_never_computed(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            log = folder / "batches"
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=100, batches=str(log))], Limits(batch_max=1))
            await pool.until_ready(20)
            before = len(log.read_text().split())
            first = ask(pool, ["first"])
            await asyncio.sleep(0.03)
            tickets = [pool.submit(["never"], 1, lambda t: None) for _ in range(20)]
            for ticket in tickets:
                ticket.cancel()
            await first
            await ask(pool, ["last"])
            assert len(log.read_text().split()) - before == 2
            pool.close()

    run(scenario())


def test_drain_answers_what_waits_and_takes_nothing_new(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=50)], Limits(batch_max=1))
            asked = [ask(pool, [f"{i}"]) for i in range(6)]
            await pool.until_ready(20)
            draining = asyncio.ensure_future(pool.drain())
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="not served any more"):
                pool.submit(["x"], 1, lambda t: None)
            await draining
            assert [f.result()[0].label for f in asked] == list("012345")

    run(scenario())


def test_tables_change_without_a_gap_and_bad_ones_change_nothing(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            path = folder / "routes.json"
            router = Router(path, Limits())
            with pytest.raises(Broken):
                await router.load()
            assert not router.ready
            a, b = (RoutedModel(f"{n}:1", "classification", [replicas.start(n, tag=n)]) for n in "ab")
            write_table(path, RoutingTable(1, {"s": RoutedService("p", "mv_a")}, {"mv_a": a}))
            assert await router.load() == 1
            assert router.ready
            old, _ = router.target(router.service("s"))
            write_table(path, RoutingTable(2, {"s": RoutedService("p", "mv_b")}, {"mv_b": b}))
            slow = ask(old, ["x"] * 50)
            assert await router.load(drain=True) == 2
            assert slow.done()
            pool, model = router.target(router.service("s"))
            assert model.version == "b:1"
            assert pool.ready
            with pytest.raises(Busy):
                old.submit(["x"], 1, lambda t: None)
            path.write_text("{")
            with pytest.raises(Broken):
                await router.load()
            assert router.table.epoch == 2
            with pytest.raises(NotFound, match="Did you mean: s"):
                router.service("t")
            router.close()

    run(scenario())


def test_what_nobody_wants_makes_room_in_a_full_queue_for_what_is_answered(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=100, batch_max=1)], Limits(batch_max=1, queue_max=3))
            assert await pool.until_ready(20)
            busy = ask(pool, ["busy"])
            await asyncio.sleep(0.02)
            for ticket in [pool.submit([text], 1, lambda _: None) for text in "abc"]:
                ticket.cancel()
            assert [o.label for o in await asyncio.wait_for(ask(pool, ["two", "more"]), 5)] == ["t", "m"]
            await busy
            pool.close()

    run(scenario())


def test_closing_ends_what_is_with_a_replica_too(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=300, batch_max=1)], Limits(batch_max=1))
            assert await pool.until_ready(20)
            asked = [ask(pool, ["with it"]), ask(pool, ["waiting"])]
            await asyncio.sleep(0.05)
            assert pool.state()["in_flight"] == 1
            pool.close()
            for error in await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 2):
                assert (type(error), error.code) == (Busy, "serve.pool-closed")

    run(scenario())
