"""More comes in than goes out: a burst is answered, standing overload is refused at once, and what is accepted does not wait long."""

import asyncio
import time

from test_pool import Replicas, ask, run

from wenfang.core.errors import Busy
from wenfang.serve.pool import Limits, Pool


def test_a_burst_is_answered_whole(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=5, batch_max=4)], Limits(batch_max=4))
            assert await pool.until_ready(30)
            answers = await asyncio.gather(*(ask(pool, ["x" * (i % 7 + 1)]) for i in range(500)))
            assert [len(a) for a in answers] == [1] * 500
            assert pool.figures.refused == 0
            pool.close()

    run(scenario())


def test_standing_overload_is_refused_and_the_accepted_do_not_wait_long(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=40, batch_max=2)], Limits(batch_max=2, deadline_s=30.0, wait_s=0.2))
            assert await pool.until_ready(30)
            waits, refused = [], []

            async def client(until):
                while time.monotonic() < until:
                    start = time.monotonic()
                    try:
                        await ask(pool, ["text"])
                        waits.append(time.monotonic() - start)
                    except Busy as e:
                        refused.append(e)
                        await asyncio.sleep(0.05)

            await asyncio.gather(*(client(time.monotonic() + 6) for _ in range(60)))
            assert {e.code for e in refused} == {"serve.overloaded"}
            assert all(e.fields["retry_after_s"] > 0 for e in refused)
            settled = waits[len(waits) // 2 :]
            allowed_s = 60 / (len(waits) / 6)  # what every wait would be without refusals
            assert sum(settled) / len(settled) < allowed_s / 2
            assert pool.figures.late == 0
            await asyncio.sleep(1.0)
            assert (await ask(pool, ["after"]))[0].label == "a"
            pool.close()

    run(scenario())


def test_no_limit_of_waiting_no_refusal(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=20, batch_max=1)], Limits(batch_max=1, wait_s=0.0, deadline_s=30))
            assert await pool.until_ready(30)
            for _ in range(3):
                await asyncio.gather(*(ask(pool, ["a"]) for _ in range(40)))
            assert pool.figures.refused == 0
            pool.close()

    run(scenario())


def test_who_waits_for_the_only_replica_to_come_back_is_not_refused(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            path = replicas.start("a", wait_ms=2)
            pool = Pool("mv", "m:1", [path], Limits(deadline_s=20.0, wait_s=0.05))
            assert await pool.until_ready(30)
            end = time.monotonic() + 2.2
            while time.monotonic() < end:
                await ask(pool, ["text"])
            assert pool.state()["rate_per_s"] > 0
            replicas.children["a"].close(2.0)
            asked = []
            for _ in range(100):
                asked.append(ask(pool, ["again"]))
                await asyncio.sleep(0.015)
            replicas.start("a", wait_ms=2)
            assert [o[0].label for o in await asyncio.gather(*asked)] == ["a"] * 100
            assert pool.figures.refused == 0
            pool.close()

    run(scenario())


def test_an_idle_hour_does_not_make_the_next_burst_look_slow(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=2)], Limits())
            assert await pool.until_ready(30)
            end = time.monotonic() + 2.2
            while time.monotonic() < end:
                await ask(pool, ["text"])
            await asyncio.sleep(1.2)  # the second in which the load ended counts
            before = pool.state()["rate_per_s"]
            await asyncio.sleep(3)
            assert pool.state()["rate_per_s"] == before > 0
            pool.close()

    run(scenario())
