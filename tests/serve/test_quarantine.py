"""Texts that kill or hang replicas: found alone, refused at once from then on, told to siblings and written down; nobody else notices."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pool import Replicas, run

from wenfang.core.conversation import Generation
from wenfang.core.errors import Broken, Busy, Invalid
from wenfang.serve.pool import Limits, Pool
from wenfang.serve.quarantine import KEPT_MAX, Quarantine, digest_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_quarantined_text_comes_back_after_its_time():
    clock = Clock()
    quarantine = Quarantine(10.0, clock)
    assert not quarantine
    quarantine.suspect("a")
    assert quarantine.suspects("a") and not quarantine.holds("a") and len(quarantine) == 0
    assert quarantine.add("a") and not quarantine.add("a")
    assert quarantine.holds("a") and not quarantine.suspects("a") and len(quarantine) == 1
    clock.now = 9.9
    assert quarantine.holds("a")
    clock.now = 10.0
    assert not quarantine.holds("a") and not quarantine


def test_whoever_is_answered_is_no_suspect_and_nobody_is_where_it_is_off():
    quarantine = Quarantine(10.0, Clock())
    quarantine.suspect("a")
    quarantine.clear("a")
    assert not quarantine
    off = Quarantine(0.0)
    off.suspect("a")
    assert not off.add("a") and not off


@given(st.lists(st.tuples(st.sampled_from(["suspect", "add", "clear"]), st.integers(0, 5000)), max_size=3000))
def test_its_size_is_bounded(steps):
    quarantine = Quarantine(10.0, Clock())
    for verb, n in steps:
        getattr(quarantine, verb)(str(n))
    assert len(quarantine) <= KEPT_MAX and len(quarantine._suspects) <= KEPT_MAX


def test_a_hash_tells_questions_apart():
    digests = {
        digest_of("a"),
        digest_of("a", "b"),
        digest_of("ab"),
        digest_of("", "ab"),
        digest_of("a", options=Generation(max_tokens=1)),
        digest_of("a", options=Generation(max_tokens=2)),
    }
    assert len(digests) == 6
    assert all(len(d) == 32 for d in digests)
    assert digest_of("a", options=Generation(max_tokens=1)) == digest_of("a", options=Generation(max_tokens=1))


async def asked(pool, texts, **more):
    future = asyncio.get_running_loop().create_future()
    pool.submit(texts, 1, lambda ticket: future.set_exception(ticket.error) if ticket.error else future.set_result(ticket.outputs), **more)
    return await future


async def raised(replicas, name, **more):
    """Starts a replica again whenever it has died."""
    while True:
        if replicas.children[name].popen.poll() is not None:
            replicas.start(name, **more)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("text", "more"), [("KILL", {}), ("HANG", {"hang_s": 0.4})])
def test_after_two_deaths_a_text_is_refused_at_once_and_others_are_answered(folder, text, more, caplog):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", **more)], Limits(deadline_s=20))
            told = []
            pool.on_quarantine = lambda p, digest: told.append((p.version, digest))
            raising = asyncio.create_task(raised(replicas, "a", **more))
            assert await pool.until_ready(30)
            with pytest.raises(Broken, match="died twice"):
                await asked(pool, [text])
            assert pool.figures.lost == 2
            for _ in range(3):
                with pytest.raises(Invalid) as caught:
                    await asked(pool, ["good", text])
                assert (caught.value.code, caught.value.status) == ("serve.text-quarantined", 422)
                assert caught.value.fields["index"] == 1
                assert text not in str(caught.value)
            assert [o.label for o in await asked(pool, ["good", f"{text}S NOT"[1:]])] == ["g", text[1]]
            assert pool.figures.lost == 2
            assert (pool.figures.quarantined, pool.figures.turned_away, pool.state()["quarantined"]) == (1, 3, 1)
            assert told == [("m:1", digest_of(text))]
            assert text not in caplog.text.replace("KILLED", "")
            raising.cancel()
            pool.close()

    run(scenario())


def test_a_text_that_hangs_beyond_its_callers_patience_is_found_too(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            more = {"hang_s": 0.8}
            pool = Pool("mv", "m:1", [replicas.start("a", **more)], Limits(deadline_s=20))
            raising = asyncio.create_task(raised(replicas, "a", **more))
            assert await pool.until_ready(30)
            for _ in range(2):  # its caller left before the replica was given up: the second time it is asked alone
                with pytest.raises(Exception, match="within"):
                    await asked(pool, ["HANG"], deadline_s=0.3)
                lost = pool.figures.lost
                end = time.monotonic() + 20
                while pool.figures.lost == lost or not pool.ready:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.02)
            with pytest.raises(Invalid, match="hash"):
                await asked(pool, ["HANG"])
            assert (await asked(pool, ["good"]))[0].label == "g"
            raising.cancel()
            pool.close()

    run(scenario())


def test_a_stream_that_kills_is_quarantined_the_second_time(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            more = {"task": "generation"}
            pool = Pool("mv", "m:1", [replicas.start("a", **more)], Limits(deadline_s=20))
            raising = asyncio.create_task(raised(replicas, "a", **more))
            assert await pool.until_ready(30)
            for _ in range(2):  # pieces were told: it could not be tried again by itself
                with pytest.raises(Broken):
                    await asked(pool, ["wow KILL"], options=Generation(), on_piece=lambda *_: None)
            with pytest.raises(Invalid):
                await asked(pool, ["wow KILL"], options=Generation())
            assert (await asked(pool, ["wow"], options=Generation()))[0].text == "wow"
            raising.cancel()
            pool.close()

    run(scenario())


def test_a_replica_that_was_told_to_go_blames_nobody(folder):
    async def scenario():
        with Replicas(folder) as replicas:
            paths = [replicas.start("a"), replicas.start("b")]
            pool = Pool("mv", "m:1", paths, Limits(deadline_s=20))
            while pool.ready < 2:
                await asyncio.sleep(0.02)
            asking = asyncio.ensure_future(asked(pool, ["HANG"]))
            while not any(link.sent for link in pool._links()):
                await asyncio.sleep(0.02)
            with_it = next(link.path for link in pool._links() if link.sent)
            pool.set_sockets([path for path in paths if path != with_it])
            replicas.children[with_it.rpartition("/")[2]].popen.kill()
            while pool.figures.retried == 0:
                await asyncio.sleep(0.02)
            assert not pool.quarantine
            pool.close()
            with pytest.raises((Broken, Busy)):
                await asking

    run(scenario())
