"""Answers that are kept and answers that are shared: never another text's, never a dead one's, never more memory than was granted."""

import asyncio
import random

import pytest
from test_pool import Replicas, ask, run

from dataplane import DataPlane
from wenfang.core.errors import Broken, Busy
from wenfang.core.examples import Output
from wenfang.serve.cache import AnswerCache
from wenfang.serve.pool import Limits, Pool


def key(text, model="mv", top_k=1):
    return (model, top_k, text, None)


def test_the_least_recently_used_goes_and_the_bound_holds():
    cache = AnswerCache(40_000)
    for i in range(1000):
        cache.put(key(f"text {i}"), Output(label="a", score=0.5))
        assert cache.get(key("text 0")) is not None  # used all the time: stays
        assert cache.size_bytes <= 40_000
    assert 20 < len(cache) < 100
    assert cache.get(key("text 1")) is None
    cache.put(key("large"), Output(text="x" * 10_000))
    assert cache.get(key("large")) is None  # one answer must not push out all others
    cache.forget("other")
    assert len(cache) > 20
    cache.forget("mv")
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_an_answer_grows_too_old():
    now = [0.0]
    cache = AnswerCache(40_000, ttl_s=10.0, clock=lambda: now[0])
    cache.put(key("a"), Output(label="a"))
    now[0] = 9.0
    assert cache.get(key("a")) is not None
    now[0] = 11.0
    assert cache.get(key("a")) is None
    assert cache.size_bytes == 0


def test_size_is_accounted_exactly_over_any_history():
    rng = random.Random(1)
    cache = AnswerCache(30_000)
    for _ in range(5000):
        k = key(rng.choice("abcdefghij") * rng.randrange(1, 50), model=rng.choice(["m", "n"]), top_k=rng.randrange(1, 3))
        cache.put(k, Output(label="x" * rng.randrange(50), scores={str(i): 0.5 for i in range(rng.randrange(5))}))
    assert cache.size_bytes == sum(size for _, size, _ in cache._kept.values())


def test_texts_asked_at_the_same_time_are_asked_once(folder):
    async def scenario():
        log = folder / "batches"
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=50, batch_max=1, batches=str(log))], Limits(batch_max=1), AnswerCache(1 << 20))
            assert await pool.until_ready(20)
            log.unlink(missing_ok=True)
            requests = [["same"], ["same", "other"], ["same", "same", "third"], ["other"]]
            for texts, outputs in zip(requests, await asyncio.gather(*(ask(pool, t) for t in requests)), strict=True):
                assert [(o.label, o.score) for o in outputs] == [(t[0], 1 / (1 + len(t))) for t in texts]
            assert log.read_text().split() == ["1"] * 3
            assert (await ask(pool, ["third"]))[0].label == "t"
            assert log.read_text().split() == ["1"] * 3
            assert (pool.sharing.hits, pool.sharing.joined) == (1, 4)
            assert (await ask(pool, ["third"], top_k=2))[0].scores is not None  # another question
            assert len(log.read_text().split()) == 4
            pool.close()
            assert pool.sharing.cache.size_bytes == 0

    run(scenario())


def test_whoever_asked_first_may_leave(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=100, batch_max=1)], Limits(batch_max=1), AnswerCache(1 << 20))
            assert await pool.until_ready(20)
            busy = ask(pool, ["keeps the replica busy"])
            await asyncio.sleep(0.02)
            over = []
            first = pool.submit(["same"], 1, over.append)
            joined = ask(pool, ["same"])
            first.cancel()
            late = pool.submit(["gone"], 1, over.append)
            late.cancel()
            await busy
            assert (await asyncio.wait_for(joined, 5))[0].label == "s"
            assert (await asyncio.wait_for(ask(pool, ["gone"]), 5))[0].label == "g"  # not joined to what was dropped
            assert over == []
            assert not pool.sharing._asked
            pool.close()

    run(scenario())


def test_a_late_first_does_not_make_the_others_late(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", wait_ms=400, batch_max=1)], Limits(batch_max=1), AnswerCache(1 << 20))
            assert await pool.until_ready(20)
            busy = ask(pool, ["busy"])
            await asyncio.sleep(0.02)
            failed = asyncio.get_running_loop().create_future()
            pool.submit(["same"], 1, failed.set_result, deadline_s=0.1)
            joined = ask(pool, ["same"])
            assert isinstance((await asyncio.wait_for(failed, 2)).error, Busy)
            assert (await asyncio.wait_for(joined, 5))[0].label == "s"
            await busy
            pool.close()

    run(scenario())


def test_failures_are_shared_by_those_who_waited_and_kept_for_nobody(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a"), replicas.start("b")], Limits(), AnswerCache(1 << 20))
            assert await pool.until_ready(20)
            for found in await asyncio.gather(ask(pool, ["RAISE"]), ask(pool, ["RAISE"]), return_exceptions=True):
                assert isinstance(found, Broken)
            assert isinstance((await asyncio.gather(ask(pool, ["RAISE"]), return_exceptions=True))[0], Broken)
            assert len(pool.sharing.cache) == 0
            assert not pool.sharing._asked
            pool.close()

    run(scenario())


@pytest.fixture(scope="module")
def plane():
    plane = DataPlane(
        {"mv_old": ("m:1", "classification", 1, {"tag": "old-"}), "mv_new": ("m:2", "classification", 1, {"tag": "new-"})}, {"intent": ("pj_1", "mv_old")}, {"cache_bytes": 1 << 20}
    )
    yield plane
    plane.close()


def kept(plane):
    return {line.split()[0].partition("{")[0]: float(line.split()[-1]) for line in plane.get("/metrics")[1].decode().splitlines() if line.startswith("wenfang_cache")}


def test_kept_answers_are_counted_can_be_refused_and_end_with_their_version(plane):
    for _ in range(3):
        assert plane.predict(["天气"])[1]["outputs"][0]["label"] == "old-天"
    assert kept(plane)["wenfang_cache_hits_total"] == 2
    assert kept(plane)["wenfang_cache_bytes"] > 0
    assert plane.predict(["天气"], headers={"Cache-Control": "no-cache"})[1]["outputs"][0]["label"] == "old-天"
    assert kept(plane)["wenfang_cache_hits_total"] == 2
    status, _, body = plane.ask("POST", "/v2/models/intent/infer", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["天气", "新的"]}]})
    assert status == 200, body
    assert kept(plane)["wenfang_cache_hits_total"] == 3  # one cache for every protocol
    plane.services = {"intent": ("pj_1", "mv_new")}
    plane.write_routes()
    plane.call("routes", epoch=plane.epoch, drained=True)
    assert plane.predict(["天气"])[1]["outputs"][0]["label"] == "new-天"
