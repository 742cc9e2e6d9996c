"""What every bus promises: at least once, to one taker, durable when sent, never more out than the prefetch."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brokers import Broker, broker_url, queue_name
from dataplane import free_port
from wenfang.core.errors import Broken, Invalid, Unsupported, WenfangError
from wenfang.core.home import Home
from wenfang.core.messages import Message
from wenfang.stores import BUSES, check_bus_url, open_bus

TAKER = """
import asyncio, sys
from pathlib import Path
from wenfang.core.home import Home
from wenfang.stores import open_bus
async def main(url, home, queue, n, name):
    bus = await open_bus(url, Home(Path(home)))
    inbox = await bus.open_inbox(queue, name=name, prefetch=n, lease_s=1.0)
    taken = []
    while len(taken) < n:
        taken += await inbox.take(n, 1.0)
    print(*sorted(d.message.body.decode() for d in taken), flush=True)
    await asyncio.sleep(60)
asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]))
"""


@pytest.fixture(params=BUSES.names())
def world(request, tmp_path):
    return World(request.param, broker_url(request.param), Home(tmp_path / "h").prepare())


class World:
    def __init__(self, kind, url, home):
        self.kind, self.url, self.home = kind, url, home

    @asynccontextmanager
    async def bus(self):
        bus = await open_bus(self.url, self.home)
        try:
            yield bus
        finally:
            await bus.close()

    @asynccontextmanager
    async def queue(self, n=0):
        """A bus and a fresh queue with messages "0", "1"…"""
        queue = queue_name()
        async with self.bus() as bus:
            await bus.declare(queue)
            try:
                for i in range(n):
                    await bus.send(queue, Message(str(i).encode()))
                yield bus, queue
            finally:
                async with self.bus() as fresh:
                    await fresh.drop(queue)

    async def inbox(self, bus, queue, name="one", prefetch=100, lease_s=30.0):
        return await bus.open_inbox(queue, name=name, prefetch=prefetch, lease_s=lease_s)


async def all_of(inbox, n, wait_s=20.0):
    """The next ``n`` deliveries."""
    taken, until = [], asyncio.get_running_loop().time() + wait_s
    while len(taken) < n:
        assert asyncio.get_running_loop().time() < until, f"only {len(taken)} of {n}"
        taken += await inbox.take(n - len(taken), 1.0)
    return taken


def bodies(deliveries):
    return [d.message.body.decode() for d in deliveries]


def test_a_message_comes_as_it_was_sent_and_once(world):
    async def run():
        async with world.queue() as (bus, queue):
            headers = {"id": "m-1", "correlation-id": "c 1", "reply-to": "some.queue", "content-type": "application/json", "attempts": "3", "x-priority": "batch"[:5]}
            sent = [Message(bytes(range(256)), headers), Message(b""), Message("文房😀".encode() * 20_000, {"id": "m-3"})]
            for message in sent:
                await bus.send(queue, message)
            inbox = await world.inbox(bus, queue)
            taken = await all_of(inbox, 3)
            assert [d.message.body for d in taken] == [m.body for m in sent]
            assert {k: v for k, v in taken[0].message.headers.items() if k != "x-priority"} == {k: v for k, v in headers.items() if k != "x-priority"}
            assert dict(taken[2].message.headers) == {"id": "m-3"}
            assert {d.times for d in taken} <= {0, 1}
            await inbox.done(taken)
            assert await inbox.take(10, 0.3) == []
            await inbox.close()
            async with world.bus() as other:
                again = await world.inbox(other, queue, name="two")
                assert await again.take(10, 0.3) == [] and await other.depth(queue) == 0
                await again.close()

    asyncio.run(run())


def test_what_was_sent_outlives_the_sender(world):
    async def run():
        async with world.queue(20) as (_, queue), world.bus() as other:
            assert await other.depth(queue) == 20
            inbox = await world.inbox(other, queue)
            assert bodies(await all_of(inbox, 20)) == [str(i) for i in range(20)]
            await inbox.close()

    asyncio.run(run())


def test_what_is_given_back_comes_again(world):
    async def run():
        async with world.queue(5) as (bus, queue):
            inbox = await world.inbox(bus, queue)
            first = await all_of(inbox, 5)
            await inbox.done(first[:2])
            await inbox.give_back(first[2:])
            again = await all_of(inbox, 3)
            assert sorted(bodies(again)) == ["2", "3", "4"] and {d.times for d in again} <= {0, 2}
            await inbox.done(again)
            await inbox.done(again)  # once more does nothing
            assert await inbox.take(5, 0.3) == []
            await inbox.close()

    asyncio.run(run())


def test_closing_an_inbox_gives_back_what_is_out(world):
    async def run():
        async with world.queue(6) as (bus, queue):
            inbox = await world.inbox(bus, queue)
            taken = await all_of(inbox, 6)
            await inbox.done(taken[:1])
            await inbox.close()
            async with world.bus() as other:
                heir = await world.inbox(other, queue, name="two")
                assert sorted(bodies(await all_of(heir, 5))) == ["1", "2", "3", "4", "5"]
                await heir.close()

    asyncio.run(run())


def test_never_more_is_out_than_the_prefetch(world):
    async def run():
        async with world.queue(12) as (bus, queue):
            inbox = await world.inbox(bus, queue, prefetch=5)
            taken = await all_of(inbox, 5)
            assert await inbox.take(10, 0.2) == []
            if world.kind != "kafka":  # a partition has one taker
                async with world.bus() as other:
                    second = await world.inbox(other, queue, name="two")
                    rest = await all_of(second, 7)
                    assert not set(bodies(rest)) & set(bodies(taken))
                    await second.done(rest)
                    await second.close()
            await inbox.done(taken[:2])
            assert world.kind != "kafka" or len(await all_of(inbox, 2)) == 2
            await inbox.close()

    asyncio.run(run())


def test_takers_share_a_queue(world):
    if world.kind == "kafka":
        pytest.skip("a partition of Kafka has one taker")

    async def run():
        async with world.queue(60) as (bus, queue), world.bus() as other:
            inboxes = [await world.inbox(bus, queue, "one", prefetch=4), await world.inbox(other, queue, "two", prefetch=4)]
            held = [await all_of(inbox, 4) for inbox in inboxes]  # both have some at the same time
            seen = [bodies(h) for h in held]
            assert not set(seen[0]) & set(seen[1])
            until = asyncio.get_running_loop().time() + 60

            async def work(n):
                await inboxes[n].done(held[n])
                while sum(map(len, seen)) < 60 and asyncio.get_running_loop().time() < until:
                    taken = await inboxes[n].take(4, 0.2)
                    await inboxes[n].done(taken)
                    seen[n] += bodies(taken)

            await asyncio.gather(work(0), work(1))
            assert sorted(map(int, seen[0] + seen[1])) == list(range(60))
            for inbox in inboxes:
                await inbox.close()

    asyncio.run(run())


def test_an_empty_queue_says_so_in_time_and_wakes_for_what_comes(world):
    async def run():
        loop = asyncio.get_running_loop()
        async with world.queue() as (bus, queue):
            inbox = await world.inbox(bus, queue)
            begun = loop.time()
            assert await inbox.take(3, 0.3) == [] and 0.2 < loop.time() - begun < 10
            waiting = asyncio.create_task(all_of(inbox, 1))
            await asyncio.sleep(0.2)
            await bus.send(queue, Message(b"late"))
            assert bodies(await waiting) == ["late"]
            await inbox.close()

    asyncio.run(run())


@pytest.mark.parametrize("same_name", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_killed_taker_had_comes_to_another(world, same_name):
    if world.kind == "memory":
        pytest.skip("a queue in memory has no other process")

    async def run():
        async with world.queue(8) as (bus, queue):
            command = [sys.executable, "-c", TAKER, world.url, str(world.home.root), queue, "5", "victim"]
            victim = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
            try:
                held = (await asyncio.to_thread(victim.stdout.readline)).split()
            finally:
                os.kill(victim.pid, signal.SIGKILL)
                await asyncio.to_thread(victim.wait)
                victim.stdout.close()
            assert len(held) == 5
            heir = await world.inbox(bus, queue, name="victim" if same_name else "heir", lease_s=1.0)
            assert sorted(bodies(await all_of(heir, 8))) == [str(i) for i in range(8)]
            await heir.close()

    asyncio.run(run())


def test_a_lease_that_is_kept_does_not_run_out(world):
    async def run():
        async with world.queue(2) as (bus, queue), world.bus() as other:
            inbox = await world.inbox(bus, queue, lease_s=1.0)
            taken = await all_of(inbox, 2)
            for _ in range(4):
                await asyncio.sleep(0.3)
                await inbox.keep(taken)
            if world.kind != "kafka":
                second = await world.inbox(other, queue, name="two", lease_s=1.0)
                assert await second.take(2, 0.4) == []
                await second.close()
            await inbox.done(taken)
            await inbox.close()

    asyncio.run(run())


def test_a_bad_name_is_refused(world):
    async def run():
        async with world.bus() as bus:
            for queue in ["", "a b", "文", ".a", "a.", "a..b", "a/b", "*", ">", "x" * 121, "a\n", "-a"]:
                for call in (bus.declare(queue), bus.send(queue, Message(b"")), bus.open_inbox(queue, name="n", prefetch=1, lease_s=1), bus.depth(queue), bus.drop(queue)):
                    with pytest.raises(Invalid, match=r"bus\.bad-queue"):
                        await call

    asyncio.run(run())


def test_names_that_look_alike_are_different_queues(world):
    async def run():
        base = queue_name()
        names = [f"{base}.x-y", f"{base}.x.y", f"{base}.x_y"]
        async with world.bus() as bus:
            for name in names:
                await bus.send(name, Message(name.encode()))
            for name in names:
                inbox = await world.inbox(bus, name)
                (taken,) = await all_of(inbox, 1)
                assert taken.message.body == name.encode()
                await inbox.done([taken])
                await inbox.close()
                await bus.drop(name)

    asyncio.run(run())


def test_a_header_that_some_broker_cannot_carry_is_refused_by_all(world):
    async def run():
        async with world.queue() as (bus, queue):
            for headers in [{"Id": "x"}, {"id": "文"}, {"id": "a\r\nb"}, {"id": "x" * 1025}, {"": "x"}, {"body": "x"}]:
                with pytest.raises(Invalid, match=r"bus\.bad-header"):
                    await bus.send(queue, Message(b"", headers))
                assert await bus.depth(queue) == 0

    asyncio.run(run())


def test_a_message_too_large_is_refused_and_the_bus_goes_on(world):
    if world.kind in {"local", "memory"}:
        pytest.skip("takes messages of any size")

    async def run():
        async with world.queue() as (bus, queue):
            with pytest.raises(Invalid, match=r"bus\.message-too-large"):
                await bus.send(queue, Message(bytes(65 << 20)))
            await bus.send(queue, Message(b"small"))
            inbox = await world.inbox(bus, queue)
            assert bodies(await all_of(inbox, 1)) == ["small"]
            await inbox.close()

    asyncio.run(run())


@pytest.mark.parametrize("kind", [n for n in BUSES.names() if n not in {"local", "memory"}])
def test_a_broker_that_is_not_there_is_told_without_the_password(kind, tmp_path):
    with pytest.raises(Broken, match=r"bus\.unreachable") as e:
        asyncio.run(open_bus(f"{kind}://someone:s3cret@127.0.0.1:{free_port()}/", Home(tmp_path)))
    assert "s3cret" not in str(e.value)


@pytest.mark.parametrize("url", ["", "nats", "nast://x", "amqp://x", "nats:", "redis://", "rabbitmq:///x", "kafka://", "redis://[::1", "nats://h:99999"])
def test_a_bad_url_is_refused(url, tmp_path):
    with pytest.raises(WenfangError, match=r"bus\.bad-url"):
        asyncio.run(open_bus(url, Home(tmp_path)))


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nats", None)
    monkeypatch.delitem(sys.modules, "wenfang.stores.buses.nats", raising=False)
    monkeypatch.setattr(BUSES, "_loaded", {})
    with pytest.raises(Unsupported, match=r"pip install 'wenfang\[nats\]'"):
        check_bus_url("nats://x")


def test_a_local_bus_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(Broken, match=r"bus\.file-failed"):
        asyncio.run(open_bus(f"local://{tmp_path}/file/bus.db", Home(tmp_path)))
    Path(tmp_path / "no.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Broken, match=r"bus\.file-failed"):
        asyncio.run(open_bus(f"local://{tmp_path}/no.db", Home(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nats", "redis", "rabbitmq"])
def test_a_broker_that_is_killed_keeps_what_it_acknowledged(kind, tmp_path):
    """kill -9 and start again: a bus in use says that it broke, a new one finds every message."""
    broker, home, queue = Broker(kind), Home(tmp_path), queue_name()

    async def before():
        bus = await open_bus(broker.url, home)
        for i in range(200):
            await bus.send(queue, Message(str(i).encode()))
        inbox = await bus.open_inbox(queue, name="one", prefetch=50, lease_s=2.0)
        taken = await all_of(inbox, 50)
        await inbox.done(taken[:20])
        await bus.depth(queue)  # a round trip after the last of them
        await asyncio.to_thread(broker.kill)
        with pytest.raises(Broken, match=r"bus\.unreachable"):
            while True:
                await inbox.take(1, 0.5)
                await inbox.done(taken[20:21])
                await bus.send(queue, Message(b"lost"))
        try:
            await bus.close()
        except Broken:
            return

    async def after():
        bus = await open_bus(broker.url, home)
        inbox = await bus.open_inbox(queue, name="one", prefetch=500, lease_s=2.0)
        found, until = set(), asyncio.get_running_loop().time() + 60
        while not found >= {str(i) for i in range(21, 200)}:
            assert asyncio.get_running_loop().time() < until, f"lost: {sorted({str(i) for i in range(21, 200)} - found)}"
            taken = await inbox.take(500, 1.0)
            found |= set(bodies(taken))
            await inbox.done(taken)
        await bus.close()

    try:
        asyncio.run(before())
        broker.start()
        asyncio.run(after())
    finally:
        broker.close()
