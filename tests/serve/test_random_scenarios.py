"""A pool in bad times: cancels, deadlines, texts that raise or kill, replicas that come and go, at random. Every request ends once, with its own answers or an error, and nothing is left."""

import asyncio
import random

import pytest
from test_pool import Replicas, run

from wenfang.core.conversation import Generation
from wenfang.core.errors import WenfangError
from wenfang.serve.cache import AnswerCache
from wenfang.serve.pool import Limits, Pool

ERRORS = {"serve.model-failed", "serve.replica-died", "serve.deadline-passed", "serve.queue-full", "serve.overloaded", "serve.text-quarantined", "generation.schema-unspellable"}
LIMITS = Limits(batch_max=8, queue_max=200, deadline_s=4.0)


class Asked:
    """A request and how often it ended."""

    def __init__(self, texts, texts_b=()):
        self.texts, self.texts_b = texts, texts_b
        self.ended = []
        self.pieces = [""] * len(texts)
        self.left = False

    def piece(self, index, text):
        assert not self.ended and not self.left
        self.pieces[index] += text


class Times:
    """A pool over replicas that are started again when they die; what is asked of it is kept for the judgement."""

    def __init__(self, folder, seed, cache, **more):
        self.random = random.Random(seed)
        self.more = more
        self.asked = []
        self.refused = []
        self.folder, self.cache = folder, cache

    async def run(self, one, n):
        with Replicas(self.folder) as replicas:
            paths = [replicas.start(name, **self.more) for name in "abc"]
            self.pool = Pool("mv", "m:1", paths[:2], LIMITS, self.cache)
            assert await self.pool.until_ready(30)
            raising = asyncio.create_task(self._raise(replicas))
            moving = asyncio.create_task(self._move(paths))
            for _ in range(n):
                try:
                    one(self)
                except WenfangError as e:
                    self.refused.append(e.code)
                if self.random.random() < 0.3:
                    await asyncio.sleep(self.random.random() * 0.01)
            moving.cancel()
            self.pool.set_sockets(paths)
            await self._judge()
            raising.cancel()
            self.pool.close()

    async def _raise(self, replicas):
        while True:
            await asyncio.sleep(0.05)
            for name, child in [*replicas.children.items()]:
                if child.popen.poll() is not None:
                    replicas.start(name, **self.more)

    async def _move(self, paths):
        while True:
            await asyncio.sleep(self.random.random() * 0.4)
            self.pool.set_sockets(self.random.sample(paths, self.random.choice((1, 2, 2, 3))))

    def submit(self, asked, top_k=1, **more):
        ticket = self.pool.submit(asked.texts, top_k, asked.ended.append, texts_b=asked.texts_b, **more)
        self.asked.append(asked)
        if self.random.random() < 0.15:
            asyncio.get_running_loop().call_later(self.random.random() * 0.1, self._leave, asked, ticket)

    @staticmethod
    def _leave(asked, ticket):
        asked.left = not asked.ended
        ticket.cancel()

    async def _judge(self):
        pool, loop = self.pool, asyncio.get_running_loop()
        end = loop.time() + 40
        while pool.waiting or any(r.sent for r in pool._links()) or pool._tickets or pool._writing:
            assert loop.time() < end, (pool.state(), len(pool._tickets), len(pool._writing))
            await asyncio.sleep(0.05)
        assert [len(a.ended) for a in self.asked] == [0 if a.left else 1 for a in self.asked]
        errors = [a.ended[0].error for a in self.asked if a.ended and a.ended[0].error is not None]
        assert {e.code for e in errors} | set(self.refused) <= ERRORS
        assert pool.sharing is None or not pool.sharing._asked
        assert pool.ready <= 3 and all(link.transport is not None for link in pool._free) and not pool._leaving

    def answered(self):
        return [(a, a.ended[0].outputs) for a in self.asked if a.ended and a.ended[0].error is None]


def texts_of(rng, odd):
    return [rng.choice(odd) if rng.random() < 0.004 else f"{chr(97 + rng.randrange(26))}{'x' * rng.randrange(6)}" for _ in range(rng.choice((1, 1, 1, 2, 5)))]


@pytest.mark.parametrize("seed", [1, 2])
def test_texts_are_answered_right_whatever_happens_around_them(folder, seed):
    def one(times):
        rng = times.random
        more = {"deadline_s": rng.choice((0.05, 0.3))} if rng.random() < 0.2 else {}
        asked = Asked(texts_of(rng, ["RAISE", "RAISE", "KILL"]))
        asked.top_k = rng.choice((1, 1, 2))
        times.submit(asked, asked.top_k, fresh=rng.random() < 0.3, **more)

    times = Times(folder, seed, AnswerCache(20_000), wait_ms=2)
    run(times.run(one, 1500))
    answered = times.answered()
    assert len(answered) > 500
    for asked, outputs in answered:
        assert [(o.label, o.score) for o in outputs] == [(t[:1], 1 / (1 + len(t))) for t in asked.texts]
        assert asked.top_k == 1 or all(o.scores for o in outputs)
    assert times.pool.sharing.hits > 50 and times.pool.sharing.joined > 10 and times.pool.figures.retried > 0


def test_pairs_and_texts_of_one_model_do_not_answer_each_other(folder):
    def one(times):
        rng = times.random
        texts = [rng.choice("ab") for _ in range(rng.choice((1, 3)))]
        times.submit(Asked(texts, [rng.choice(("a", "b", "")) for _ in texts] if rng.random() < 0.5 else []))

    times = Times(folder, 3, AnswerCache(1 << 20), task="embedding", wait_ms=1)
    run(times.run(one, 600))
    answered = times.answered()
    assert len(answered) > 300
    for asked, outputs in answered:
        if asked.texts_b:
            assert [o.label for o in outputs] == ["same" if a == b else "other" for a, b in zip(asked.texts, asked.texts_b, strict=True)]
        else:
            assert all(o.vector for o in outputs)


@pytest.mark.parametrize("seed", [4, 5])
def test_texts_are_written_right_whatever_happens_around_them(folder, seed):
    def one(times):
        rng = times.random
        asked = Asked([t + "." * rng.choice((2, 20)) for t in texts_of(rng, ["RAISE", "EARLY", "REFUSE", "KILL"])])
        times.submit(asked, options=Generation(), on_piece=asked.piece if rng.random() < 0.5 else None)

    times = Times(folder, seed, None, task="chat", joins=6, token_ms=1)
    run(times.run(one, 500))
    answered = times.answered()
    assert len(answered) > 100
    for asked, outputs in answered:
        assert [o.text for o in outputs] == asked.texts
        assert all(piece in {"", text} for piece, text in zip(asked.pieces, asked.texts, strict=True))
    for asked in times.asked:
        assert all(text.startswith(piece) for piece, text in zip(asked.pieces, asked.texts, strict=True))
