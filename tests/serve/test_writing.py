"""Generation through a pool over real replica processes: pieces, cancelling, deadlines that move, replicas that die or hang."""

import asyncio
import time

import pytest
from test_pool import Replicas, run

from wenfang.core.conversation import Generation, Message, written
from wenfang.core.errors import Broken, Busy
from wenfang.serve.pool import Limits, Pool


class Heard:
    """A submitted request: its pieces and when they came, and its outcome."""

    def __init__(self, pool, texts, options=None, stream=True):
        self.pieces = []
        self.at = []
        self.outcome = asyncio.get_running_loop().create_future()
        self.ticket = pool.submit(texts, 1, self.done, options=options or Generation(), on_piece=self.heard if stream else None)

    def heard(self, index, text):
        self.pieces.append((index, text))
        self.at.append(time.monotonic())

    def done(self, ticket):
        if ticket.error is not None:
            self.outcome.set_exception(ticket.error)
        else:
            self.outcome.set_result(ticket.outputs)

    def text(self, index=0):
        return "".join(t for i, t in self.pieces if i == index)


def scenario_with(folder, work, limits=None, **more):
    async def scenario():
        with Replicas(folder) as replicas:
            pool = Pool("mv", "m:1", [replicas.start("a", task="chat", **more)], limits or Limits())
            assert await pool.until_ready(20)
            await work(pool, replicas)
            pool.close()

    run(scenario())


def test_pieces_are_the_answer_and_come_while_it_is_written(folder):
    async def work(pool, _):
        one, two = Heard(pool, ["天地玄黄", written([Message("user", "宇宙")])]), Heard(pool, ["洪荒日月盈昃"], Generation(max_tokens=4))
        quiet = Heard(pool, ["辰宿"], stream=False)
        outputs = await one.outcome
        assert [o.text for o in outputs] == [one.text(0), one.text(1)] == ["天地玄黄", "宇宙"]
        assert one.at[-1] - one.at[0] > 0.05
        (cut,) = await two.outcome
        assert (cut.text, cut.finish, cut.tokens_out, two.text()) == ("洪荒日月", "length", 4, "洪荒日月")
        assert (await quiet.outcome)[0].text == "辰宿"
        assert quiet.pieces == []

    scenario_with(folder, work, token_ms=30)


def test_a_long_text_outlives_the_deadline_while_it_is_being_written_and_shares_its_replica(folder):
    """One second of deadline, three seconds of work: heard or not, it ends well; so does the request of another pool that waits behind it."""

    async def work(pool, _):
        other = Pool("mv", "m:1", [str(folder / "a")], Limits(deadline_s=10.0))
        assert await other.until_ready(20)
        start = time.monotonic()
        one, quiet = Heard(pool, ["x" * 300]), Heard(pool, ["y" * 300], stream=False)
        await asyncio.sleep(0.3)
        behind = Heard(other, ["z"])
        late = Pool("mv", "m:1", [str(folder / "a")], Limits(deadline_s=1.0))
        assert await late.until_ready(1.0)  # greeted in the middle of the work
        assert len((await one.outcome)[0].text) == len((await quiet.outcome)[0].text) == 300
        assert time.monotonic() - start > 2.9
        assert (await behind.outcome)[0].text == "z"
        assert pool.figures.lost == other.figures.lost == late.figures.lost == 0
        other.close()
        late.close()

    scenario_with(folder, work, Limits(deadline_s=1.0), token_ms=10)


def test_what_nobody_wants_is_stopped_in_the_middle(folder):
    log = folder / "steps"

    async def work(pool, _):
        one, two = Heard(pool, ["x" * 2000]), Heard(pool, ["y" * 2000], stream=False)
        while not one.pieces:
            await asyncio.sleep(0.01)
        one.ticket.cancel()
        await asyncio.sleep(0.4)
        assert pool.figures.cancelled == 0  # the other one is still wanted
        two.ticket.cancel()
        start = time.monotonic()
        assert (await Heard(pool, ["after"]).outcome)[0].text == "after"
        assert time.monotonic() - start < 2.0
        assert pool.figures.cancelled == 1
        assert len(log.read_text().split()) < 500

    scenario_with(folder, work, token_ms=10, batches=str(log))


def test_a_hung_or_dead_replica_ends_a_text_that_was_begun(folder):
    async def work(pool, replicas):
        dead = Heard(pool, ["KILL me"])
        with pytest.raises(Broken) as caught:
            await dead.outcome
        assert (caught.value.code, dead.text()) == ("serve.replica-died", "KIL")
        replicas.children["a"].popen.wait(10)
        replicas.start("a", task="chat", token_ms=5)
        assert await pool.until_ready(20)
        raised, good = Heard(pool, ["RAISE it"]), Heard(pool, ["good"], stream=False)
        with pytest.raises(Broken) as caught:
            await raised.outcome
        assert (caught.value.code, raised.text()) == ("serve.model-failed", "RAI")
        assert (await good.outcome)[0].text == "good"
        start = time.monotonic()
        hung = Heard(pool, ["HANG on"])
        with pytest.raises((Busy, Broken)):
            await hung.outcome
        assert time.monotonic() - start < 4.0
        assert pool.figures.lost == 2

    scenario_with(folder, work, Limits(deadline_s=2.0), token_ms=5)
