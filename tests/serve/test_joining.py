"""Texts that join those being written: through a pool over real replica processes."""

import asyncio
import time

import pytest
from test_pool import Replicas, run
from test_writing import Heard, scenario_with

from wenfang.core.conversation import Generation
from wenfang.core.errors import Broken, Invalid
from wenfang.serve.pool import Limits, Pool


def steps(log):
    return [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("joint")]


def test_a_new_text_joins_and_a_short_one_leaves_at_once(folder):
    log = folder / "steps"

    async def work(pool, _):
        long = Heard(pool, ["x" * 150])
        while len(long.pieces) < 5:
            await asyncio.sleep(0.01)
        start = time.monotonic()
        short = Heard(pool, ["abc", "de"], stream=False)
        assert [o.text for o in await short.outcome] == ["abc", "de"]
        assert time.monotonic() - start < 0.6  # the long one takes 1.5 s
        assert len(long.text()) < 100
        assert (await long.outcome)[0].text == long.text() == "x" * 150
        assert max(steps(log)) == 3
        assert len(steps(log)) < 160
        assert pool.state()["in_flight"] == 0
        assert pool.figures.batch_sizes == {1: 3}

    scenario_with(folder, work, joins=8, token_ms=10, batches=str(log))


def test_what_finds_no_room_waits_and_hears_that_it_waits(folder):
    log = folder / "steps"

    async def work(pool, _):
        asked = [Heard(pool, [chr(97 + i) * 60], stream=False) for i in range(6)]
        assert [(await one.outcome)[0].text for one in asked] == [chr(97 + i) * 60 for i in range(6)]
        assert max(steps(log)) == 2
        assert pool.figures.lost == 0

    scenario_with(folder, work, Limits(deadline_s=3.0), joins=2, token_ms=12, batches=str(log))


def test_what_nobody_wants_leaves_alone(folder):
    log = folder / "steps"

    async def work(pool, _):
        one, two = Heard(pool, ["x" * 3000]), Heard(pool, ["y" * 100])
        while not one.pieces:
            await asyncio.sleep(0.01)
        one.ticket.cancel()
        assert (await two.outcome)[0].text == "y" * 100
        await asyncio.sleep(0.3)
        assert pool.figures.cancelled == 1
        assert len(steps(log)) < 200
        other = Pool("mv", "m:1", [str(folder / "a")], Limits())
        assert await other.until_ready(20)
        Heard(other, ["z" * 3000])
        await asyncio.sleep(0.2)
        other.close()  # its caller hangs up
        await asyncio.sleep(0.2)
        before = len(steps(log))
        await asyncio.sleep(0.3)
        assert len(steps(log)) == before

    scenario_with(folder, work, joins=8, token_ms=5, batches=str(log))


def test_one_bad_text_spoils_nobody_elses_answer(folder):
    async def work(pool, replicas):
        good, begun = Heard(pool, ["x" * 200], stream=False), Heard(pool, ["RAISE it"])
        early, refused = Heard(pool, ["EARLY on"]), Heard(pool, ["REFUSE this"])
        with pytest.raises(Invalid):
            await refused.outcome
        for bad in (begun, early):
            with pytest.raises(Broken) as caught:
                await bad.outcome
            assert caught.value.code == "serve.model-failed"
            assert "text is in" not in str(caught.value)
        assert (await good.outcome)[0].text == "x" * 200
        assert (await Heard(pool, ["after"]).outcome)[0].text == "after"
        assert replicas.children["a"].popen.poll() is None

    scenario_with(folder, work, joins=8, token_ms=2)


def test_a_text_that_kills_replicas_takes_nobody_with_it(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            more = {"task": "chat", "joins": 8, "token_ms": 5}
            pool = Pool("mv", "m:1", [replicas.start("a", **more)], Limits())
            assert await pool.until_ready(20)
            good, killer = Heard(pool, ["g" * 50], stream=False), Heard(pool, ["KILL it"], stream=False)
            for _ in range(2):  # together, then each alone
                while replicas.children["a"].popen.poll() is None:
                    await asyncio.sleep(0.02)
                replicas.start("a", **more)
            with pytest.raises(Broken) as caught:
                await killer.outcome
            assert caught.value.code == "serve.replica-died"
            assert (await good.outcome)[0].text == "g" * 50
            pool.close()

    run(scenario())


def test_two_replicas_share_what_comes(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            logs = [folder / "steps-a", folder / "steps-b"]
            sockets = [replicas.start(name, task="chat", joins=8, token_ms=5, batches=str(log)) for name, log in zip("ab", logs, strict=True)]
            pool = Pool("mv", "m:1", sockets, Limits())
            while pool.ready < 2:
                await asyncio.sleep(0.02)
            asked = [Heard(pool, ["x" * 40], Generation()) for _ in range(8)]
            for one in asked:
                await one.outcome
            assert [max(steps(log)) for log in logs] == [4, 4]
            pool.close()

    run(scenario())


def test_a_replica_that_leaves_writes_what_it_has_begun_and_gets_nothing_new(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            more = {"task": "chat", "joins": 4, "token_ms": 10}
            a, b = replicas.start("a", **more), replicas.start("b", **more)
            pool = Pool("mv", "m:1", [a], Limits())
            assert await pool.until_ready(20)
            begun = [Heard(pool, ["x" * 60]), Heard(pool, ["y" * 60], stream=False)]
            while not begun[0].pieces:
                await asyncio.sleep(0.01)
            pool.set_sockets([b])
            assert await pool.until_ready(20)
            replicas.children["b"].signal(19)  # whatever is answered now comes from the other
            assert [(await one.outcome)[0].text for one in begun] == ["x" * 60, "y" * 60]
            assert pool.figures.retried == 0
            later = Heard(pool, ["z"])
            await asyncio.sleep(0.2)
            assert not later.outcome.done()
            replicas.children["b"].signal(18)
            assert (await later.outcome)[0].text == "z"
            assert not pool._leaving
            pool.close()

    run(scenario())


@pytest.mark.parametrize("more", [{}, {"joins": 4}])
def test_what_was_written_for_one_who_left_is_counted(folder, more):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", task="generation", token_ms=20, **more)], Limits())
            assert await pool.until_ready(20)
            left = []
            ticket = pool.submit(["x" * 400], 1, lambda _: None, options=Generation())
            ticket.left_behind = left.append
            while not any(link.sent for link in pool._links()):
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            ticket.cancel()
            while not left:
                await asyncio.sleep(0.02)
            assert 2 <= left[0] < 200
            pool.close()

    run(scenario())


def test_a_caller_that_waits_so_long_waits_no_longer_whatever_it_hears(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", task="generation", token_ms=20)], Limits())
            assert await pool.until_ready(20)
            ended, pieces = asyncio.get_running_loop().create_future(), []
            start = time.monotonic()
            pool.submit(["x" * 1000], 1, ended.set_result, options=Generation(), on_piece=lambda i, p: pieces.append(p), deadline_s=1.0)
            error = (await ended).error
            assert (error.code, error.fields["deadline_s"]) == ("serve.deadline-passed", 1.0)
            assert time.monotonic() - start < 10 and pieces
            pool.close()

    run(scenario())
