"""Many texts through real replicas: in order, each with its own answer or error, beside other callers, across deaths."""

import random
import threading
import time

import pytest

from dataplane import DataPlane, KnownModel, spawn
from wenfang.core.conversation import Generation
from wenfang.core.errors import Busy, Conflict
from wenfang.core.examples import Output
from wenfang.data.asked import Row
from wenfang.serve.asking import ask_model, ask_replicas
from wenfang.serve.pool import Limits
from wenfang.serve.routing import replica_socket


def rows_of(texts, texts_b=None):
    return iter([Row(i, None, t, texts_b[i - 1] if texts_b else "", "reader.empty-text" if not t else "") for i, t in enumerate(texts, 1)])


def told(outcome):
    return outcome if isinstance(outcome, str) else (outcome.label, outcome.score)


def right(text):
    special = {"": "reader.empty-text", "RAISE": "serve.model-failed", "KILL": "serve.replica-died"}
    return special.get(text) or (text[:1], 1 / (1 + len(text)))


@pytest.fixture
def replicas(folder):
    children = {}

    def start(name, **more):
        children[name] = spawn("dataplane:replica", {"socket": str(folder / name), "name": name, **more}, folder / f"{name}.log")
        return str(folder / name)

    start.children = children
    yield start
    for child in children.values():
        child.close(2.0)


def ask(sockets, rows, take, **more):
    return ask_replicas("mv", "m:1", sockets, rows, take, limits=more.pop("limits", Limits()), **more)


def test_answers_come_in_order_whatever_the_replicas_do(replicas):
    rng = random.Random(3)
    texts = [rng.choice(["", "RAISE", *["abcdefgh"[i] * rng.randrange(1, 120) for i in range(8)] * 8]) for _ in range(3000)]
    got = []
    assert ask([replicas("a", wait_ms=1), replicas("b")], rows_of(texts), lambda row, outcome: got.append((row.number, told(outcome))))
    assert got == [(i, right(t)) for i, t in enumerate(texts, 1)]


def test_a_replica_that_dies_costs_nobody_an_answer(replicas):
    texts = [f"{chr(97 + i % 26)}{i}" for i in range(2000)]
    texts[700] = "KILL"
    sockets, got, stop = [replicas("a", wait_ms=2)], [], threading.Event()

    def restart():
        while not stop.is_set():
            if replicas.children["a"].popen.poll() is not None:
                replicas("a", wait_ms=2)
            time.sleep(0.02)

    keeper = threading.Thread(target=restart)
    keeper.start()
    try:
        assert ask(sockets, rows_of(texts), lambda _, outcome: got.append(told(outcome)))
    finally:
        stop.set()
        keeper.join()
    assert got == [right(t) for t in texts]


def test_only_so_many_rows_are_out_at_once(replicas):
    taken, ahead = [], []

    def rows():
        for row in rows_of([f"a{i}" for i in range(1500)]):
            ahead.append(row.number - len(taken))
            yield row

    assert ask([replicas("a")], rows(), lambda row, _: taken.append(row.number))
    assert len(taken) == 1500 and max(ahead) <= 3 * 4 * 8  # what is out, and what was answered before an earlier one


@pytest.mark.slow
def test_nothing_is_asked_when_no_replica_is_there_and_patience_ends(replicas, folder):
    rows = rows_of(["a", "b"])
    assert ask([str(folder / "none")], rows, print, ready_s=0.2) is False
    assert next(rows).text == "a"
    path = replicas("a", wait_ms=400)
    with pytest.raises(Busy, match="deadline-passed"):
        ask([path], rows_of(["x"] * 50), lambda *_: None, limits=Limits(deadline_s=0.1), patience_s=1.0)

    def moved():
        raise Conflict("batch.version-changed", service="s", model="m:1")

    with pytest.raises(Conflict, match="version-changed"):
        ask([path], rows_of(["x"] * 50), lambda *_: None, limits=Limits(deadline_s=0.1), still=moved)


@pytest.mark.parametrize("joins", [0, 4])
def test_texts_are_written(replicas, joins):
    texts = [f"第{i}条消息" for i in range(60)]
    got = []
    path = replicas("a", task="generation", joins=joins)
    assert ask([path], rows_of(texts), lambda _, o: got.append((o.text, o.finish)), options=Generation(max_tokens=3))
    assert got == [(t[:3], "length") for t in texts]


def test_pairs_and_a_model_in_this_process(replicas):
    texts, texts_b = ["a", "b", ""], ["a", "c", "x"]
    got = []
    assert ask([replicas("a", task="matching")], rows_of(texts, texts_b), lambda _, o: got.append(told(o)))
    assert got == [("same", 1.0), ("other", 1.0), "reader.empty-text"]
    here = []
    many = [f"{'ab'[i % 2]}{i}" for i in range(150)] + ["", "RAISE", "z"]
    ask_model(KnownModel({}), rows_of(many), lambda row, o: here.append((row.number, told(o))))
    assert here == [(i, right(t)) for i, t in enumerate(many, 1)]
    wrote = []
    ask_model(KnownModel({"task": "generation"}), rows_of(["你好吗"] * 20), lambda _, o: wrote.append(o), options=Generation(max_tokens=2))
    assert all(isinstance(o, Output) and o.text == "你好" for o in wrote) and len(wrote) == 20


def test_online_requests_are_answered_meanwhile():
    plane = DataPlane({"mv_first": ("first:1", "classification", 1, {"wait_ms": 10})})
    try:
        taken, waits = [], []
        sockets = [str(replica_socket(plane.home.run, "mv_first", 0))]
        batch = threading.Thread(target=lambda: ask(sockets, rows_of([f"a{i}" for i in range(1200)]), lambda row, _: taken.append(row.number)))
        batch.start()
        while batch.is_alive():
            begun, before = time.monotonic(), len(taken)
            status, document = plane.predict(["online"])
            assert (status, document["outputs"][0]["label"]) == (200, "o")
            waits.append((time.monotonic() - begun, len(taken) - before))
        batch.join()
        assert len(taken) == 1200 and len(waits) > 20
        # a caller waits for at most the batch at hand and one of ours more, never for what waits in the job
        assert sorted(n for _, n in waits)[len(waits) // 2] <= 3 * 8
    finally:
        plane.close()
