"""What a replica measured at load is read by the next; a queue that waits for more replicas is no overload."""

import pytest

from wenfang.core.errors import Busy
from wenfang.serve.admission import Admission
from wenfang.serve.batching import Item, Ticket
from wenfang.serve.costs import CostCurve
from wenfang.serve.figures import WAIT_BOUNDS_MS, PoolFigures
from wenfang.serve.remembering import measured_once


class Asked:
    """Remembers the batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, texts):
        self.batches.append(len(texts))
        return sum(ord(c) for t in texts for c in t)


def test_the_second_replica_reads_what_the_first_measured(tmp_path):
    path, first, second, other = tmp_path / "mv.curve.json", Asked(), Asked(), Asked()
    curve = measured_once(first, batch_max=4, budget_s=0.5, path=path)
    assert measured_once(second, batch_max=4, budget_s=0.5, path=path) == curve
    assert len(second.batches) == 4 < len(first.batches)  # warm, but not measured
    measured_once(other, batch_max=8, budget_s=0.5, path=path)
    assert len(other.batches) > 4  # another limit is another question
    path.write_bytes(b"{")
    assert measured_once(Asked(), batch_max=4, budget_s=0.5, path=path).batch_max <= 4
    measured_once(Asked(), batch_max=4, budget_s=0.1, path=tmp_path / "no folder" / "x.json")


def test_a_standing_queue_is_refused_only_where_no_more_replicas_may_come():
    door = Admission("x:1", (8, 1024, 0.1), PoolFigures(), lambda: [CostCurve(1.0, 0.0, 8)], 0.0)
    waiting = [Item("十个字的一条文本来了", i, Ticket(1, 1, 0.0, 60.0, lambda _: None)) for i in range(500)]
    door.pressure.empty(0.0)
    door.expect_more(True, 1.0)
    door.let_in(waiting, 1, ("", 1), 5.0)
    door.expect_more(False, 5.0)
    door.let_in(waiting, 1, ("", 1), 9.9)  # the last replica has come: what waited for it is answered first
    with pytest.raises(Busy) as caught:
        door.let_in(waiting, 1, ("", 1), 10.1)
    assert caught.value.code == "serve.overloaded"


def test_waiting_is_counted_in_classes():
    figures = PoolFigures()
    figures.waited([0.0, 1.0, 1.1, 1e9])
    assert figures.waits[:2] == [2, 1] and figures.waits[-1] == 1 and len(figures.waits) == len(WAIT_BOUNDS_MS) + 1
    assert figures.queue_ms == pytest.approx(1e9 + 2.1)
